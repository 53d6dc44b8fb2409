"""The end of a run whose numbers have left the finite ones, before any of them is saved."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from vswin.atomic import replacing
from vswin.data.records import VideoRecord
from vswin.errors import InputError

_NUM_NAMED = 5


class FiniteGuard(keras.callbacks.Callback):
    """Stops a run at the step whose loss is not finite, or that has left weights which are not.

    Gradients that overflow under float16 are none of its business: loss scaling skips their step, and neither
    loss nor weights show them. Stands before everything that saves weights.

    Args:
        classifier: the model whose weights are saved.
        steps_per_epoch: training steps in an epoch.
        find_records: (epoch, step in it, both from 0) -> the videos of that global batch.
        path: JSON file that then lists the step's clips.
    """

    def __init__(
        self,
        classifier: keras.Model,
        steps_per_epoch: int,
        find_records: Callable[[int, int], Sequence[VideoRecord]],
        path: Path,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.steps_per_epoch = steps_per_epoch
        self.find_records = find_records
        self.path = path
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes which epoch the steps belong to."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Looks at the mean loss of the epoch so far: the first step that is not finite turns it.

        Raises:
            InputError: if it is not finite.
        """
        if not math.isfinite(logs["loss"]):
            self._stop(batch, f"a loss of {logs['loss']}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Looks at the weights: those that the last step of an epoch has spoilt meet no further training loss.

        Raises:
            InputError: if some are not finite.
        """
        self.check_weights(self.steps_per_epoch - 1)

    def check_weights(self, step: int) -> None:
        """Looks at the weights and the optimizer's state, which must not be saved otherwise.

        Args:
            step: the step of the epoch that has just been taken, from 0.

        Raises:
            InputError: if some are not finite.
        """
        spoilt = _find_not_finite((*self.classifier.variables, *self.model.optimizer.variables))
        if spoilt is not None:
            self._stop(step, f"weights that are not finite, e.g. {spoilt}")

    def _stop(self, step: int, found: str) -> None:
        """Lists the clips of a step and ends the run."""
        global_step = self._epoch * self.steps_per_epoch + step + 1
        records = self.find_records(self._epoch, step)
        report = {
            "found": found,
            "global_step": global_step,
            "epoch": self._epoch + 1,
            "step_in_epoch": step + 1,
            "clips": [{"path": record.path, "label": record.label} for record in records],
        }
        with replacing(self.path) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        named = "".join(f"\n  {record.path}" for record in records[:_NUM_NAMED])
        raise InputError(
            f"global step {global_step} (epoch {self._epoch + 1}, step {step + 1} of {self.steps_per_epoch}) gave "
            f"{found}; nothing of it is saved, earlier states are. If its clips look well, the step before may have "
            "spoilt the weights: start a new run with a lower optimizer.learning_rate, with optimizer.clip_norm=1 or "
            f"with runtime.precision=float32. All {len(records)} are in {self.path}; the first are:{named}"
        )


def _find_not_finite(variables: Iterable[tf.Variable]) -> str | None:
    """Names the first variable with a value that is not finite."""
    for variable in variables:
        if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable))):
            return str(variable.name)
    return None
