"""What a run keeps of its training: the last states, to resume from, and the best weights, to use."""

from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.atomic import remove_partial
from vswin.errors import InputError
from vswin.runtime import logger
from vswin.training.best import BestWeights
from vswin.training.run_folder import STATES
from vswin.training.state_files import StateFiles
from vswin.training.trainer import Trainer
from vswin.weights.files import BEST_AVERAGE, best_weights
from vswin.wording import count_of
from vswin.workers import Workers


class Checkpoints(keras.callbacks.Callback):
    """Saves a state (model, optimizer, place in the run) after each epoch, and the best weights as `best.safetensors`.

    Where the trainer averages its weights, the average is part of the state; the best is `best_ema.safetensors`.

    States are `checkpoints/last/ckpt-<global step>.*`, see `StateFiles`. Use it as a context around training.

    Args:
        folder: the run's folder.
        trainer: the compiled trainer, its optimizer with variables built.
        steps_per_epoch: training steps in an epoch.
        metadata: written beside the best weights: size, classes, how they came about.
        workers: the processes of the run. All call every method, the chief writes.
        patience: epochs without a better one after which the run ends; None: never.
        keep_states: states to keep.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        steps_per_epoch: int,
        metadata: dict[str, Any],
        workers: Workers,
        patience: int | None = None,
        keep_states: int = 2,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.workers = workers
        self.best = BestWeights(best_weights(folder), trainer.model, "val_top1", "weights")
        self._bests, averages = [self.best], {}
        if trainer.average is not None:
            averages["average"] = trainer.average.model
            self._bests.append(
                BestWeights(
                    best_weights(folder, BEST_AVERAGE), trainer.average.model, "val_ema_top1", "weights (averaged)"
                )
            )
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.metadata = metadata
        self.patience = patience
        self.epochs_saved = 0
        self.steps_saved = 0
        self._epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._steps_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        state = tf.train.Checkpoint(
            model=trainer.model,
            optimizer=trainer.optimizer,
            metrics=trainer.metrics,
            epochs_done=self._epochs_done,
            steps_done=self._steps_done,
            **averages,
        )
        self.files = StateFiles(folder / STATES, state, keep_states, workers.is_chief)
        self._restored_metrics: list[tf.Tensor] = []

    def __enter__(self) -> "Checkpoints":
        """Begins training."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for a state that is being written, however training ends; what ended it is what the user hears of."""
        try:
            self.finish_saving()
        except (OSError, tf.errors.OpError):
            if error is None:
                raise

    def restore(self) -> int:
        """Restores the newest state that can be read, if there is one.

        Returns:
            Complete epochs behind it; `steps_saved` is the number of steps of the next one behind it.

        Raises:
            InputError: if there are states and none can be read, an epoch had other steps, or the best weights are
                gone.
        """
        if self.workers.is_chief:
            self.files.remove_unfinished()
            for best in self._bests:
                remove_partial(best.path)
        self.workers.wait()
        way_out = f"start a new run in another output_dir with init_from={self.folder}"
        number = self.files.read_newest(way_out)
        self.epochs_saved, self.steps_saved = int(self._epochs_done.numpy()), int(self._steps_done.numpy())
        same_place = self.epochs_saved * self.steps_per_epoch + self.steps_saved
        if number not in (None, same_place) or self.steps_saved >= self.steps_per_epoch:
            raise InputError(
                f"an epoch of the run in {self.folder} did not have {count_of(self.steps_per_epoch, 'step')} as it has "
                f"now, so its training videos were others; bring them back, or {way_out}"
            )
        self.workers.check_same(
            same_place,
            f"the workers do not see the same states in {self.files.folder}: output_dir must be on a file system that "
            "all of them share",
        )
        if self.steps_saved:
            self._restored_metrics = [tf.identity(variable) for variable in self._metric_variables()]
        if self.epochs_saved:
            for best in self._bests:
                best.read(self.epochs_saved)
        return self.epochs_saved

    @property
    def place(self) -> str:
        """Names the place in the run that is saved, e.g. "epoch 2" or "epoch 3, step 5 of 12"; empty if none is."""
        if self.steps_saved:
            return f"epoch {self.epochs_saved + 1}, step {self.steps_saved} of {self.steps_per_epoch}"
        return f"epoch {self.epochs_saved}" if self.epochs_saved else ""

    @property
    def best_top1(self) -> float:
        """Gives the highest top-1 in validation so far, of the weights or of their average; -1 before the first."""
        return max(best.top1 for best in self._bests)

    def is_stalled(self, epochs_done: int) -> bool:
        """Tells whether `patience` epochs have passed without a better one, of the weights or of their average."""
        newest = max(best.epoch for best in self._bests)
        return self.patience is not None and epochs_done - newest >= self.patience

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Puts back the metrics of an epoch that goes on in its middle; Keras has just reset them."""
        if self._restored_metrics:
            for variable, value in zip(self._metric_variables(), self._restored_metrics, strict=True):
                variable.assign(value)
            self._restored_metrics = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Saves the best weights if these are the best so far, then the state; stops the run if it has stalled."""
        for best in self._bests:
            best.offer(epoch + 1, logs, self.metadata, self.workers.is_chief)
        self.save_state(epoch + 1, 0, wait=False)
        if self.is_stalled(epoch + 1) and epoch + 1 < self.params["epochs"]:
            assert self.patience is not None
            self.model.stop_training = True
            logger.info(f"stopped early: no better val top-1 for patience={count_of(self.patience, 'epoch')}")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Waits for the last state, and says which epoch was the best."""
        self.finish_saving()
        self.say_best()

    def say_best(self) -> None:
        """Logs which epoch was the best and where its weights are."""
        for best in self._bests:
            logger.info(str(best))

    def save_state(self, epochs_done: int, steps_done: int, wait: bool = True) -> None:
        """Saves a state; once it is on the disk it counts as saved.

        Args:
            epochs_done: complete epochs.
            steps_done: steps of the next epoch, less than a whole one.
            wait: whether to return only then; else training goes on while it is written.
        """
        number = epochs_done * self.steps_per_epoch + steps_done
        if number != self.files.unfinished:  # it may be due by the step and by a signal at once
            self.finish_saving()
            self._epochs_done.assign(epochs_done)
            self._steps_done.assign(steps_done)
            self.files.write(number)
        if wait:
            self.finish_saving()

    def finish_written(self) -> None:
        """Counts a state that has been written meanwhile, without waiting."""
        if self.files.is_written():
            self.finish_saving()

    def finish_saving(self) -> None:
        """Waits for a state that is being written."""
        if self.files.unfinished is not None:
            number = self.files.unfinished
            self.files.finish()
            self.epochs_saved, self.steps_saved = divmod(number, self.steps_per_epoch)

    def _metric_variables(self) -> list[tf.Variable]:
        return [variable for metric in self.trainer.metrics for variable in metric.variables]
