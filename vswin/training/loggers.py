"""The logs of a run beside the terminal, chosen with `logger.*`: `history.csv`, TensorBoard and wandb (`wandb_log`)."""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.hparams import api as hparams

from vswin.atomic import replacing
from vswin.config.load import flatten
from vswin.config.schema import ClipConfig, TrainConfig
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader
from vswin.data.views import load_protocol_views
from vswin.errors import DecodeError
from vswin.evaluation.loggers import Sample, choose_samples, describe, reduce_frame
from vswin.models.video_swin import VideoSwin
from vswin.runs.figures import format_value, is_setting


@contextmanager
def open_loggers(
    config: TrainConfig,
    folder: Path,
    first_epoch: int,
    best_top1: float = -1.0,
    is_chief: bool = True,
    predict_samples: Callable[[], Sequence[Sample]] = tuple,
) -> Iterator[list[keras.callbacks.Callback]]:
    """Opens the logs of a run, yields a callback for each, and closes them however training ends.

    `first_epoch` is the first epoch of this session, counted from 0; `best_top1` is the highest validation top-1 before
    it, below 0 for none. `predict_samples` returns validation videos with their predictions, for the end of the run.
    Only the chief writes logs.
    """
    with ExitStack() as stack:
        loggers: list[keras.callbacks.Callback] = []
        earlier: list[dict[str, str | float]] = []
        if config.logger.csv and is_chief:
            history = HistoryFile(folder / "history.csv", first_epoch)
            earlier = list(history.rows)
            loggers.append(history)
        if config.logger.tensorboard and is_chief:
            loggers.append(TensorBoardLog(folder / "tensorboard", config, first_epoch, best_top1))
        if config.logger.wandb and is_chief:
            # Importing wandb takes seconds.
            from vswin.training.wandb_log import open_wandb

            loggers.append(stack.enter_context(open_wandb(config, folder, predict_samples, earlier)))
        yield loggers


def standard_keys(logs: Mapping[str, float]) -> dict[str, float]:
    """Renames the figures of an epoch to the keys of wandb and TensorBoard: `train/loss`, `val/top1`, and so on."""
    return {
        f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"train/{key}": float(value)
        for key, value in logs.items()
    }


class HistoryFile(keras.callbacks.Callback):
    """Writes the logs of each epoch as a row of `history.csv`.

    Every epoch rewrites the whole file, so that a full disk cannot cut off its last row. Rows from `first_epoch` on,
    counted from 0, are dropped: a killed session logged but did not save them, and this session repeats them.
    """

    def __init__(self, path: Path, first_epoch: int) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, str | float]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows.extend(row for row in csv.DictReader(file) if int(row["epoch"]) < first_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds the row of the epoch."""
        self.rows.append({"epoch": epoch, **logs})
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.rows[-1], restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)


class TensorBoardLog(keras.callbacks.Callback):
    """Logs `train/...` and `val/...`, with the epoch counted from 1 as the step, and the settings of the run.

    The tab HPARAMS shows the last value of each figure beside the settings. So `val/best_top1` is logged, too: the
    highest top-1 so far, of the weights or their average. Event files go to `folder`; for the rest see `open_loggers`.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int, best_top1: float) -> None:
        super().__init__()
        self.folder = folder
        self.config = config
        self.first_epoch = first_epoch
        self.best_top1 = best_top1

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Opens the event file and writes the configuration."""
        self._writer = tf.summary.create_file_writer(str(self.folder))
        # After this event TensorBoard drops epochs that a killed session logged but did not save; they are repeated.
        # Other writers have `purge_step` for this; TensorFlow's writer takes events only through this operation.
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        now = datetime.now(timezone.utc).timestamp()
        event = tf.compat.v1.Event(wall_time=now, step=self.first_epoch + 1, session_log=start)
        tf.raw_ops.ImportEvent(writer=self._writer._resource, event=event.SerializeToString())
        config = dataclasses.asdict(self.config)
        with self._writer.as_default(step=0):
            # Text indented by four spaces is a code block in Markdown.
            text = "\n".join(f"    {line}" for line in json.dumps(config, indent=2).splitlines())
            tf.summary.text("config", text)
        settings = {
            key: value if isinstance(value, bool | int | float | str) else format_value(value)
            for key, value in flatten(config)
            if is_setting(key) and value is not None
        }
        # The trial id gives each run its own row; otherwise runs with the same settings would share one.
        self._settings = hparams.KerasCallback(self._writer, settings, trial_id=str(self.folder.parent))
        self._settings.on_train_begin()
        self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Logs the epoch and flushes it to the disk."""
        figures = standard_keys(logs)
        self.best_top1 = max(self.best_top1, *(figures.get(f"val/{name}", -1.0) for name in ("top1", "ema_top1")))
        if self.best_top1 >= 0:
            figures["val/best_top1"] = self.best_top1
        with self._writer.as_default(step=epoch + 1):
            for key, value in figures.items():
                tf.summary.scalar(key, value)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Marks the run as complete and closes the event file."""
        self._settings.on_train_end()
        self._writer.close()


def predict_clips(model: VideoSwin, catalog: Catalog, clip: ClipConfig, frames: FrameLoader) -> list[Sample]:
    """Predicts the same few validation videos each time, from the clips that validation uses.

    It works on one device, clip by clip, so it needs no other worker and less memory than a step. Videos that cannot be
    decoded are left out; `clip.num_clips` and `clip.num_crops` are ignored.
    """
    one_view, samples = dataclasses.replace(clip, num_clips=1, num_crops=1), []
    for number in choose_samples(len(catalog.val)):
        video = catalog.val[number]
        try:
            views = load_protocol_views(video.path, one_view, frames)  # [1, T, H, W, 3]
        except DecodeError:
            continue
        (probabilities,) = tf.nn.softmax(model(views, training=False)).numpy()
        predicted = int(probabilities.argmax())
        names = catalog.class_names
        caption = describe(names[video.label], names[predicted], probabilities[predicted])
        samples.append(Sample(caption, np.stack([reduce_frame(frame) for frame in views[0]])))
    return samples
