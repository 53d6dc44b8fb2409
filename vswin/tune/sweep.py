"""The training of a learning-rate range test: a rate that rises with every step, until the loss diverges."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing

import tensorflow as tf
import tf_keras as keras

from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader, open_frames
from vswin.data.order import Order, count_steps
from vswin.errors import InputError
from vswin.runtime import console
from vswin.schema import TrainConfig
from vswin.tables import make_progress_bar
from vswin.training.setup import distribute_training
from vswin.training.trainer import Trainer

# Where the running mean of the loss stands at so many times its best, nothing is to be learned any more.
_DIVERGED = 4.0
_MOMENTUM = 0.9
# Steps that float16 may leave out beyond those asked for, while it looks for the scale of the loss.
_SKIPPED = 50


@keras.saving.register_keras_serializable("vswin")
class RisingRate(keras.optimizers.schedules.LearningRateSchedule):
    """Rises by the same factor from step to step.

    Args:
        smallest: rate of step 0.
        largest: rate of the last step.
        steps: how many, >= 2.
    """

    def __init__(self, smallest: float, largest: float, steps: int) -> None:
        super().__init__()
        self.smallest, self.largest, self.steps = smallest, largest, steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the rate, float32, at an optimizer step counted from 0."""
        share = tf.cast(step, tf.float32) / (self.steps - 1)
        return self.smallest * tf.exp(share * math.log(self.largest / self.smallest))

    def get_config(self) -> dict[str, float | int]:
        """Returns the constructor's arguments."""
        return {"smallest": self.smallest, "largest": self.largest, "steps": self.steps}


@dataclasses.dataclass
class Curve:
    """Holds what a range test saw.

    Args:
        rates: base learning rate of each step.
        losses: of its batch before the step moves the weights; finite.
        has_diverged: whether it ended because the loss rose too far or was not finite.
        num_bad: videos that could not be decoded.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    has_diverged: bool = False
    num_bad: int = 0


class Divergence:
    """Follows the loss and says when it has diverged."""

    def __init__(self) -> None:
        self._mean = self._weight = 0.0
        self._best = math.inf

    def sees(self, loss: float) -> bool:
        """Takes in the next loss; whether it is not finite, or the running mean stands at four times its best."""
        if not math.isfinite(loss):
            return True
        self._mean = _MOMENTUM * self._mean + (1 - _MOMENTUM) * loss
        self._weight = _MOMENTUM * self._weight + (1 - _MOMENTUM)
        mean = self._mean / self._weight
        self._best = min(self._best, mean)
        return mean > _DIVERGED * self._best


def sweep(trainer: Trainer, config: TrainConfig, catalog: Catalog, schedule: RisingRate) -> Curve:
    """Trains with the rising rate on the batches a run would begin with.

    Args:
        trainer: what is trained, compiled with the schedule.
        config: the run.
        catalog: its videos.
        schedule: supplies rates and number of steps.

    Returns:
        The curve, up to the last finite loss.

    Raises:
        InputError: if none of the videos of a batch can be decoded.
    """
    curve, divergence, bad = Curve(), Divergence(), BadVideos()
    paths = [video.path for video in catalog.train]
    with (
        closing(open_frames(config.dataset, config.clip.resize, paths, catalog.store)) as frames,
        make_progress_bar(console, "steps") as bar,
    ):
        task = bar.add_task("range test", total=schedule.steps, note="")
        step = trainer.make_train_function()
        batches = _make_batches(trainer, config, catalog, schedule.steps + _SKIPPED, frames, bad)
        for _ in range(schedule.steps + _SKIPPED):
            taken = int(keras.backend.get_value(trainer.optimizer.iterations))
            if taken >= schedule.steps:
                break
            rate = float(schedule(taken))
            trainer.reset_metrics()
            loss = float(step(batches)["loss"])
            curve.has_diverged = divergence.sees(loss)
            if math.isfinite(loss):
                curve.rates.append(rate)
                curve.losses.append(loss)
            if curve.has_diverged:
                break
            bar.update(task, completed=taken + 1, note=f"rate {rate:.1e}  loss {loss:.3f}")
    curve.num_bad = len(bad)
    if curve.num_bad == len(paths):
        raise InputError(f"none of the {len(paths):,} training videos can be decoded; vswin data check says why")
    return curve


def _make_batches(
    trainer: Trainer, config: TrainConfig, catalog: Catalog, steps: int, frames: FrameLoader, bad: BadVideos
) -> Iterator[dict[str, tf.Tensor]]:
    """Makes the batches that the run's first steps would see, epoch after epoch."""
    repeats = config.augment.repeats
    epochs = -(-steps // count_steps(len(catalog.train), config.batch_size, repeats))
    order = Order(config.seed, config.batch_size, epochs, repeats=repeats)
    return iter(distribute_training(trainer.distribute_strategy, config, catalog, order, bad, frames))
