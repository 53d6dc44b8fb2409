"""What a person reads while a run trains: a bar on a terminal, and a line per epoch everywhere."""

import time
from pathlib import Path

import tf_keras as keras

from vswin.data.bad_videos import BadVideos
from vswin.errors import InputError
from vswin.runtime import console, format_seconds, logger
from vswin.tables import make_progress_bar

SECONDS_BETWEEN_LINES = 60.0


class _Pace:
    """Times the steps of a session, of which the first waits for the compiler and says nothing about the others."""

    def __init__(self) -> None:
        self.count = 0
        self._first = self._rest = 0.0

    def start(self, now: float) -> None:
        self._last = now

    def step(self, now: float) -> None:
        if self.count == 0:
            self._first = now - self._last
        else:
            self._rest += now - self._last
        self.count += 1
        self._last = now

    @property
    def seconds(self) -> float:
        """Gives the time of one step."""
        return self._rest / (self.count - 1) if self.count > 1 else self._first

    @property
    def lost(self) -> float:
        """Gives what the first step took longer."""
        return self._first - self.seconds


class EpochReport(keras.callbacks.Callback):
    """Prints progress, and adds learning rates, `clips_per_sec` and a loss scale, if any, to the logs of each epoch.

    `learning_rate` is the base rate of the epoch's last step, `lr_<group>` that of each parameter group; of layers
    with different rates the topmost one's.

    Stands first among the callbacks, so that the others find the additions. As a context around training it takes
    its bar off the terminal however training ends.

    Args:
        steps_per_epoch: training steps in an epoch.
        num_clips: training clips in an epoch.
        epochs: epochs of the whole run.
    """

    def __init__(self, steps_per_epoch: int, num_clips: int, epochs: int) -> None:
        super().__init__()
        self.steps_per_epoch = steps_per_epoch
        self.num_clips = num_clips
        self.epochs = epochs
        self._steps, self._val_batches = _Pace(), _Pace()
        self._bar = make_progress_bar(console, "steps")

    def __enter__(self) -> "EpochReport":
        """Changes nothing."""
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the bar off, which otherwise would leave the terminal without a cursor."""
        self._bar.stop()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts the clock of the run."""
        self._run_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the bar and the clock of the epoch."""
        self._title = f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"
        self._started = self._last_line = time.perf_counter()
        self._steps.start(self._started)
        self._train_seconds = 0.0
        self._steps_seen = 0
        self._bar = make_progress_bar(console, "steps")
        self._task = self._bar.add_task(self._title, total=self.steps_per_epoch, note="")
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Moves the bar; without a terminal prints a line every minute."""
        now = time.perf_counter()
        self._train_seconds = now - self._started
        self._steps_seen += 1
        self._steps.step(now)
        values = f"loss {logs['loss']:.3f}  top-1 {100 * logs['top1']:.1f} %"
        self._bar.update(self._task, completed=batch + 1, note=values)
        if not console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = self._steps.seconds * (self.steps_per_epoch - batch - 1)
            logger.info(
                f"{self._title}  step {batch + 1}/{self.steps_per_epoch}  {values}  "
                f"{format_seconds(left)} left in this epoch"
            )

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Says that the clips of the validation split are next."""
        self._bar.update(self._task, description=f"{self._title}  validation")
        self._val_batches.start(time.perf_counter())

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Times the batch."""
        self._val_batches.step(time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Prints the line of the epoch."""
        self._bar.stop()
        logs["learning_rate"] = float(keras.backend.get_value(self.model.optimizer.learning_rate))
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if hasattr(optimizer, "last_rates"):
            logs.update({f"lr_{name.replace(' ', '_')}": rate for name, rate in optimizer.last_rates().items()})
        scale = ""
        if isinstance(self.model.optimizer, keras.mixed_precision.LossScaleOptimizer):
            logs["loss_scale"] = float(keras.backend.get_value(self.model.optimizer.loss_scale))
            scale = f"loss scale {logs['loss_scale']:g}  "
        average = f"averaged top-1 {_percent(logs['val_ema_top1'])}   " if "val_ema_top1" in logs else ""
        # A resumed epoch may have begun in its middle.
        num_clips = self.num_clips * self._steps_seen / self.steps_per_epoch
        logs["clips_per_sec"] = num_clips / max(self._train_seconds, 1e-9)
        elapsed = time.perf_counter() - self._run_started - self._steps.lost - self._val_batches.lost
        left = elapsed * self.steps_per_epoch / self._steps.count * (self.epochs - epoch - 1)
        logger.info(
            f"{self._title}  train loss {logs['loss']:.3f}  top-1 {_percent(logs['top1'])}  "
            f"top-5 {_percent(logs['top5'])}   val loss {logs['val_loss']:.3f}  "
            f"top-1 {_percent(logs['val_top1'])}  top-5 {_percent(logs['val_top5'])}   {average}"
            f"{scale}{logs['clips_per_sec']:.1f} clips/s  {format_seconds(left)} left"
        )

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Says how long it took."""
        logger.info(f"trained for {format_seconds(time.perf_counter() - self._run_started)}")


class BadVideoGuard(keras.callbacks.Callback):
    """Lists the videos that could not be decoded, and stops a run that has too many of them.

    Args:
        bad: collects the videos while they are read.
        path: the list, written when there is something to list; those of earlier sessions stay in it.
        num_videos: videos of the run, both splits.
        max_bad_share: largest share of them that may be bad.
    """

    def __init__(self, bad: BadVideos, path: Path, num_videos: int, max_bad_share: float) -> None:
        super().__init__()
        self.bad = bad
        self.path = path
        self.num_videos = num_videos
        self.max_bad_share = max_bad_share
        self._listed: list[tuple[str, str, int]] = []

    def close(self) -> None:
        """Writes the list if there is more to list."""
        rows = self.bad.rows()
        if rows != self._listed:
            self._listed = rows
            self.bad.write(self.path)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Writes the list, and says how long it is if it has grown.

        Raises:
            InputError: if too large a share of the videos is bad.
        """
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
        logger.info(f"{summary}; in training they weigh nothing, in validation they count as wrong")


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
