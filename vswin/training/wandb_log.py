"""Figures, sample predictions and weights of a training run for Weights & Biases."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tf_keras as keras
import wandb
from wandb.sdk.wandb_run import Run

from vswin.evaluation.loggers import Sample, make_film
from vswin.runtime import logger
from vswin.schema import TrainConfig
from vswin.training.standard_keys import standard_keys
from vswin.wandb_run import wandb_run
from vswin.weights.checkpoint import read_metadata
from vswin.weights.formats.hdf5_file import save_checkpoint
from vswin.weights.names import official_tensors

_METADATA = ("epoch", "val_top1", "model", "dataset", "num_classes")


class WandbLog(keras.callbacks.Callback):
    """Logs what `history.csv` has under `train/...` and `val/...`, with the epoch counted from 1 as the step.

    Args:
        run: a started run of wandb.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.epoch, self.top1 = 0, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Logs the epoch; training goes on where wandb cannot."""
        self.epoch, self.top1 = epoch + 1, float(logs.get("val_top1", 0.0))
        self._log_epoch(epoch, logs)

    def log_earlier(self, rows: Iterable[Mapping[str, str | float]]) -> None:
        """Logs the epochs of earlier sessions again, where they wrote to files.

        A kill takes what wandb had not written yet: 15 seconds of wandb 0.31, up to 32 KB of older ones.

        Args:
            rows: as `history.csv` has them.
        """
        if not self.run.offline:
            return
        for row in rows:
            figures = {key: float(value) for key, value in row.items() if key != "epoch" and value != ""}
            self._log_epoch(int(row["epoch"]), figures)

    def _log_epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        try:
            self.run.log({"epoch": epoch + 1, **standard_keys(figures)}, step=epoch + 1)
        except Exception as error:  # its process has ended, for one
            logger.info(f"wandb: epoch {epoch + 1} was not taken ({error}); training goes on")

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Logs validation videos, with what the weights of the last epoch say of them, beside its figures."""
        if samples:
            self.run.log({"val/samples": [make_film(sample) for sample in samples]}, step=self.epoch)

    def log_weights(self, folder: Path) -> None:
        """Logs the weights of the best and of the last epoch as versions `best` and `last` of an artifact.

        The average of the weights, where there is one, becomes an artifact of its own.

        Args:
            folder: the run's folder, whose run has come to its end.
        """
        checkpoints = folder / "checkpoints"
        if not (checkpoints / "best.h5").is_file():
            return
        about = read_metadata(checkpoints / "best.h5")
        is_last = about["epoch"] == self.epoch
        self._log_file(checkpoints / "best.h5", about, "model", ["best", "last"] if is_last else ["best"])
        if not is_last:
            last = folder / "wandb" / "last.h5"
            about = {key: value for key, value in about.items() if key != "vswin_version"}
            about |= {"epoch": self.epoch, "val_top1": self.top1}
            save_checkpoint(last, official_tensors(self.model.model), about)
            self._log_file(last, about, "model", ["last"])
        if (checkpoints / "best_ema.h5").is_file():
            path = checkpoints / "best_ema.h5"
            self._log_file(path, read_metadata(path), "ema", ["best"])

    def _log_file(self, path: Path, about: Mapping[str, Any], name: str, aliases: list[str]) -> None:
        metadata = {key: about[key] for key in _METADATA if key in about}
        artifact = wandb.Artifact(f"run-{self.run.id}-{name}", type="model", metadata=metadata)
        # Nothing writes to it any more, so wandb need not copy hundreds of megabytes.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=aliases)


@contextmanager
def open_wandb(
    config: TrainConfig,
    folder: Path,
    predict_samples: Callable[[], Sequence[Sample]] = tuple,
    earlier: Iterable[Mapping[str, str | float]] = (),
) -> Iterator[WandbLog]:
    """Starts, or resumes, the wandb run that belongs to a training run, and finishes it whatever happens.

    A run that comes to its end leaves some predictions, and its best and its last weights as an artifact.

    Args:
        config: becomes the configuration of the wandb run; `logger.wandb_weights` asks for the artifact.
        folder: the run's folder.
        predict_samples: gives validation videos with what is predicted of them; called once, at the end.
        earlier: rows of `history.csv` of the epochs before this session.

    Raises:
        InputError: if wandb cannot start.
    """
    with wandb_run(folder, config.logger.wandb_project, dataclasses.asdict(config), "logger=wandb") as run:
        log = WandbLog(run)
        log.log_earlier(earlier)
        yield log
        if log.epoch == 0 or run.disabled:
            return
        # Whatever becomes of wandb, the training is what counts.
        try:
            log.log_samples(predict_samples())
        except Exception as error:
            logger.info(f"wandb: the sample predictions were not taken ({error})")
        try:
            if config.logger.wandb_weights:
                log.log_weights(folder)
        except Exception as error:
            logger.info(f"wandb: the weights were not taken ({error}); they are in {folder / 'checkpoints'}")
