"""The learning rate over time: a linear warm-up and a cosine, as a function of the step."""

import math

import tensorflow as tf
import tf_keras as keras


@keras.saving.register_keras_serializable("vswin")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine from `learning_rate` to 0, multiplied by a linear warm-up.

    Args:
        learning_rate: the rate the cosine starts from.
        steps_per_epoch: optimizer steps in an epoch, >= 1.
        epochs: length of the cosine.
        warmup_epochs: length of the warm-up; may end within an epoch. 0 for none.
        warmup_ratio: factor at step 0, from which the warm-up climbs to 1.
        is_staircase: whether the cosine moves only between epochs, as the official recipe does; the warm-up
            moves every step all the same.

    Source: mmcv 1.3 runner/hooks/lr_updater.py, CosineAnnealingLrUpdaterHook with warmup="linear",
        warmup_by_epoch=True (is_staircase=True).
    """

    def __init__(
        self,
        learning_rate: float,
        steps_per_epoch: int,
        epochs: int,
        warmup_epochs: float = 0.0,
        warmup_ratio: float = 0.1,
        is_staircase: bool = False,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.warmup_ratio = warmup_ratio
        self.is_staircase = is_staircase

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

    def get_config(self) -> dict[str, float | int | bool]:
        """Returns the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "epochs": self.epochs,
            "warmup_epochs": self.warmup_epochs,
            "warmup_ratio": self.warmup_ratio,
            "is_staircase": self.is_staircase,
        }
