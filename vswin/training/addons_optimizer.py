"""AdamW of TensorFlow Addons, whose development ended with TensorFlow 2.15: `optimizer=adamw_addons`.

Only this module imports TensorFlow Addons, and it is imported only for that choice.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorflow.python.util import tf_export

from vswin.config.schema import OptimizerConfig
from vswin.errors import InputError
from vswin.training.optimizer import ParameterGroup, Rate

# TensorFlow Addons also imports Keras itself, which overwrites the names under which TensorFlow finds the classes of
# tf_keras. Without this, a layer could not be rebuilt from its configuration.
_names = dict(tf_export._NAME_TO_SYMBOL_MAPPING)
with warnings.catch_warnings():
    # It warns that its development has ended; users who choose it know.
    warnings.filterwarnings("ignore", r"\s*TensorFlow Addons \(TFA\) has ended", UserWarning)
    import tensorflow_addons as tfa
tf_export._NAME_TO_SYMBOL_MAPPING.update(_names)


@dataclass(eq=False)
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate schedule, multiplied by a factor."""

    schedule: keras.optimizers.schedules.LearningRateSchedule
    factor: float

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the rate, float32, at an optimizer step counted from 0."""
        return self.schedule(step) * self.factor


class _AdamW(tfa.optimizers.AdamW):
    """TensorFlow Addons' AdamW, but epsilon is added after the bias correction of the second moment, as in ours."""

    def _prepare_local(self, var_device: str, var_dtype: tf.DType, apply_state: dict) -> None:
        super()._prepare_local(var_device, var_dtype, apply_state)
        state = apply_state[var_device, var_dtype]
        state["epsilon"] *= tf.sqrt(1.0 - state["beta_2_power"])


class GroupedAdamW(tfa.optimizers.MultiOptimizer):
    """A `tfa.optimizers.MultiOptimizer` with one `tfa.optimizers.AdamW` per parameter group.

    The original cannot be used here: it keeps the gradients of a step in lists that the threads of several replicas
    share (IndexError), creates the moments in the first step, and does not save them. For the arguments see `AdamW`.

    Source: TensorFlow Addons 0.23, optimizers/discriminative_layer_training.py and weight_decay_optimizers.py.
    """

    def __init__(
        self, learning_rate: Rate, groups: Mapping[str, ParameterGroup], beta_1: float, beta_2: float, epsilon: float
    ) -> None:
        self.base_rate = learning_rate
        self.members: dict[ParameterGroup, list[str]] = {}
        for name, group in groups.items():
            self.members.setdefault(group, []).append(name)
        specs = []
        for group, names in self.members.items():
            rate = _scale(learning_rate, group.learning_rate_multiplier)
            # This AdamW subtracts the decay as given; others multiply it by the learning rate.
            decay = _scale(learning_rate, group.learning_rate_multiplier * group.weight_decay)
            adamw = _AdamW(decay, rate, beta_1, beta_2, epsilon, name=group.name.replace(" ", "_"))
            specs.append({"optimizer": adamw, "weights": names})
        super().__init__(optimizer_specs=specs)
        for i, spec in enumerate(self.optimizer_specs):
            self._track_trackable(spec["optimizer"], f"optimizer_{i}")

    @property
    def learning_rate(self) -> tf.Tensor:
        """The base rate of the last step, before the multipliers of the groups."""
        if callable(self.base_rate):
            return self.base_rate(tf.maximum(tf.convert_to_tensor(self.iterations) - 1, 0))
        return tf.constant(self.base_rate)

    @property
    def variables(self) -> list[tf.Variable]:
        """The step counts and moments of all groups; a property, as in newer Keras optimizers."""
        return [*self.weights, *(weight for spec in self.optimizer_specs for weight in spec["optimizer"].weights)]

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the two moments of every variable, float32 zeros; a step on several replicas cannot create them."""
        by_name = {variable.name: variable for variable in var_list}
        for spec in self.optimizer_specs:
            spec["optimizer"]._create_all_weights([by_name[name] for name in spec["weights"]])
        self._create_all_weights([])

    def apply_gradients(self, grads_and_vars: Iterable[tuple[tf.Tensor, tf.Variable]], **kwargs: Any) -> tf.Tensor:
        """Takes a step with the optimizer of each group; gradients are summed over replicas."""
        by_name = {variable.name: (gradient, variable) for gradient, variable in grads_and_vars}
        for spec in self.optimizer_specs:
            spec["optimizer"].apply_gradients([by_name[name] for name in spec["weights"]], **kwargs)
        return self.iterations.assign_add(1)

    def last_rates(self) -> dict[str, float]:
        """Returns the learning rate of each group in the last step, by group name."""
        rate = float(self.learning_rate)
        return {group.name: rate * group.learning_rate_multiplier for group in self.members}


def build_addons_optimizer(
    config: OptimizerConfig, groups: Mapping[str, ParameterGroup], learning_rate: Rate
) -> GroupedAdamW:
    """Builds the optimizer from the base rate and the groups by variable name.

    Raises:
        InputError: if the run uses several workers, or TensorFlow Addons uses another Keras than vswin.
    """
    if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        raise InputError(
            "runtime.strategy=multi_worker does not go with optimizer=adamw_addons; use optimizer=adamw, or one "
            "machine with runtime.strategy=mirrored or one_device"
        )
    if not issubclass(GroupedAdamW, keras.optimizers.legacy.Optimizer):
        raise InputError(
            "optimizer=adamw_addons: TensorFlow was imported before vswin and gives TensorFlow Addons another Keras; "
            "import vswin first, or set TF_USE_LEGACY_KERAS=1"
        )
    return GroupedAdamW(learning_rate, groups, config.beta_1, config.beta_2, config.epsilon)


def _scale(rate: Rate, factor: float) -> Rate:
    return ScaledSchedule(rate, factor) if callable(rate) else rate * factor
