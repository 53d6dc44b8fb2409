"""AdamW with parameter groups: which weights learn at which rate, and which decay."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from vswin.config import OptimizerConfig


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

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Moves one variable along its gradient."""
        key = self._var_key(variable)
        group = self._group_of_key[key]
        momentum = self._momentums[self._index_dict[key]]
        velocity = self._velocities[self._index_dict[key]]
        # The bias tables are read by gather, whose gradient comes as slices.
        gradient = tf.convert_to_tensor(gradient)

        rate = tf.cast(self.learning_rate, variable.dtype) * group.learning_rate_multiplier
        step = tf.cast(self.iterations + 1, variable.dtype)
        momentum.assign_add((gradient - momentum) * (1.0 - self.beta_1))
        velocity.assign_add((tf.square(gradient) - velocity) * (1.0 - self.beta_2))
        mean = momentum / (1.0 - tf.pow(self.beta_1, step))
        root = tf.sqrt(velocity / (1.0 - tf.pow(self.beta_2, step))) + self.epsilon
        variable.assign_sub(rate * (mean / root + group.weight_decay * variable))

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


def build_optimizer(
    config: OptimizerConfig,
    weights: Mapping[str, tf.Variable],
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | float,
) -> AdamW:
    """Builds the recipe's AdamW for a model.

    Args:
        config: betas, epsilon, decay, clipping and the multiplier of the backbone.
        weights: official name -> variable, all of the model's.
        learning_rate: base rate; each group multiplies it.
    """
    groups = {variable.name: official_group(name, config) for name, variable in weights.items()}
    if len(groups) != len(weights):
        raise ValueError("two variables of the model share a name")
    return AdamW(learning_rate, groups, config.beta_1, config.beta_2, config.epsilon, config.clip_norm)


def describe_groups(weights: Mapping[str, tf.Variable], config: OptimizerConfig) -> list[str]:
    """Describes each parameter group in use: its rate, decay and number of parameters."""
    sizes: dict[ParameterGroup, int] = {}
    for name, variable in weights.items():
        group = official_group(name, config)
        sizes[group] = sizes.get(group, 0) + int(variable.shape.num_elements())
    return [
        f"{group.name} {config.learning_rate * group.learning_rate_multiplier:g} "
        f"(decay {group.weight_decay:g}, {size:,} parameters)"
        for group, size in sizes.items()
    ]
