"""Figures and settings of a run for TensorBoard."""

import dataclasses
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.hparams import api as hparams

from vswin.config import flatten
from vswin.runs.figures import format_value, is_setting
from vswin.schema import TrainConfig
from vswin.training.standard_keys import standard_keys


class TensorBoardLog(keras.callbacks.Callback):
    """Logs what wandb is given: `train/...` and `val/...`, with the epoch counted from 1 as the step.

    The tab HPARAMS compares the settings of runs with their figures, of which it takes the last: so there is
    `val/best_top1`, the highest so far of the weights or their average.

    Args:
        folder: where the event files go.
        config: the run, shown as text and by its settings.
        first_epoch: epoch that this session starts with, counted from 0.
        best_top1: highest top-1 in validation of the epochs before it; anything below 0 for none.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int, best_top1: float) -> None:
        super().__init__()
        self.folder = folder
        self.config = config
        self.first_epoch = first_epoch
        self.best_top1 = best_top1

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Opens the event file and writes the configuration."""
        config = dataclasses.asdict(self.config)
        text = json.dumps(config, indent=2)
        self._writer = tf.summary.create_file_writer(str(self.folder))
        self._say_start()
        with self._writer.as_default(step=0):
            # Indented by four, Markdown keeps it as it is.
            tf.summary.text("config", "\n".join(f"    {line}" for line in text.splitlines()))
        # A row for each run; without a name, runs of the same settings would share one.
        self._settings = hparams.KerasCallback(self._writer, _settings(config), trial_id=str(self.folder.parent))
        self._settings.on_train_begin()
        self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Logs the epoch, and has it on the disk."""
        figures = standard_keys(logs)
        self.best_top1 = max(self.best_top1, *(figures.get(f"val/{name}", -1.0) for name in ("top1", "ema_top1")))
        if self.best_top1 >= 0:
            figures["val/best_top1"] = self.best_top1
        with self._writer.as_default(step=epoch + 1):
            for key, value in figures.items():
                tf.summary.scalar(key, value)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Says that the run is complete, and closes the event file."""
        self._settings.on_train_end()
        self._writer.close()

    def _say_start(self) -> None:
        """Has TensorBoard drop epochs that a killed session had logged but not saved: they come again."""
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        now = datetime.now(timezone.utc)
        event = tf.compat.v1.Event(wall_time=now.timestamp(), step=self.first_epoch + 1, session_log=start)
        # Other writers have `purge_step` for it; of TensorFlow's, only the operation below takes events.
        tf.raw_ops.ImportEvent(writer=self._writer._resource, event=event.SerializeToString())


def _settings(config: dict[str, Any]) -> dict[str, bool | float | str]:
    """Gives the settings that matter, e.g. `clip.crop`, as the tab takes them; those that are null have no value."""
    return {
        key: value if isinstance(value, bool | int | float | str) else format_value(value)
        for key, value in flatten(config)
        if is_setting(key) and value is not None
    }
