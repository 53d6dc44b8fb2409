"""Put an evaluation into the wandb run of the training run behind it; called by `vswin.evaluation.run`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import wandb

from vswin.config import load_saved
from vswin.data.pyav_encoder import encode_video
from vswin.errors import InputError
from vswin.evaluation.highlights import CONFUSED_COLUMNS, Sample, list_confused
from vswin.evaluation.metrics import NO_PREDICTION
from vswin.evaluation.report import Result
from vswin.runs.wandb_run import RUN_ID_NAME, wandb_run
from vswin.runtime import logger
from vswin.schema import EvaluateConfig

# wandb stores a row per cell: 400 classes would be 160,000.
_MAX_CLASSES = 50
_FRAME_RATE = Fraction(8)


def check_wandb(config: EvaluateConfig) -> None:
    """Checks, before hours of work, that there is a wandb run to log into.

    Raises:
        InputError: if `run` is not a training run that logged to wandb.
    """
    if config.wandb and (config.run is None or not Path(config.run, RUN_ID_NAME).is_file()):
        raise InputError(
            f"wandb=true needs run=<a training run with logger=wandb>, but run={config.run or 'null'} has no "
            f"{RUN_ID_NAME}; leave out wandb=true"
        )


def log_to_wandb(config: EvaluateConfig, result: Result, samples: Sequence[Sample]) -> None:
    """Logs the figures as `test/...`, the confused classes, and some videos with what was predicted of them.

    wandb that cannot start or take them ends nothing: the report is on the disk.

    Args:
        config: whose `run` is a training run that logged to wandb.
        result: the evaluation.
        samples: some of its videos.
    """
    folder = Path(str(config.run))
    try:
        saved = load_saved(str(folder))
        protocol = {"test": {"clip": dataclasses.asdict(config.clip), "average": config.average}}
        with wandb_run(folder, saved.logger.wandb_project, protocol, "wandb=true") as run:
            for name, value in dataclasses.asdict(result.metrics).items():
                run.summary[f"test/{name}"] = value
            # After the epochs, whether the run goes on online or in a file of its own.
            run.log(
                {
                    "test/samples": [make_film(sample) for sample in samples],
                    "test/confused_classes": wandb.Table(
                        columns=list(CONFUSED_COLUMNS), data=list(map(list, list_confused(result)))
                    ),
                    **_confusion_plot(result),
                },
                step=max(run.step, saved.epochs + 1),
            )
    except Exception as error:  # whatever becomes of wandb, the evaluation is what counts
        logger.info(f"wandb: the evaluation was not taken ({error}); its report is complete")


def _confusion_plot(result: Result) -> dict[str, object]:
    """Gives the confusion matrix of a data set with few classes, without videos that have no prediction."""
    is_good = result.ranked[:, 0] != NO_PREDICTION
    if len(result.class_names) > _MAX_CLASSES or not is_good.any():
        return {}
    plot = wandb.plot.confusion_matrix(
        y_true=result.labels[is_good].tolist(),
        preds=result.ranked[is_good, 0].tolist(),
        class_names=list(result.class_names),
        title="Confusion matrix",
    )
    return {"test/confusion_matrix": plot}


def make_film(sample: Sample) -> wandb.Video:
    """Makes an MP4."""
    file, frames = io.BytesIO(), sample.frames
    encode_video(file, frames, (frames.shape[2], frames.shape[1]), _FRAME_RATE)
    file.seek(0)
    return wandb.Video(file, caption=sample.caption, format="mp4")
