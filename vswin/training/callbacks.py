"""Callbacks of a run: progress on the terminal, and stops for bad videos and for numbers that are not finite."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from vswin.atomic import replacing
from vswin.config.schema import MONITORS
from vswin.console import make_progress_bar
from vswin.data.bad_videos import BadVideos
from vswin.data.samples import Sample
from vswin.errors import InputError
from vswin.runtime import console, format_seconds, logger

SECONDS_BETWEEN_LINES = 60.0
_NUM_NAMED = 5


class EpochReport(keras.callbacks.Callback):
    """Prints progress, and adds learning rates, `clips_per_sec` and the loss scale, if any, to the logs of each epoch.

    `learning_rate` is the base rate of the epoch's last step. `lr_<group>` is the rate of a parameter group, or of its
    topmost layer if layers differ. This must be the first callback, so that the others see the added logs. Always
    `close` it after training: an open bar hides the cursor of the terminal.
    """

    def __init__(self, steps_per_epoch: int, num_clips: int, epochs: int, monitor: str = "val_top1") -> None:
        super().__init__()
        self.steps_per_epoch = steps_per_epoch
        self.num_clips = num_clips
        self.epochs = epochs
        self.monitor = monitor
        self._bar = make_progress_bar(console, "steps")

    def close(self) -> None:
        """Removes the bar."""
        self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the bar and the clock of the epoch."""
        self._title = f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"
        self._started = self._last_line = time.perf_counter()
        self._steps_seen = 0
        self._bar = make_progress_bar(console, "steps")
        self._task = self._bar.add_task(self._title, total=self.steps_per_epoch, note="")
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Moves the bar; without a terminal, prints a line every minute."""
        now = time.perf_counter()
        self._steps_seen += 1
        self._train_seconds = now - self._started
        if self._steps_seen == 1:
            self._first_step = now
        # The first step of a session includes compilation.
        later_steps = self._steps_seen - 1
        self._step_seconds = (now - self._first_step) / later_steps if later_steps else self._train_seconds
        values = f"loss {logs['loss']:.3f}" + (f"  top-1 {100 * logs['top1']:.1f} %" if "top1" in logs else "")
        self._bar.update(self._task, completed=batch + 1, note=values)
        if not console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = format_seconds(self._step_seconds * (self.steps_per_epoch - batch - 1))
            step = f"step {batch + 1}/{self.steps_per_epoch}"
            logger.info(f"{self._title}  {step}  {values}  {left} left in this epoch")

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Shows that validation has begun."""
        self._bar.update(self._task, description=f"{self._title}  validation")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Completes the logs of the epoch and prints its line."""
        self._bar.stop()
        logs["learning_rate"] = float(keras.backend.get_value(self.model.optimizer.learning_rate))
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if hasattr(optimizer, "last_rates"):
            logs.update({f"lr_{name.replace(' ', '_')}": rate for name, rate in optimizer.last_rates().items()})
        named = {"top1": "top-1", "map": "mAP", "top5": "top-5"}
        train, val, ema = (
            "".join(
                f"  {name} {100 * logs[prefix + key]:5.1f} %" for key, name in named.items() if prefix + key in logs
            )
            for prefix in ("", "val_", "val_ema_")
        )
        more = f"averaged{ema[1:]}   " if ema else ""
        if self.monitor not in ("val_top1", "val_map", "val_loss"):
            monitor, ema_key = MONITORS[self.monitor], self.monitor.replace("val_", "val_ema_")
            averaged = f" (averaged {monitor.format(logs[ema_key])})" if ema_key in logs else ""
            more = f"{monitor.name} {monitor.format(logs[self.monitor])}{averaged}   {more}"
        if isinstance(self.model.optimizer, keras.mixed_precision.LossScaleOptimizer):
            logs["loss_scale"] = float(keras.backend.get_value(self.model.optimizer.loss_scale))
            more += f"loss scale {logs['loss_scale']:g}  "
        # A resumed epoch may start in the middle.
        num_clips = self.num_clips * self._steps_seen / self.steps_per_epoch
        logs["clips_per_sec"] = num_clips / max(self._train_seconds, 1e-9)
        validation_seconds = time.perf_counter() - self._started - self._train_seconds
        left = (self._step_seconds * self.steps_per_epoch + validation_seconds) * (self.epochs - epoch - 1)
        logger.info(
            f"{self._title}  train loss {logs['loss']:.3f}{train}   val loss {logs['val_loss']:.3f}{val}   "
            f"{more}{logs['clips_per_sec']:.1f} clips/s  {format_seconds(left)} left"
        )


class BadVideoGuard(keras.callbacks.Callback):
    """Lists the videos that could not be decoded in `path`, if any, and stops the run if too many are bad."""

    def __init__(self, bad: BadVideos, path: Path, num_videos: int, max_bad_share: float) -> None:
        super().__init__()
        self.bad = bad
        self.path = path
        self.num_videos = num_videos
        self.max_bad_share = max_bad_share
        self._listed: list[tuple[str, str, int]] = []

    def close(self) -> None:
        """Writes the list if it has changed."""
        rows = self.bad.rows()
        if rows != self._listed:
            self._listed = rows
            self.bad.write(self.path)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Writes the list and reports its length if it has grown; raises an InputError if too many videos are bad."""
        num_listed = len(self._listed)
        self.close()
        if len(self._listed) == num_listed:
            return
        causes = self.bad.describe_causes()
        summary = f"{len(self.bad)} of {self.num_videos} videos could not be decoded so far ({causes}), see {self.path}"
        if len(self.bad) > self.max_bad_share * self.num_videos:
            raise InputError(
                f"{summary}; that is more than dataset.max_bad_share={self.max_bad_share}: repair or replace them "
                "under the same names, or raise the share, then go on with resume=true. Without them it is another "
                f"run: start it in another output_dir, from these weights with init_from={self.path.parent}"
            )
        logger.info(f"{summary}; they have no weight in training and count as wrong in validation")


class FiniteGuard(keras.callbacks.Callback):
    """Stops a run after a step whose loss or weights are not finite, before they are saved.

    Gradients that overflow under float16 do not stop the run: loss scaling skips their step, so loss and weights stay
    finite. This callback must come before every callback that saves weights.

    The JSON file `path` then lists the clips of the step; `find_samples` takes an epoch and a step in it, both counted
    from 0, and returns the videos of that global batch.
    """

    def __init__(
        self,
        classifier: keras.Model,
        steps_per_epoch: int,
        find_samples: Callable[[int, int], Sequence[Sample]],
        path: Path,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.steps_per_epoch = steps_per_epoch
        self.find_samples = find_samples
        self.path = path
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch of the steps that follow."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Checks the mean loss of the epoch so far: one step that is not finite makes it not finite."""
        if not math.isfinite(logs["loss"]):
            self._stop(batch, f"a loss of {logs['loss']}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Checks the weights, because no later training loss shows a fault in the last step of an epoch."""
        self.check_weights(self.steps_per_epoch - 1)

    def check_weights(self, step: int) -> None:
        """Raises an InputError if weights or optimizer state are not finite after a step, counted from 0."""
        for variable in (*self.classifier.variables, *self.model.optimizer.variables):
            if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable))):
                self._stop(step, f"weights that are not finite, e.g. {variable.name}")

    def _stop(self, step: int, found: str) -> None:
        """Writes the clips of a step to `path` and ends the run."""
        global_step = self._epoch * self.steps_per_epoch + step + 1
        samples = self.find_samples(self._epoch, step)
        report = {
            "found": found,
            "global_step": global_step,
            "epoch": self._epoch + 1,
            "step_in_epoch": step + 1,
            "clips": [{"path": sample.name, "labels": sample.labels} for sample in samples],
        }
        with replacing(self.path) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        named = "".join(f"\n  {sample.name}" for sample in samples[:_NUM_NAMED])
        raise InputError(
            f"global step {global_step} (epoch {self._epoch + 1}, step {step + 1} of {self.steps_per_epoch}) gave "
            f"{found}; nothing of it is saved, earlier states are. If its clips look well, the step before may have "
            "spoilt the weights: start a new run with a lower optimizer.learning_rate, with optimizer.clip_norm=1 or "
            f"with runtime.precision=float32. All {len(samples)} are in {self.path}; the first are:{named}"
        )
