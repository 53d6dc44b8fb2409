"""What a run saves: its last states, to resume from, and its best weights, to use."""

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.atomic import literal_folder, remove_partial, sync_file, sync_folder
from vswin.cluster import Workers
from vswin.config.schema import MONITORS
from vswin.console import count_of
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.runtime import logger
from vswin.training.run_folder import STATES
from vswin.training.trainer import Trainer
from vswin.weights.checkpoint import read_metadata
from vswin.weights.files import BEST_AVERAGE, best_weights, save_checkpoint
from vswin.weights.names import official_tensors

# TensorFlow logs an error of its background thread before it raises it; once is enough.
logging.getLogger("absl").addFilter(lambda record: "error from the async thread" not in record.getMessage())


class StateFiles:
    """Keeps states as `<folder>/ckpt-<global step>.*`; a damaged state moves to `<folder>/damaged/`.

    TensorFlow's manager copies the variables and writes the copies while training continues. Older states are removed
    once the new one is on the disk, so a failed write or a damaged file costs only the work in between. All workers
    write, since writing sums metrics over them; the chief's files are kept.
    """

    def __init__(self, folder: Path, state: tf.train.Checkpoint, num_kept: int = 2, is_chief: bool = True) -> None:
        self.folder = folder
        self.num_kept = num_kept
        # The number of the state that is being written.
        self.unfinished: int | None = None
        self._state = state
        # An asynchronous write creates the save counter, so reading needs it, too.
        assert state.save_counter is not None
        self._is_chief = is_chief
        self._held = ExitStack()
        self._manager: tf.train.CheckpointManager | None = None
        self._waiter = ThreadPoolExecutor(1, "state_files")
        self._waiting: Future[None] | None = None

    def write(self, number: int) -> None:
        """Finishes the previous state, copies the current one, numbered by the global step, and starts to write it."""
        self.finish()
        if self._is_chief:
            # The run's folder is not created here: if it is gone, it was moved.
            self.folder.parent.mkdir(exist_ok=True)
            self.folder.mkdir(exist_ok=True)
        if self._manager is None:
            # When the manager removes old states, it reads its folder as a pattern, in which `[1]` means `1`.
            folder = literal_folder(self.folder) if self._is_chief else tempfile.TemporaryDirectory()
            path = Path(str(self._held.enter_context(folder)))
            # Only the files count: the manager's record of an earlier session is lost if the clock was set back.
            (path / "checkpoint").unlink(missing_ok=True)
            self._manager = tf.train.CheckpointManager(self._state, str(path), self.num_kept)
        # The state counts, and older ones are removed, once it is on the disk.
        options = tf.train.CheckpointOptions(enable_async=True, experimental_write_callbacks=[self._sync])
        self._manager.save(number, options=options)
        self.unfinished, self._waiting = number, self._waiter.submit(self._state.sync)

    def is_written(self) -> bool:
        """Tells whether `finish` would return without waiting."""
        return self._waiting is None or self._waiting.done()

    def finish(self) -> None:
        """Waits until the state that is being written is on the disk.

        Raises:
            OSError, tf.errors.OpError: if it cannot be written; its partial files are removed.
        """
        if self.unfinished is None:
            return
        assert self._waiting is not None
        assert self._manager is not None
        number, self.unfinished = self.unfinished, None
        self._waiting.result()
        directory = self._manager.directory
        if tf.train.latest_checkpoint(directory) != os.path.join(directory, f"ckpt-{number}"):
            if self._is_chief:
                self._remove(number)
            # TensorFlow raises an error of the background write at the next write. If there is no error, the files were
            # removed after the write.
            with tempfile.TemporaryDirectory() as scratch:
                self._state.write(f"{scratch}/state", tf.train.CheckpointOptions(enable_async=True))
                self._state.sync()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder / f"ckpt-{number}"))
        # The manager removes old states of this session only; states of earlier sessions are older.
        for old in self.numbers()[: -self.num_kept] if self._is_chief else ():
            self._remove(old)

    def close(self) -> None:
        """Removes the temporary folders that `write` made."""
        self._held.close()

    def read_newest(self, way_out: str) -> int | None:
        """Reads the newest whole state into the variables and returns its number; the chief sets damaged states aside.

        Raises:
            InputError: if there are states but none can be read, or one is for another network; ends with `way_out`.
        """
        numbers = self.numbers()
        for number in reversed(numbers):
            path = self.folder / f"ckpt-{number}"
            try:
                with literal_folder(self.folder) as folder:
                    self._state.read(str(folder / path.name)).assert_consumed()
            except (tf.errors.OpError, IndexError) as error:  # IndexError: TensorFlow's error for a truncated file
                logger.info(f"{path}.* is damaged ({error}); going on from the state before it")
            except (AssertionError, ValueError) as error:
                raise InputError(
                    f"{path}.* does not fit this network: another version of vswin wrote it; go on with that version, "
                    f"or {way_out}"
                ) from error
            else:
                return number
            if self._is_chief:
                aside = self.folder / "damaged"
                aside.mkdir(exist_ok=True)
                # A state without its index does not count, so the index moves first.
                for file in sorted(self.folder.glob(f"{path.name}.*"), key=lambda file: file.suffix != ".index"):
                    file.replace(aside / file.name)
        if numbers or any(self.folder.glob("damaged/*")):
            raise InputError(f"every state in {self.folder} is damaged; copy them again, or {way_out}")
        return None

    def numbers(self) -> list[int]:
        """Lists the numbers of the states on the disk in ascending order."""
        return sorted(int(path.stem.removeprefix("ckpt-")) for path in self.folder.glob("ckpt-*.index"))

    def remove_unfinished(self) -> None:
        """Removes the partial files of a process that was killed while writing."""
        whole = {f"ckpt-{number}" for number in self.numbers()}
        for path in self.folder.glob("c*"):  # ckpt-* and checkpoint*, the manager's record
            if path.stem not in whole:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _sync(self, prefix: str) -> None:
        if self._is_chief:
            name = Path(prefix).name
            for path in (self.folder / f"{name}.index", *self.folder.glob(f"{name}.data*")):
                sync_file(path)
            sync_folder(self.folder)

    def _remove(self, number: int) -> None:
        """Removes a state, first its index, without which the other files do not count."""
        (self.folder / f"ckpt-{number}.index").unlink(missing_ok=True)
        for path in self.folder.glob(f"ckpt-{number}[._]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass
class BestWeights:
    """Saves a model after each epoch whose monitored figure is better than all before; in a tie, the first epoch stays.

    Only the file records the best epoch, so nothing contradicts it if a kill falls between this file and the state.
    """

    path: Path
    model: VideoSwin
    name: str  # name of the weights in messages
    monitor: str = "val_top1"  # the figure of `MONITORS` that decides
    prefix: str = "val_"  # of its key in the logs of an epoch
    epoch: int = 0
    value: float | None = None  # of the best epoch so far

    def offer(self, epoch: int, logs: dict[str, float], metadata: dict[str, Any], is_chief: bool) -> None:
        """Saves the weights of an epoch, counted from 1, if they are the best so far, or if the file is gone."""
        figures = {f"val_{key.removeprefix(self.prefix)}": logs[key] for key in logs if key.startswith(self.prefix)}
        value, better = float(figures[self.monitor]), MONITORS[self.monitor].better
        is_better = self.value is None or (value != self.value and better(value, self.value) == value)
        is_gone = is_chief and self.epoch > 0 and not self.path.exists()
        if is_chief and (is_better or is_gone):
            self.path.parent.mkdir(exist_ok=True)  # not the run's folder: if it is gone, it was moved
            chosen = {"epoch": epoch, "monitor": self.monitor, self.monitor: value}
            chosen |= {key: float(figures[key]) for key in ("val_top1", "val_map") if key in figures}
            save_checkpoint(self.path, official_tensors(self.model), metadata | chosen)
        if is_better:
            self.epoch, self.value = epoch, value
        elif is_gone:
            logger.warning(f"{self.path} was removed: it holds the {self.name} of epoch {epoch} now")


class Checkpoints(keras.callbacks.Callback):
    """Saves a state (model, optimizer, position in the run) after each epoch, and the best weights.

    If the trainer averages its weights, the average is part of the state, and the best average has its own file.
    Train inside `finished`. All workers call every method, and the chief's files are kept. `metadata` is saved with the
    best weights. `monitor` chooses the best epoch, and a run ends after `patience` epochs without a better one.
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
        monitor: str = "val_top1",
    ) -> None:
        super().__init__()
        self.folder = folder
        self.monitor = monitor
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.metadata = metadata
        self.workers = workers
        self.patience = patience
        self.bests = [BestWeights(best_weights(folder), trainer.model, "weights", monitor)]
        averages = {}
        if trainer.average is not None:
            averages["average"] = average = trainer.average.model
            path = best_weights(folder, BEST_AVERAGE)
            self.bests.append(BestWeights(path, average, "weights (averaged)", monitor, "val_ema_"))
        self.epochs_saved = 0
        self.steps_saved = 0
        self._epochs_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._steps_done = tf.Variable(0, trainable=False, dtype=tf.int64)
        state = tf.train.Checkpoint(
            model=trainer.model,
            optimizer=trainer.optimizer,
            metrics=trainer.saved_metrics,
            epochs_done=self._epochs_done,
            steps_done=self._steps_done,
            **averages,
        )
        self.files = StateFiles(folder / STATES, state, keep_states, workers.is_chief)
        self._metric_variables = [variable for metric in trainer.saved_metrics for variable in metric.variables]
        self._restored_metrics: list[tf.Tensor] = []

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Waits in the end for a state that is being written; its error does not replace one that ended training."""
        try:
            yield
            self.finish_saving()
        except BaseException:
            with suppress(OSError, tf.errors.OpError):
                self.finish_saving()
            raise
        finally:
            self.files.close()

    def restore(self) -> int:
        """Restores the newest readable state, if any; returns the number of complete epochs.

        An `InputError` if none of the states can be read, the steps per epoch have changed, the workers see different
        states, or the best weights are gone.
        """
        if self.workers.is_chief:
            self.files.remove_unfinished()
            for best in self.bests:
                remove_partial(best.path)
        self.workers.wait()
        way_out = f"start a new run in another output_dir with init_from={self.folder}"
        number = self.files.read_newest(way_out)
        self.epochs_saved, self.steps_saved = int(self._epochs_done.numpy()), int(self._steps_done.numpy())
        global_step = self.epochs_saved * self.steps_per_epoch + self.steps_saved
        if number not in (None, global_step) or self.steps_saved >= self.steps_per_epoch:
            raise InputError(
                f"an epoch of the run in {self.folder} did not have {count_of(self.steps_per_epoch, 'step')} as it has "
                f"now, so its training videos were others; bring them back, or {way_out}"
            )
        self.workers.check_same(
            global_step,
            f"the workers do not see the same states in {self.files.folder}: output_dir must be on a file system that "
            "all of them share",
        )
        if self.steps_saved:
            self._restored_metrics = [tf.identity(variable) for variable in self._metric_variables]
        for best in self.bests if self.epochs_saved else ():
            if not best.path.exists():
                raise InputError(
                    f"{best.path} is gone, the best {best.name} of {self.epochs_saved} epochs; put it back, or start a "
                    "new run in another output_dir"
                )
            metadata = read_metadata(best.path)
            if (chose := metadata.get("monitor", "val_top1")) != self.monitor:
                raise InputError(
                    f"monitor={self.monitor}: {chose} has chosen the best epoch of the run in {self.folder} so far; "
                    f"go on with monitor={chose}, or {way_out}"
                )
            best.epoch, best.value = metadata["epoch"], metadata[self.monitor]
        return self.epochs_saved

    @property
    def position(self) -> str:
        """The saved position in the run, e.g. "epoch 2" or "epoch 3, step 5 of 12"; empty if nothing is saved."""
        if self.steps_saved:
            return f"epoch {self.epochs_saved + 1}, step {self.steps_saved} of {self.steps_per_epoch}"
        return f"epoch {self.epochs_saved}" if self.epochs_saved else ""

    @property
    def best_value(self) -> float | None:
        """The best monitored figure so far, of the weights or their average; None before the first epoch."""
        values = [best.value for best in self.bests if best.value is not None]
        return MONITORS[self.monitor].better(values, default=None)

    def is_stalled(self, epochs_done: int) -> bool:
        """Whether `patience` epochs have passed without better weights or a better average."""
        newest = max(best.epoch for best in self.bests)
        return self.patience is not None and epochs_done - newest >= self.patience

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Restores the metrics of an epoch that resumes in the middle; Keras has just reset them."""
        for variable, value in zip(self._metric_variables, self._restored_metrics, strict=False):
            variable.assign(value)
        self._restored_metrics = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Saves the best weights, then the state; stops the run if it has stalled."""
        for best in self.bests:
            thresholds = self.trainer.thresholds.get(best.prefix.removeprefix("val_"))
            metadata = self.metadata | ({} if thresholds is None else {"thresholds": thresholds})
            best.offer(epoch + 1, logs, metadata, self.workers.is_chief)
        self.save_state(epoch + 1, 0, wait=False)
        if self.is_stalled(epoch + 1) and epoch + 1 < self.params["epochs"]:
            assert self.patience is not None
            self.model.stop_training = True
            name = MONITORS[self.monitor].name
            logger.info(f"stopped early: no better val {name} for patience={count_of(self.patience, 'epoch')}")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Waits for the last state, and logs the best epoch and the file of its weights."""
        self.finish_saving()
        monitor = MONITORS[self.monitor]
        for best in self.bests:
            assert best.value is not None
            figure = f"val {monitor.name} {monitor.format(best.value)}"
            logger.info(f"best epoch {best.epoch}: {figure}, {best.name} in {best.path}")

    def save_state(self, epochs_done: int, steps_done: int, wait: bool = True) -> None:
        """Saves the state after some steps of the next epoch; without `wait`, training continues during the write."""
        self.finish_saving()
        self._epochs_done.assign(epochs_done)
        self._steps_done.assign(steps_done)
        self.files.write(epochs_done * self.steps_per_epoch + steps_done)
        if wait:
            self.finish_saving()

    def finish_written(self) -> None:
        """Finishes a state if it has been written, without waiting."""
        if self.files.is_written():
            self.finish_saving()

    def finish_saving(self) -> None:
        """Waits for the state that is being written, if any, and records its position."""
        if self.files.unfinished is not None:
            number = self.files.unfinished
            self.files.finish()
            self.epochs_saved, self.steps_saved = divmod(number, self.steps_per_epoch)
