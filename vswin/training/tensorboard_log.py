"""Figures and configuration of a run for TensorBoard."""

import dataclasses
import json
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
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        super().__init__()
        self.folder = folder
        self.config = config

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Opens the event file and writes the configuration."""
        text = json.dumps(dataclasses.asdict(self.config), indent=2)
        self._writer = tf.summary.create_file_writer(str(self.folder))
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
