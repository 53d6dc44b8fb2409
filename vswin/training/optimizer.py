"""AdamW with parameter groups, and its learning rate schedule: a linear warm-up and a cosine."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

from vswin.config.schema import OptimizerConfig
from vswin.training.groups import ParameterGroup, assign_groups


@dataclass(eq=False)
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine from `learning_rate` to 0, multiplied by a linear warm-up.

    Source: mmcv 1.3 runner/hooks/lr_updater.py, CosineAnnealingLrUpdaterHook with warmup="linear",
        warmup_by_epoch=True (is_staircase=True).
    """

    learning_rate: float  # rate at the start of the cosine
    steps_per_epoch: int  # optimizer steps in an epoch, >= 1
    epochs: int  # length of the cosine
    warmup_epochs: float = 0.0  # length of the warm-up; may end within an epoch
    warmup_ratio: float = 0.1  # factor at step 0, from which the warm-up climbs to 1
    # Whether the cosine moves only between epochs, as in the official recipe; the warm-up always moves every step.
    is_staircase: bool = False

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the rate, float32, at an optimizer step counted from 0."""
        step = tf.cast(step, tf.float32)
        epoch = step / self.steps_per_epoch
        if self.is_staircase:
            # Integers, so that the first step of an epoch is never rounded into the one before.
            epoch = tf.cast(tf.cast(step, tf.int64) // self.steps_per_epoch, tf.float32)
        rate = 0.5 * self.learning_rate * (1.0 + tf.cos(math.pi * epoch / self.epochs))
        warmup_steps = self.warmup_epochs * self.steps_per_epoch
        if warmup_steps > 0:
            warmed = tf.minimum(step / warmup_steps, 1.0)
            rate *= self.warmup_ratio + (1.0 - self.warmup_ratio) * warmed
        return rate


class AdamW(keras.optimizers.Optimizer):
    """Adam with decoupled weight decay; each variable has the rate multiplier and the decay of its group.

    `groups` maps `variable.name` to a group; a variable without one is an error. `epsilon` is added to the root of the
    bias-corrected second moment, as in PyTorch (Keras adds it before the correction). `clip_norm` is the largest global
    norm of the gradients, summed over all replicas; None for no limit.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, algorithm 2; torch.optim.AdamW.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        groups: Mapping[str, ParameterGroup],
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(name="AdamW", global_clipnorm=clip_norm, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.groups = dict(groups)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._has_moments = False

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the two moments of every variable, float32 zeros; raises a ValueError if a variable has no group."""
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
        """Returns the rate of each group in the last step, by group name; the highest if its layers differ."""
        rate = float(keras.backend.get_value(self.learning_rate))
        multipliers: dict[str, float] = {}
        for group in self.groups.values():
            multipliers[group.name] = max(multipliers.get(group.name, 0.0), group.learning_rate_multiplier)
        return {name: rate * multiplier for name, multiplier in multipliers.items()}

    def _compute_current_learning_rate(self) -> None:
        """Computes the values that all variables share; Keras calls it once at the start of a step."""
        super()._compute_current_learning_rate()
        step = tf.cast(self.iterations + 1, tf.float32)
        self._rate = tf.cast(self.learning_rate, tf.float32)
        self._beta_powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        # The kernel adds epsilon before the bias correction.
        self._uncorrected_epsilon = self.epsilon * tf.sqrt(1.0 - self._beta_powers[1])

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable and its moments in one pass."""
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
            # Bias tables are read with gather, whose gradient has the form of slices.
            grad=tf.convert_to_tensor(gradient),
        )


def build_optimizer(
    config: OptimizerConfig,
    weights: Mapping[str, tf.Variable],
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | float,
    frozen: Collection[str] = (),
) -> keras.optimizers.Optimizer:
    """Builds AdamW, ours or TensorFlow Addons', for all weights of a model except the frozen ones."""
    named = assign_groups(weights, config)
    groups = {variable.name: named[name] for name, variable in weights.items()}
    if len(groups) != len(weights):
        raise ValueError("two variables of the model share a name")
    for name in frozen:
        del groups[weights[name].name]
    if config.name == "adamw_addons":
        # TensorFlow Addons is available only for TensorFlow 2.15, and needed only here.
        from vswin.training.addons_optimizer import build_addons_optimizer

        return build_addons_optimizer(config, groups, learning_rate)
    return AdamW(learning_rate, groups, config.beta_1, config.beta_2, config.epsilon, config.clip_norm)
