"""Figures and configuration of a run for TensorBoard."""

import dataclasses
import json
from datetime import datetime, timezone
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from vswin.schema import TrainConfig
from vswin.training.standard_keys import standard_keys


class TensorBoardLog(keras.callbacks.Callback):
    """Logs what wandb is given: `train/...` and `val/...`, with the epoch counted from 1 as the step.

    Args:
        folder: where the event files go.
        config: shown as text.
        first_epoch: epoch that this session starts with, counted from 0.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        super().__init__()
        self.folder = folder
        self.config = config
        self.first_epoch = first_epoch

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Opens the event file and writes the configuration."""
        text = json.dumps(dataclasses.asdict(self.config), indent=2)
        self._writer = tf.summary.create_file_writer(str(self.folder))
        self._say_start()
        with self._writer.as_default(step=0):
            # Indented by four, Markdown keeps it as it is.
            tf.summary.text("config", "\n".join(f"    {line}" for line in text.splitlines()))
        self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Logs the epoch, and has it on the disk."""
        with self._writer.as_default(step=epoch + 1):
            for key, value in standard_keys(logs).items():
                tf.summary.scalar(key, value)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the event file."""
        self._writer.close()

    def _say_start(self) -> None:
        """Has TensorBoard drop epochs that a killed session had logged but not saved: they come again."""
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        now = datetime.now(timezone.utc)
        event = tf.compat.v1.Event(wall_time=now.timestamp(), step=self.first_epoch + 1, session_log=start)
        # Other writers have `purge_step` for it; of TensorFlow's, only the operation below takes events.
        tf.raw_ops.ImportEvent(writer=self._writer._resource, event=event.SerializeToString())
