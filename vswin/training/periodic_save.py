"""States within an epoch, so that a kill costs minutes even where an epoch takes hours."""

import time

import tf_keras as keras

from vswin.training.checkpoints import Checkpoints
from vswin.training.finite import FiniteGuard
from vswin.workers import Workers


class PeriodicSave(keras.callbacks.Callback):
    """Saves a state every so many minutes or steps, in the background.

    Args:
        checkpoints: saves the state.
        finite: keeps states that are not finite from being saved.
        workers: the processes of the run; the chief's clock counts.
        minutes: time from one state to the next; None: never by the clock.
        steps: optimizer steps from one state to the next; None: never by the step.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        finite: FiniteGuard,
        workers: Workers,
        minutes: float | None,
        steps: int | None,
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.finite = finite
        self.workers = workers
        self.minutes = minutes
        self.steps = steps
        self._epoch = 0
        self._last_save = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch, at whose beginning everything is saved."""
        self._epoch = epoch
        self._last_save = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Begins to save a state if it is time, except at the end of an epoch, which is saved anyway."""
        self.checkpoints.finish_written()
        steps_done, steps_per_epoch = batch + 1, self.checkpoints.steps_per_epoch
        if self._is_due(self._epoch * steps_per_epoch + steps_done) and steps_done < steps_per_epoch:
            self.finite.check_weights(batch)
            self.checkpoints.save_state(self._epoch, steps_done, wait=False)
            self._last_save = time.monotonic()

    def _is_due(self, global_step: int) -> bool:
        if self.steps is not None and global_step % self.steps == 0:
            return True
        if self.minutes is None:
            return False
        is_late = time.monotonic() - self._last_save >= 60 * self.minutes
        return self.workers.sum(int(self.workers.is_chief and is_late)) > 0
