"""What ends a run from outside, a signal: how it ends cleanly, and how it goes on."""

import os
import shlex
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import tf_keras as keras

from vswin.runs.environment import plain_command
from vswin.runtime import exit_at_once, logger, signals_taken
from vswin.training.checkpoints import Checkpoints
from vswin.training.finite import FiniteGuard
from vswin.workers import Workers

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    # Slurm sends it, if asked to, ahead of the time limit.
    _SIGNALS[signal.SIGUSR1] = "SIGUSR1"


def resume_command(command: Sequence[str], folder: Path) -> str:
    """Writes the command that continues a run, quoted for a shell.

    Args:
        command: the command line of this session, as in `sys.orig_argv`; empty if Python code started the run.
        folder: the run's folder.
    """
    if not command:
        return f"run_training with output_dir={str(folder)!r} and resume=True"
    program, *arguments = plain_command(command)
    names = [argument.lstrip("+").partition("=")[0] for argument in arguments]
    kept = [argument for argument, name in zip(arguments, names, strict=True) if name != "resume"]
    # What the user wrote is kept, for it is already quoted as Hydra wants it.
    output_dir = [] if "output_dir" in names else [f"output_dir={folder}"]
    return shlex.join([program, *kept, *output_dir, "resume=true"])


class SignalStop(keras.callbacks.Callback):
    """Ends a run on Ctrl-C, or SIGTERM or SIGUSR1 from a scheduler: after the step in hand, whose state is saved.

    A validation, as it goes to the end of its epoch, is completed first. A second signal ends the process at once,
    even inside a step that takes minutes. Use it as a context around training: it then takes the signals, except
    for those that the process was told to ignore, and outside of the main thread, where Python allows no handler.

    Args:
        checkpoints: saves the state. Stands before this one among the callbacks.
        finite: keeps states that are not finite from being saved.
        workers: the processes of the run, which all stop when one of them gets a signal.
        go_on: the command that continues the run.
    """

    def __init__(self, checkpoints: Checkpoints, finite: FiniteGuard, workers: Workers, go_on: str) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.finite = finite
        self.workers = workers
        self.go_on = go_on
        self._epoch = 0
        self._caught: int | None = None
        self._taken = ExitStack()

    def __enter__(self) -> "SignalStop":
        """Takes the signals."""
        self._taken.enter_context(signals_taken(_SIGNALS, self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives the signals back; after a stop says what is saved and how to go on, below everything else."""
        self._taken.close()
        if isinstance(error, SystemExit) and self._caught is not None:
            name = _SIGNALS[signal.Signals(self._caught)]
            logger.info(
                f"stopped by {name}; the state after {self.checkpoints.place} is saved. Go on with\n  {self.go_on}"
            )

    def _note(self, number: int) -> None:
        if self._caught is not None:
            exit_at_once(number)
        self._caught = number
        with suppress(OSError):
            os.write(2, b"\nstopping as soon as the state is saved; once more to stop at once\n")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes which epoch the steps belong to."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Saves the state and ends the run if a signal came, unless the epoch is about to be complete.

        Raises:
            SystemExit: with 128 + the number of the signal, as shells report it.
        """
        self._hear_others()
        if self._caught is not None and batch + 1 < self.checkpoints.steps_per_epoch:
            self.finite.check_weights(batch)
            self.checkpoints.save_state(self._epoch, batch + 1)
            raise SystemExit(128 + self._caught)

    def _hear_others(self) -> None:
        """Lets all workers stop after the same step, whichever of them got the signal."""
        if self.workers.sum(int(self._caught is not None)) and self._caught is None:
            self._caught = int(signal.SIGTERM)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the run if a signal came, unless there is nothing left to do.

        Raises:
            SystemExit: with 128 + the number of the signal.
        """
        self._hear_others()
        if self._caught is not None and epoch + 1 < self.params["epochs"] and not self.model.stop_training:
            self.checkpoints.finish_saving()
            raise SystemExit(128 + self._caught)
