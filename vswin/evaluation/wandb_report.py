"""Put an evaluation into the wandb run of the training run behind it; called by `vswin.evaluation.run`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import wandb

from vswin.config import load_saved
from vswin.data.decode_error import DecodeError
from vswin.data.pyav_encoder import encode_video
from vswin.data.stores import VideoStore
from vswin.errors import InputError
from vswin.evaluation.metrics import NO_PREDICTION, confusion_matrix
from vswin.evaluation.report import Result
from vswin.runtime import logger
from vswin.schema import EvaluateConfig
from vswin.wandb_run import RUN_ID_NAME, wandb_run

# wandb stores a row per cell: 400 classes would be 160,000.
_MAX_CLASSES = 50
_NUM_PAIRS = 100
_NUM_SAMPLES = 8
_SAMPLE_FRAMES, _SAMPLE_SIDE, _SAMPLE_RATE = 32, 128, Fraction(8)


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


def log_to_wandb(config: EvaluateConfig, result: Result, store: VideoStore) -> None:
    """Logs the figures as `test/...`, the confused classes, and some videos with what was predicted of them.

    wandb that cannot start or take them ends nothing: the report is on the disk.

    Args:
        config: whose `run` is a training run that logged to wandb.
        result: the evaluation.
        store: where its videos are.
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
                    "test/samples": list(_sample_videos(result, store)),
                    "test/confused_classes": _confused_classes(result),
                    **_confusion_plot(result),
                },
                step=max(run.step, saved.epochs + 1),
            )
    except Exception as error:  # whatever becomes of wandb, the evaluation is what counts
        logger.info(f"wandb: the evaluation was not taken ({error}); its report is complete")


def _confused_classes(result: Result) -> wandb.Table:
    """Lists the pairs of classes that were confused most often."""
    counts = confusion_matrix(result.labels, result.ranked[:, 0], len(result.class_names))
    np.fill_diagonal(counts, 0)
    pairs = np.argsort(-counts, axis=None, kind="stable")[:_NUM_PAIRS]
    rows = [(*np.unravel_index(pair, counts.shape), counts.flat[pair]) for pair in pairs if counts.flat[pair] > 0]
    names = result.class_names
    data = [[names[label], names[predicted], int(count)] for label, predicted, count in rows]
    return wandb.Table(columns=["class", "predicted", "videos"], data=data)


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


def _sample_videos(result: Result, store: VideoStore) -> Iterator[wandb.Video]:
    """Yields the same few videos in every evaluation of a data set, reduced, as MP4."""
    chosen = np.random.default_rng(0).permutation(len(result.paths))[:_NUM_SAMPLES]
    for number in sorted(chosen):
        predicted = result.ranked[number, 0]
        if predicted == NO_PREDICTION:
            continue
        try:
            frames = _read_sample(result.paths[number], store)
        except DecodeError:
            continue
        file = io.BytesIO()
        encode_video(file, frames, (frames.shape[2], frames.shape[1]), _SAMPLE_RATE)
        file.seek(0)
        caption = (
            f"{result.class_names[result.labels[number]]}, predicted {result.class_names[predicted]} "
            f"({100 * result.probabilities[number, 0]:.1f} %)"
        )
        yield wandb.Video(file, caption=caption, format="mp4")


def _read_sample(path: str, store: VideoStore) -> np.ndarray:
    """Reads frames spread over a video, uint8 [T, H, W, 3], their short side reduced."""
    with store.open(path) as reader:
        numbers = np.unique(np.linspace(0, reader.num_video_frames - 1, _SAMPLE_FRAMES).astype(int))
        return reader.read(numbers, _reduce)


def _reduce(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = min(1.0, _SAMPLE_SIDE / min(height, width))
    # Even sides are what every player takes.
    size = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
