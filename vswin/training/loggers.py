"""The logs of a run beside the terminal, chosen with `logger.*`: `history.csv`, TensorBoard and wandb."""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.hparams import api as hparams

from vswin.atomic import replacing
from vswin.config.load import flatten
from vswin.config.schema import MONITORS, ClipConfig, TrainConfig
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader
from vswin.data.samples import name_labels
from vswin.data.views import load_protocol_views
from vswin.errors import DecodeError
from vswin.evaluation.loggers import Example, choose_samples, describe, make_film, reduce_frame
from vswin.models.video_swin import VideoSwin
from vswin.runs.figures import format_value, is_setting
from vswin.runtime import logger
from vswin.weights.checkpoint import read_metadata
from vswin.weights.files import BEST_AVERAGE, best_weights, save_checkpoint
from vswin.weights.names import official_tensors

_ARTIFACT_METADATA = ("epoch", "val_top1", "val_map", "monitor", "model", "dataset", "num_classes")


@contextmanager
def open_loggers(
    config: TrainConfig,
    folder: Path,
    first_epoch: int,
    best: float | None = None,
    is_chief: bool = True,
    predict_samples: Callable[[], Sequence[Example]] = tuple,
) -> Iterator[list[keras.callbacks.Callback]]:
    """Opens the logs of a run, yields a callback for each, and closes them however training ends.

    `first_epoch` is the first epoch of this session, counted from 0; `best` is the best monitored figure before it, if
    any. `predict_samples` returns validation videos with their predictions, for the end of the run. Only the chief
    writes logs.
    """
    with ExitStack() as stack:
        loggers: list[keras.callbacks.Callback] = []
        earlier: list[dict[str, str | float]] = []
        if config.logger.csv and is_chief:
            history = HistoryFile(folder / "history.csv", first_epoch)
            earlier = list(history.rows)
            loggers.append(history)
        if config.logger.tensorboard and is_chief:
            loggers.append(TensorBoardLog(folder / "tensorboard", config, first_epoch, best))
        if config.logger.wandb and is_chief:
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

    The tab HPARAMS shows the last value of each figure beside the settings. So `val/best_top1`, or the figure of
    `monitor` instead of top-1, is logged, too: the best so far, of the weights or their average. Event files go to
    `folder`; for the rest see `open_loggers`.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int, best: float | None) -> None:
        super().__init__()
        self.folder = folder
        self.config = config
        self.first_epoch = first_epoch
        self.best = best

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
        name = self.config.monitor.removeprefix("val_")
        values = [self.best, figures.get(f"val/{name}"), figures.get(f"val/ema_{name}")]
        if known := [value for value in values if value is not None]:
            self.best = figures[f"val/best_{name}"] = MONITORS[self.config.monitor].better(known)
        with self._writer.as_default(step=epoch + 1):
            for key, value in figures.items():
                tf.summary.scalar(key, value)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Marks the run as complete and closes the event file."""
        self._settings.on_train_end()
        self._writer.close()


class WandbLog(keras.callbacks.Callback):
    """Logs `train/...` and `val/...` to a started wandb run, with the epoch counted from 1 as the step.

    Errors of wandb end no training.
    """

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run
        self.epoch = 0
        self.logs: Mapping[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Logs the epoch."""
        self.epoch, self.logs = epoch + 1, dict(logs)
        try:
            self.run.log({"epoch": epoch + 1, **standard_keys(logs)}, step=epoch + 1)
        except Exception as error:  # e.g. wandb's process has ended
            logger.info(f"wandb: epoch {epoch + 1} was not taken ({error}); training goes on")

    def log_weights(self, folder: Path) -> None:
        """Logs the best and the last weights of a complete run as versions `best` and `last` of an artifact.

        The average of the weights, if there is one, becomes a separate artifact.
        """
        best, average = best_weights(folder), best_weights(folder, BEST_AVERAGE)
        if not best.is_file():
            return
        metadata = read_metadata(best)
        is_last = metadata["epoch"] == self.epoch
        self._log_file(best, metadata, "model", ["best", "last"] if is_last else ["best"])
        if not is_last:
            last = folder / "wandb" / "last.safetensors"
            metadata = {key: value for key, value in metadata.items() if key != "vswin_version"}
            chosen_by = ("val_top1", "val_map", metadata.get("monitor", "val_top1"))
            metadata |= {"epoch": self.epoch} | {key: float(self.logs[key]) for key in chosen_by if key in self.logs}
            if thresholds := self.model.thresholds.get(""):
                metadata["thresholds"] = thresholds
            save_checkpoint(last, official_tensors(self.model.model), metadata)
            self._log_file(last, metadata, "model", ["last"])
        if average.is_file():
            self._log_file(average, read_metadata(average), "ema", ["best"])

    def _log_file(self, path: Path, metadata: Mapping[str, Any], name: str, aliases: list[str]) -> None:
        import wandb

        shown = {key: metadata[key] for key in _ARTIFACT_METADATA if key in metadata}
        artifact = wandb.Artifact(f"run-{self.run.id}-{name}", type="model", metadata=shown)
        # The file no longer changes, so wandb need not copy hundreds of megabytes.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=aliases)


@contextmanager
def open_wandb(
    config: TrainConfig,
    folder: Path,
    predict_samples: Callable[[], Sequence[Example]] = tuple,
    earlier: Sequence[Mapping[str, str | float]] = (),
) -> Iterator[WandbLog]:
    """Starts or resumes the wandb run of a training run, and finishes it however training ends.

    A complete run logs some predictions, and its best and last weights as an artifact. `earlier` are the rows of
    `history.csv` from before this session. Raises an InputError if wandb cannot start.
    """
    # Importing wandb takes seconds.
    from vswin.runs.wandb_run import wandb_run

    with wandb_run(folder, config.logger.wandb_project, dataclasses.asdict(config), "logger=wandb") as run:
        log = WandbLog(run)
        # A kill loses what an offline run had not written yet: 15 seconds with wandb 0.31, up to 32 KB before.
        for row in earlier if run.offline else ():
            figures = {key: float(value) for key, value in row.items() if key != "epoch" and value != ""}
            log.on_epoch_end(int(row["epoch"]), figures)
        log.epoch = 0
        yield log
        if log.epoch == 0 or run.disabled:
            return
        try:
            if samples := predict_samples():
                run.log({"val/samples": [make_film(sample) for sample in samples]}, step=log.epoch)
        except Exception as error:
            logger.info(f"wandb: the sample predictions were not taken ({error})")
        try:
            if config.logger.wandb_weights:
                log.log_weights(folder)
        except Exception as error:
            logger.info(f"wandb: the weights were not taken ({error}); they are in {folder / 'checkpoints'}")


def predict_clips(
    model: VideoSwin,
    catalog: Catalog,
    clip: ClipConfig,
    frames: FrameLoader,
    activate: Callable[[tf.Tensor], tf.Tensor] = tf.nn.softmax,
) -> list[Example]:
    """Predicts the same few validation videos each time, from the clips that validation uses.

    It works on one device, clip by clip, so it needs no other worker and less memory than a step. Videos that cannot be
    decoded are left out; `clip.num_clips` and `clip.num_crops` are ignored. `activate` turns logits to probabilities.
    """
    one_view, samples = dataclasses.replace(clip, num_clips=1, num_crops=1), []
    for number in choose_samples(len(catalog.val)):
        video = catalog.val[number]
        try:
            views = load_protocol_views(video.path, one_view, frames, video.part)  # [1, T, H, W, 3]
        except DecodeError:
            continue
        (probabilities,) = activate(model(views, training=False)).numpy()
        predicted, names = int(probabilities.argmax()), catalog.class_names
        caption = describe(name_labels(video.labels, names), names[predicted], probabilities[predicted])
        samples.append(Example(caption, np.stack([reduce_frame(frame) for frame in views[0]])))
    return samples
