"""Figures, sample predictions and weights of a training run for Weights & Biases."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tf_keras as keras
import wandb
from wandb.sdk.wandb_run import Run

from vswin.config.schema import TrainConfig
from vswin.evaluation.loggers import Sample, make_film
from vswin.runs.wandb_run import wandb_run
from vswin.runtime import logger
from vswin.training.loggers import standard_keys
from vswin.weights.checkpoint import read_metadata
from vswin.weights.files import BEST_AVERAGE, best_weights, save_checkpoint
from vswin.weights.names import official_tensors

_METADATA = ("epoch", "val_top1", "model", "dataset", "num_classes")


class WandbLog(keras.callbacks.Callback):
    """Logs `train/...` and `val/...` to a started wandb run, with the epoch counted from 1 as the step."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.epoch, self.top1 = 0, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Logs the epoch; training continues if wandb fails."""
        self.epoch, self.top1 = epoch + 1, float(logs.get("val_top1", 0.0))
        self._log_epoch(epoch, logs)

    def log_earlier(self, rows: Iterable[Mapping[str, str | float]]) -> None:
        """Logs the epochs of earlier sessions, rows of `history.csv`, again if the wandb run is offline.

        A kill loses what wandb had not written yet: 15 seconds with wandb 0.31, up to 32 KB with older versions.
        """
        for row in rows if self.run.offline else ():
            figures = {key: float(value) for key, value in row.items() if key != "epoch" and value != ""}
            self._log_epoch(int(row["epoch"]), figures)

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Logs validation videos, with predictions of the last epoch's weights, at the step of that epoch."""
        if samples:
            self.run.log({"val/samples": [make_film(sample) for sample in samples]}, step=self.epoch)

    def log_weights(self, folder: Path) -> None:
        """Logs the best and the last weights of a complete run as versions `best` and `last` of an artifact.

        The average of the weights, if there is one, becomes a separate artifact.
        """
        best, average = best_weights(folder), best_weights(folder, BEST_AVERAGE)
        if not best.is_file():
            return
        metadata = read_metadata(best)
        is_last = metadata["epoch"] == self.epoch
        self._log_file(best, metadata, "model", ["best", "last"] if is_last else ["best"])
        if not is_last:
            last = folder / "wandb" / "last.safetensors"
            metadata = {key: value for key, value in metadata.items() if key != "vswin_version"}
            metadata |= {"epoch": self.epoch, "val_top1": self.top1}
            save_checkpoint(last, official_tensors(self.model.model), metadata)
            self._log_file(last, metadata, "model", ["last"])
        if average.is_file():
            self._log_file(average, read_metadata(average), "ema", ["best"])

    def _log_epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        try:
            self.run.log({"epoch": epoch + 1, **standard_keys(figures)}, step=epoch + 1)
        except Exception as error:  # e.g. wandb's process has ended
            logger.info(f"wandb: epoch {epoch + 1} was not taken ({error}); training goes on")

    def _log_file(self, path: Path, metadata: Mapping[str, Any], name: str, aliases: list[str]) -> None:
        shown = {key: metadata[key] for key in _METADATA if key in metadata}
        artifact = wandb.Artifact(f"run-{self.run.id}-{name}", type="model", metadata=shown)
        # The file no longer changes, so wandb need not copy hundreds of megabytes.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=aliases)


@contextmanager
def open_wandb(
    config: TrainConfig,
    folder: Path,
    predict_samples: Callable[[], Sequence[Sample]] = tuple,
    earlier: Iterable[Mapping[str, str | float]] = (),
) -> Iterator[WandbLog]:
    """Starts or resumes the wandb run of a training run, and finishes it however training ends.

    A complete run logs some predictions, and its best and last weights as an artifact. `earlier` are the rows of
    `history.csv` from before this session. Raises an InputError if wandb cannot start.
    """
    with wandb_run(folder, config.logger.wandb_project, dataclasses.asdict(config), "logger=wandb") as run:
        log = WandbLog(run)
        log.log_earlier(earlier)
        yield log
        if log.epoch == 0 or run.disabled:
            return
        # An error of wandb does not end a complete training run.
        try:
            log.log_samples(predict_samples())
        except Exception as error:
            logger.info(f"wandb: the sample predictions were not taken ({error})")
        try:
            if config.logger.wandb_weights:
                log.log_weights(folder)
        except Exception as error:
            logger.info(f"wandb: the weights were not taken ({error}); they are in {folder / 'checkpoints'}")
