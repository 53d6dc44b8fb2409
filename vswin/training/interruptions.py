"""Interruptions of a run (a signal, a full disk, no memory, a lost worker): what is saved, and how to continue."""

import os
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from vswin.cluster import Workers
from vswin.config.checks import batch_unit
from vswin.config.schema import TrainConfig
from vswin.console import count_of
from vswin.errors import InputError, disk_fault, is_out_of_memory
from vswin.runs.environment import plain_command
from vswin.runtime import exit_at_once, logger, signals_taken
from vswin.training.callbacks import FiniteGuard
from vswin.training.checkpoints import Checkpoints
from vswin.training.memory import estimate_run
from vswin.training.run_folder import STATES
from vswin.weights.files import best_weights

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    # Slurm can send it before the time limit.
    _SIGNALS[signal.SIGUSR1] = "SIGUSR1"


def resume_command(command: Sequence[str], folder: Path) -> str:
    """Formats the command that continues the run in a folder, quoted for a shell.

    `command` is the command line of this session, as in `sys.orig_argv`; empty if Python code started the run.
    """
    if not command:
        return f"run_training with output_dir={str(folder)!r} and resume=True"
    program, *arguments = plain_command(command)
    names = [argument.lstrip("+").partition("=")[0] for argument in arguments]
    kept = [argument for argument, name in zip(arguments, names, strict=True) if name != "resume"]
    # The user's own output_dir stays as it is: it is already quoted for Hydra.
    output_dir = [] if "output_dir" in names else [f"output_dir={folder}"]
    return shlex.join([program, *kept, *output_dir, "resume=true"])


class SaveAndStop(keras.callbacks.Callback):
    """Saves states inside an epoch: every so many minutes or steps, and after the step in which a signal came.

    Ctrl-C, SIGTERM and SIGUSR1 end the run after that save; a validation that is running is completed first.
    A second signal ends the process at once, even inside a step that takes minutes. All workers stop when one of them
    gets a signal, and the chief's clock counts. Train inside `taking_signals`, with `checkpoints` before this callback.
    `command` is the command that continues the run. `finite` keeps states that are not finite from being saved.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        finite: FiniteGuard,
        workers: Workers,
        command: str,
        minutes: float | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.finite = finite
        self.workers = workers
        self.command = command
        self.minutes = minutes
        self.steps = steps
        self._epoch = 0
        self._last_save = time.monotonic()
        self._caught: int | None = None

    @contextmanager
    def taking_signals(self) -> Iterator[None]:
        """Handles the signals, unless the process was told to ignore them; after a stop, prints how to continue."""
        try:
            with signals_taken(_SIGNALS, self._note):
                yield
        except SystemExit:
            if self._caught is not None:
                name, position = _SIGNALS[signal.Signals(self._caught)], self.checkpoints.position
                logger.info(f"stopped by {name}; the state after {position} is saved. Go on with\n  {self.command}")
            raise

    def _note(self, number: int) -> None:
        if self._caught is not None:
            exit_at_once(number)
        self._caught = number
        with suppress(OSError):
            os.write(2, b"\nstopping as soon as the state is saved; once more to stop at once\n")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch and restarts the clock, because everything is saved now."""
        self._epoch = epoch
        self._last_save = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Saves the state if it is due or a signal came, except after the last step of an epoch.

        Raises:
            SystemExit: after a signal, with 128 + its number, as shells report it.
        """
        self.checkpoints.finish_written()
        steps_done, steps_per_epoch = batch + 1, self.checkpoints.steps_per_epoch
        is_due = self.steps is not None and (self._epoch * steps_per_epoch + steps_done) % self.steps == 0
        if self.minutes is not None:
            is_late = time.monotonic() - self._last_save >= 60 * self.minutes
            is_due |= self.workers.sum(int(self.workers.is_chief and is_late)) > 0
        number = self._signal()
        if (is_due or number) and steps_done < steps_per_epoch:
            self.finite.check_weights(batch)
            self.checkpoints.save_state(self._epoch, steps_done, wait=number > 0)
            self._last_save = time.monotonic()
            if number:
                raise SystemExit(128 + number)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the run if a signal came and training would continue; raises SystemExit as after a step."""
        number = self._signal()
        if number and epoch + 1 < self.params["epochs"] and not self.model.stop_training:
            self.checkpoints.finish_saving()
            raise SystemExit(128 + number)

    def _signal(self) -> int:
        """Returns the signal that any worker got, so that all stop after the same step; 0 for none."""
        if self.workers.sum(int(self._caught is not None)) == 0:
            return 0
        self._caught = self._caught or int(signal.SIGTERM)
        return self._caught


@contextmanager
def faults_explained(config: TrainConfig, checkpoints: Checkpoints, folder: Path, command: str) -> Iterator[None]:
    """Turns library errors about disks, memory and other workers into an `InputError` that a user can act on.

    `command` is the command that continues the run.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        fault, position = disk_fault(error), checkpoints.position
        saved = f"the state after {position} is saved and whole" if position else "no state is saved yet"
        if not folder.is_dir():
            kept = f"The state after {position} is whole in it" if position else "No state was saved in it yet"
            message = (
                f"the folder of the run, {folder}, was moved or removed while it went on. {kept}: bring it back, or "
                f"name its new place with output_dir=, and go on with\n  {command}\n  If it is gone, start again"
            )
        elif fault is not None:
            message = (
                f"writing into {folder} failed: {fault.reason}; {saved}. {fault.way_out.capitalize()}, then go on "
                f"with\n  {command}"
            )
        elif is_out_of_memory(error):
            setting = _less_memory(config, checkpoints.trainer.distribute_strategy)
            way_on = f"Go on with\n  {command} {setting}" if setting else "No setting is left that keeps the step"
            clip, runtime = config.clip, config.runtime
            clips = f"{count_of(config.batch_size, 'clip')} of {clip.num_frames} x {clip.crop} x {clip.crop}"
            message = (
                f"out of memory: batch_size={clips} with runtime.micro_batches={runtime.micro_batches} and "
                f"runtime.remat={str(runtime.remat).lower()} (the line `memory:` of the log estimates what a device "
                f"needs; smaller batches or clips are another training). {saved.capitalize()}. {way_on}"
            )
        elif loss := checkpoints.workers.describe_loss(error):
            message = f"{loss}. {saved.capitalize()}. Start the job again, each worker with\n  {command}"
        # Before the first state is saved, only an error that names its files is about them.
        elif not (folder / STATES).is_dir() and (
            position or (isinstance(error, FileNotFoundError | tf.errors.NotFoundError) and "ckpt-" in str(error))
        ):
            best = best_weights(folder)
            message = (
                f"{folder / STATES} was removed while the run went on, and its states with it. "
                + (f"The best weights are in {best}: start a new run from them" if best.exists() else "Start again")
                + f" in another output_dir{f', with init_from={folder}' * best.exists()}"
            )
        else:
            raise
        raise InputError(message) from error


def _less_memory(config: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    """Names the next setting that needs less memory and keeps the step as it is; empty if there is none."""
    is_cpu = "CPU" in strategy.extended.worker_devices[0]
    kept, twice = (estimate_run(config, 1, 1, is_cpu, remat).activations for remat in (False, True))
    if not config.runtime.remat and twice < kept:
        return "runtime.remat=true"
    for parts in range(config.runtime.micro_batches + 1, config.batch_size + 1):
        num_parts = strategy.num_replicas_in_sync * parts
        if config.batch_size % batch_unit(num_parts, config.augment.in_pairs, config.augment.repeats) == 0:
            return f"runtime.micro_batches={parts}"
    return ""
