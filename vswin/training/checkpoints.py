"""What a run keeps of its training: the last states, to resume from, and the best weights, to use."""

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.atomic import remove_partial, sync_file, sync_folder
from vswin.errors import InputError
from vswin.runtime import logger
from vswin.training.trainer import Trainer
from vswin.weights.checkpoint import read_metadata
from vswin.weights.formats.hdf5_file import save_checkpoint
from vswin.weights.names import official_tensors

_NUM_KEPT = 2


class Checkpoints(keras.callbacks.Callback):
    """Saves a state (model, optimizer, place in the run) after each epoch, and the best weights as `best.h5`.

    The best epoch is the one with the highest `val_top1`; of equals, the first. `best.h5` alone knows it: so
    nothing contradicts it if a run is killed after it was written and before the state was.

    States are `checkpoints/last/ckpt-<global step>.*`. A state counts once it is on the disk; the one before is
    kept until the next, so that neither a failed write nor a damaged file costs more than the work in between.

    Args:
        folder: the run's folder.
        trainer: the compiled trainer, its optimizer with variables built.
        steps_per_epoch: training steps in an epoch.
        metadata: written beside the best weights: size, classes, how they came about.
        patience: epochs without a better one after which the run ends; None: never.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        steps_per_epoch: int,
        metadata: dict[str, Any],
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self.best_path = folder / "checkpoints" / "best.h5"
        self.state_folder = folder / "checkpoints" / "last"
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.metadata = metadata
        self.patience = patience
        self.epochs_saved = 0
        self.steps_saved = 0
        self.best_epoch = 0
        self.best_top1 = -1.0
        self._epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._steps_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._state = tf.train.Checkpoint(
            model=trainer.model,
            optimizer=trainer.optimizer,
            metrics=trainer.metrics,
            epochs_done=self._epochs_done,
            steps_done=self._steps_done,
        )
        self._restored_metrics: list[tf.Tensor] = []

    def restore(self) -> int:
        """Restores the newest state that can be read, if there is one.

        Returns:
            Complete epochs behind it; `steps_saved` is the number of steps of the next one behind it.

        Raises:
            InputError: if there are states and none can be read, or the best weights are gone.
        """
        self._remove_unfinished()
        states = self._states()
        while states and not self._can_restore(states[-1]):
            states.pop()
        if not states and self._states():
            raise InputError(
                f"every state in {self.state_folder} is damaged; copy them again, or start a new run in another "
                f"output_dir with init_from={self.best_path.parents[1]}"
            )
        self.epochs_saved, self.steps_saved = int(self._epochs_done.numpy()), int(self._steps_done.numpy())
        if self.steps_saved:
            self._restored_metrics = [tf.identity(variable) for variable in self._metric_variables()]
        if self.epochs_saved:
            self._read_best()
        return self.epochs_saved

    @property
    def place(self) -> str:
        """Names the place in the run that is saved, e.g. "epoch 2" or "epoch 3, step 5 of 12"; empty if none is."""
        if self.steps_saved:
            return f"epoch {self.epochs_saved + 1}, step {self.steps_saved} of {self.steps_per_epoch}"
        return f"epoch {self.epochs_saved}" if self.epochs_saved else ""

    @property
    def is_stalled(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return self.patience is not None and self.epochs_saved - self.best_epoch >= self.patience

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Puts back the metrics of an epoch that goes on in its middle; Keras has just reset them."""
        if self._restored_metrics:
            for variable, value in zip(self._metric_variables(), self._restored_metrics, strict=True):
                variable.assign(value)
            self._restored_metrics = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Saves the best weights if these are the best so far, then the state; stops the run if it has stalled."""
        if logs["val_top1"] > self.best_top1:
            metadata = self.metadata | {"epoch": epoch + 1, "val_top1": float(logs["val_top1"])}
            save_checkpoint(self.best_path, official_tensors(self.trainer.model), metadata)
            self.best_epoch, self.best_top1 = epoch + 1, float(logs["val_top1"])
        self.save_state(epoch + 1, 0)
        if self.is_stalled and epoch + 1 < self.params["epochs"]:
            self.model.stop_training = True
            logger.info(f"stopped early: no better val top-1 for patience={self.patience} epochs")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Says which epoch was the best."""
        self.say_best()

    def say_best(self) -> None:
        """Logs which epoch was the best and where its weights are."""
        logger.info(
            f"best epoch {self.best_epoch}: val top-1 {100 * self.best_top1:.1f} %, weights in {self.best_path}"
        )

    def save_state(self, epochs_done: int, steps_done: int) -> None:
        """Writes a state; only once it is on the disk does it count as saved, and older ones go.

        Args:
            epochs_done: complete epochs.
            steps_done: steps of the next epoch, less than a whole one.
        """
        self._epochs_done.assign(epochs_done)
        self._steps_done.assign(steps_done)
        number = epochs_done * self.steps_per_epoch + steps_done
        self.state_folder.mkdir(parents=True, exist_ok=True)
        try:
            self._state.write(str(self.state_folder / f"ckpt-{number}"))
            for path in self.state_folder.glob(f"ckpt-{number}.*"):
                sync_file(path)
            sync_folder(self.state_folder)
        except BaseException:
            # What is left of it would only fill the disk.
            self._remove(number)
            raise
        self.epochs_saved, self.steps_saved = epochs_done, steps_done
        for old in self._states()[:-_NUM_KEPT]:
            self._remove(old)

    def _read_best(self) -> None:
        """Finds out which epoch was the best so far.

        Raises:
            InputError: if the file is gone or damaged.
        """
        if not self.best_path.exists():
            raise InputError(
                f"{self.best_path} is gone, the best weights of {self.epochs_saved} epochs; put it back, or start a "
                "new run in another output_dir"
            )
        best = read_metadata(self.best_path)
        self.best_epoch, self.best_top1 = best["epoch"], best["val_top1"]

    def _can_restore(self, number: int) -> bool:
        """Restores a state, unless it is damaged.

        Raises:
            InputError: if it is whole and of another network.
        """
        path = self.state_folder / f"ckpt-{number}"
        try:
            self._state.read(str(path)).assert_consumed()
        except (tf.errors.OpError, IndexError) as error:  # IndexError: TensorFlow's words for a file that is too short
            logger.info(f"{path}.* is damaged ({error}); going on from the state before it")
            return False
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"{path}.* does not fit this network: another version of vswin wrote it; go on with that version, or "
                f"start a new run in another output_dir with init_from={self.best_path.parents[1]}"
            ) from error
        return True

    def _metric_variables(self) -> list[tf.Variable]:
        return [variable for metric in self.trainer.metrics for variable in metric.variables]

    def _states(self) -> list[int]:
        """Lists the numbers of the states on the disk, the newest last; the index file is written last."""
        return sorted(int(path.stem.removeprefix("ckpt-")) for path in self.state_folder.glob("ckpt-*.index"))

    def _remove(self, number: int) -> None:
        """Removes a state, first the file without which the others do not count."""
        (self.state_folder / f"ckpt-{number}.index").unlink(missing_ok=True)
        for path in self.state_folder.glob(f"ckpt-{number}[._]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _remove_unfinished(self) -> None:
        """Removes what a process that was killed while writing has left behind."""
        remove_partial(self.best_path)
        whole = {f"ckpt-{number}" for number in self._states()}
        for path in self.state_folder.glob("ckpt-*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.stem not in whole:
                path.unlink()
