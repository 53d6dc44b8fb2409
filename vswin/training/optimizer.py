"""AdamW with parameter groups: which weights learn at which rate, and which decay."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from vswin.schema import OptimizerConfig
from vswin.training.layer_decay import layer_multiplier
from vswin.weights.names import read_depths


class ParameterGroup(NamedTuple):
    """How the optimizer treats a set of weights."""

    name: str
    learning_rate_multiplier: float
    weight_decay: float


@keras.saving.register_keras_serializable("vswin")
class AdamW(keras.optimizers.Optimizer):
    """Adam with decoupled weight decay, and a rate multiplier and decay for each variable.

    Args:
        learning_rate: a rate or a schedule of the step.
        groups: variable name (`variable.name`) -> its group; a variable without one is an error.
        beta_1, beta_2: decay of the first and second moment.
        epsilon: added to the root of the bias-corrected second moment, as PyTorch does (Keras adds it before
            the correction).
        clip_norm: largest global norm of the gradients, all replicas summed; None for no limit.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, algorithm 2; torch.optim.AdamW.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        groups: Mapping[str, Sequence[Any]],
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
        name: str = "AdamW",
    ) -> None:
        super().__init__(name=name, global_clipnorm=clip_norm, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.groups = {variable: ParameterGroup(*group) for variable, group in groups.items()}
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.clip_norm = clip_norm
        self._has_moments = False

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the two moments of every variable, float32, zero.

        Raises:
            ValueError: if a variable has no group.
        """
        super().build(var_list)
        if self._has_moments:
            return
        missing = [variable.name for variable in var_list if variable.name not in self.groups]
        if missing:
            raise ValueError(f"{len(missing)} variables have no parameter group: {missing[:5]}")
        self._group_of_key = {self._var_key(variable): self.groups[variable.name] for variable in var_list}
        self._momentums = [self.add_variable_from_reference(variable, "m") for variable in var_list]
        self._velocities = [self.add_variable_from_reference(variable, "v") for variable in var_list]
        self._has_moments = True

    def last_rates(self) -> dict[str, float]:
        """Gives the rate of each group in the last step, by the group's name; the highest of its layers."""
        rate = float(keras.backend.get_value(self.learning_rate))
        multipliers: dict[str, float] = {}
        for group in self.groups.values():
            multipliers[group.name] = max(multipliers.get(group.name, 0.0), group.learning_rate_multiplier)
        return {name: rate * multiplier for name, multiplier in multipliers.items()}

    def _compute_current_learning_rate(self) -> None:
        """Computes what all variables share, which Keras asks for once at the beginning of a step."""
        super()._compute_current_learning_rate()
        step = tf.cast(self.iterations + 1, tf.float32)
        self._rate = tf.cast(self.learning_rate, tf.float32)
        self._beta_powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        # The kernel adds it before the correction.
        self._uncorrected_epsilon = self.epsilon * tf.sqrt(1.0 - self._beta_powers[1])

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Moves one variable along its gradient, in one pass over it and its moments."""
        key = self._var_key(variable)
        group = self._group_of_key[key]
        rate = self._rate * group.learning_rate_multiplier
        if group.weight_decay > 0:
            variable.assign_sub(rate * group.weight_decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[self._index_dict[key]].handle,
            v=self._velocities[self._index_dict[key]].handle,
            beta1_power=self._beta_powers[0],
            beta2_power=self._beta_powers[1],
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self._uncorrected_epsilon,
            # The bias tables are read by gather, whose gradient comes as slices.
            grad=tf.convert_to_tensor(gradient),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "groups": {variable: list(group) for variable, group in self.groups.items()},
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "clip_norm": self.clip_norm,
        }


def official_group(name: str, config: OptimizerConfig) -> ParameterGroup:
    """Puts a weight into its group of the official recipe.

    Args:
        name: official name, e.g. `backbone.layers.0.blocks.0.attn.qkv.weight`.
        config: supplies the decay and the multiplier of the backbone.

    Source: Video-Swin-Transformer configs/recognition/swin, paramwise_cfg, as mmcv applies it: the longest
        matching key alone counts, so layer norms of the backbone do decay.
    """
    if name.endswith("relative_position_bias_table"):
        return ParameterGroup("bias tables", 1.0, 0.0)
    if name.startswith("backbone."):
        return ParameterGroup("backbone", config.backbone_multiplier, config.weight_decay)
    return ParameterGroup("head", 1.0, config.weight_decay)


def mmaction2_group(name: str, config: OptimizerConfig) -> ParameterGroup:
    """Puts a weight into its group as mmaction2 1.x does, whose Swin-T reaches the same accuracy.

    Args:
        name: official name.
        config: supplies the decay and the multiplier of the backbone.

    Source: mmaction2 1.x engine/optimizers/swin_optim_wrapper_constructor.py: all matching keys multiply, so that
        layer norms do not decay and bias tables learn at the backbone's rate.
    """
    if not name.startswith("backbone."):
        return ParameterGroup("head", 1.0, config.weight_decay)
    if name.endswith("relative_position_bias_table"):
        return ParameterGroup("bias tables", config.backbone_multiplier, 0.0)
    if "norm" in name:
        return ParameterGroup("layer norms", config.backbone_multiplier, 0.0)
    return ParameterGroup("backbone", config.backbone_multiplier, config.weight_decay)


def plain_group(name: str, config: OptimizerConfig) -> ParameterGroup:
    """Puts a weight into one of two groups, backbone and head; all weights decay, bias tables are of the backbone.

    Args:
        name: official name.
        config: supplies the decay and the multiplier of the backbone.
    """
    is_backbone = name.startswith("backbone.")
    multiplier = config.backbone_multiplier if is_backbone else 1.0
    return ParameterGroup("backbone" if is_backbone else "head", multiplier, config.weight_decay)


def find_group(name: str, config: OptimizerConfig) -> ParameterGroup:
    """Puts a weight into its group by the rule that `optimizer.groups` names.

    Args:
        name: official name.
        config: supplies the rule and its numbers.
    """
    if config.groups == "mmaction2":
        return mmaction2_group(name, config)
    if config.groups == "backbone_and_head":
        return plain_group(name, config)
    return official_group(name, config)


def assign_groups(names: Iterable[str], config: OptimizerConfig) -> dict[str, ParameterGroup]:
    """Puts every weight into its group, the rate of which layer-wise decay multiplies.

    Args:
        names: official names of all weights of the model.
        config: supplies the rule, its numbers and the decay.

    Returns:
        Official name -> group; groups of one name may differ in their rate.
    """
    names = list(names)
    depths, groups = read_depths(names), {}
    for name in names:
        group = find_group(name, config)
        multiplier = group.learning_rate_multiplier * layer_multiplier(name, depths, config.layer_decay)
        groups[name] = group._replace(learning_rate_multiplier=multiplier)
    return groups


def build_optimizer(
    config: OptimizerConfig,
    weights: Mapping[str, tf.Variable],
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | float,
    frozen: Collection[str] = (),
) -> keras.optimizers.Optimizer:
    """Builds the recipe's AdamW for a model, ours or that of TensorFlow Addons.

    Args:
        config: which, betas, epsilon, decay, clipping and the multipliers of the backbone and its layers.
        weights: official name -> variable, all of the model's.
        learning_rate: base rate; each group multiplies it.
        frozen: official names of the weights that are not trained.
    """
    named = assign_groups(weights, config)
    groups = {variable.name: named[name] for name, variable in weights.items()}
    if len(groups) != len(weights):
        raise ValueError("two variables of the model share a name")
    for name in frozen:
        del groups[weights[name].name]
    if config.name == "adamw_addons":
        # Only there for TensorFlow 2.15, and not needed otherwise.
        from vswin.training.addons_optimizer import build_addons_optimizer

        return build_addons_optimizer(config, groups, learning_rate)
    return AdamW(learning_rate, groups, config.beta_1, config.beta_2, config.epsilon, config.clip_norm)
