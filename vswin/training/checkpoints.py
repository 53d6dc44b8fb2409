"""What a run keeps of its training: the last state, to resume from, and the best weights, to use."""

from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.runtime import logger
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors


class Checkpoints(keras.callbacks.Callback):
    """Saves `checkpoints/last` (model, optimizer, epoch) after each epoch, and the weights as `best.h5`.

    The best epoch is the one with the highest `val_top1`; of equals, the first.

    Args:
        folder: the run's folder.
        model: the classifier.
        optimizer: its optimizer, with its variables built.
        metadata: written beside the best weights: size, classes, how they came about.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        metadata: dict[str, Any],
    ) -> None:
        super().__init__()
        self.best_path = folder / "checkpoints" / "best.h5"
        self.classifier = model
        self.optimizer = optimizer
        self.metadata = metadata
        self.epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.best_epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.best_top1 = tf.Variable(-1.0, trainable=False, dtype=tf.float32)
        state = tf.train.Checkpoint(
            model=model,
            optimizer=optimizer,
            epochs_done=self.epochs_done,
            best_epoch=self.best_epoch,
            best_top1=self.best_top1,
        )
        self.manager = tf.train.CheckpointManager(state, str(folder / "checkpoints" / "last"), max_to_keep=2)

    def restore(self) -> int:
        """Restores the last saved state, if there is one, and returns how many epochs it has behind it."""
        latest = self.manager.latest_checkpoint
        if latest is not None:
            self.manager.checkpoint.restore(latest).assert_consumed()
        return int(self.epochs_done.numpy())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Saves the best weights if these are the best so far, then the state."""
        self.epochs_done.assign(epoch + 1)
        if logs["val_top1"] > self.best_top1.numpy():
            self.best_top1.assign(logs["val_top1"])
            self.best_epoch.assign(epoch + 1)
            metadata = self.metadata | {"epoch": epoch + 1, "val_top1": float(logs["val_top1"])}
            save_checkpoint(self.best_path, official_tensors(self.classifier), metadata)
        self.manager.save(checkpoint_number=epoch + 1)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Says which epoch was the best and how to evaluate it."""
        logger.info(
            f"best epoch {int(self.best_epoch.numpy())}: "
            f"val top-1 {100 * float(self.best_top1.numpy()):.1f} %, weights in {self.best_path}"
        )
