"""Logs an evaluation beside the curves of its training run, in TensorBoard and in wandb.

Both get the figures, the confusion matrix and the confused classes, or with several labels the figures of each class,
and some videos with their predictions. Neither can end an evaluation, because its report is written first.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from vswin.config.load import load_saved
from vswin.config.schema import EvaluateConfig
from vswin.data.contact_sheet import Panel, draw_sheet, thumbnail
from vswin.data.decode import VideoStore
from vswin.data.pyav_encoder import encode_video
from vswin.data.samples import split_name
from vswin.errors import DecodeError, InputError
from vswin.evaluation.multi_label import MultiLabelResult
from vswin.evaluation.report import Result
from vswin.runs.metrics import NO_PREDICTION, most_confused
from vswin.runs.plots import draw_confusion_matrix
from vswin.runtime import logger

if TYPE_CHECKING:
    import wandb

_NUM_PAIRS = 100
_NUM_SAMPLES = 8
_SAMPLE_FRAMES, _SAMPLE_SIDE = 32, 128
# Frames all over a long video may take long to seek.
_SECONDS_FOR_ONE = 5.0
_NUM_STILLS, _STILL_HEIGHT = 6, 112
_FRAME_RATE = Fraction(8)


class Example(NamedTuple):
    """A video to show: a caption, and frames spread over the video, uint8 [T, H, W, 3] RGB with even sides."""

    caption: str
    frames: np.ndarray


def read_samples(result: Result | MultiLabelResult, store: VideoStore) -> Iterator[Example]:
    """Yields the same few videos in every evaluation of a data set, without those that have no prediction."""
    names = result.class_names
    for index in choose_samples(len(result.paths)):
        predicted = result.ranked[index, 0]
        if predicted == NO_PREDICTION:
            continue
        try:
            path, part = split_name(result.paths[index])
            with store.open(path, timeout_sec=_SECONDS_FOR_ONE, part=part) as reader:
                numbers = np.unique(np.linspace(0, reader.num_video_frames - 1, _SAMPLE_FRAMES).astype(int))
                frames = reader.read(numbers, reduce_frame)
        # All these videos were readable a moment ago, so the files of the store have changed.
        except (DecodeError, InputError, OSError):
            continue
        if isinstance(result, MultiLabelResult):
            label = result.name_marked(result.targets[index])
        else:
            label = names[result.labels[index]]
        yield Example(describe(label, names[predicted], result.probabilities[index, predicted]), frames)


def choose_samples(num_videos: int) -> list[int]:
    """Chooses the indices of the videos to show, the same few each time."""
    return sorted(np.random.default_rng(0).permutation(num_videos)[:_NUM_SAMPLES].tolist())


def describe(label: str, predicted: str, probability: float) -> str:
    """Formats a caption: the label, the predicted class and its probability, 0..1."""
    return f"{label}, predicted {predicted} ({100 * probability:.1f} %)"


def reduce_frame(frame: np.ndarray) -> np.ndarray:
    """Shrinks a frame, uint8 [H, W, 3], so that its short side has at most 128 pixels; both sides become even."""
    height, width = frame.shape[:2]
    scale = min(1.0, _SAMPLE_SIDE / min(height, width))
    # Every player accepts even sides.
    size = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def has_log(config: EvaluateConfig) -> bool:
    """Whether there is a training run with TensorBoard files."""
    return config.run is not None and Path(config.run, "tensorboard").is_dir()


def log_to_tensorboard(
    config: EvaluateConfig, result: Result | MultiLabelResult, samples: Sequence[Example], epoch: int
) -> None:
    """Logs under `test/...` the same as `log_to_wandb`, but stills of the videos, because TensorBoard shows no films.

    The step is `epoch`, the epoch of the weights, counted from 1.
    """
    columns, listed = _list_classes(result)
    rows = [columns, ("---",) * len(columns), *listed]
    table = "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows)
    panels = []
    for caption, frames in samples:
        numbers = np.linspace(0, len(frames) - 1, min(_NUM_STILLS, len(frames))).round().astype(int)
        panels.append(Panel(caption, [], [[thumbnail(frames[number], _STILL_HEIGHT) for number in numbers]]))
    try:
        writer = tf.summary.create_file_writer(str(Path(str(config.run), "tensorboard")))
        with writer.as_default(step=epoch):
            for name, value in result.metrics.shown().items():
                # An interval is logged as its two ends.
                ends = (
                    {f"{name}/low": value[0], f"{name}/high": value[1]} if isinstance(value, tuple) else {name: value}
                )
                for key, figure in ends.items():
                    if not isinstance(figure, str):
                        tf.summary.scalar(f"test/{key}", figure)
            if isinstance(result, Result):
                png = draw_confusion_matrix(result.labels, result.ranked[:, 0], result.class_names)
                tf.summary.image("test/confusion_matrix", tf.io.decode_png(png, channels=3)[tf.newaxis])
            tf.summary.text("test/confused_classes" if isinstance(result, Result) else "test/classes", table)
            if panels:
                tf.summary.image("test/samples", np.asarray(draw_sheet(panels))[np.newaxis])
        writer.close()
    # The disk may be full or read-only.
    except (OSError, tf.errors.OpError) as error:
        logger.info(f"TensorBoard: the evaluation was not taken ({error}); its report is complete")


def check_wandb(config: EvaluateConfig) -> None:
    """Checks, before hours of work, that there is a wandb run to log to.

    Raises:
        InputError: if `run` is not a training run that logged to wandb.
    """
    if not config.wandb:
        return
    # Importing wandb takes seconds.
    from vswin.runs.wandb_run import RUN_ID_NAME

    if config.run is None or not Path(config.run, RUN_ID_NAME).is_file():
        raise InputError(
            f"wandb=true needs run=<a training run with logger=wandb>, but run={config.run or 'null'} has no "
            f"{RUN_ID_NAME}; leave out wandb=true"
        )


def log_to_wandb(config: EvaluateConfig, result: Result | MultiLabelResult, samples: Sequence[Example]) -> None:
    """Logs the figures as `test/...`, the confusion matrix, the confused classes, and the videos as films."""
    import wandb

    from vswin.runs.wandb_run import wandb_run

    folder = Path(str(config.run))
    try:
        saved = load_saved(str(folder))
        protocol = {"test": {"clip": dataclasses.asdict(config.clip), "average": config.average}}
        with wandb_run(folder, saved.logger.wandb_project, protocol, "wandb=true") as run:
            for name, value in result.metrics.shown().items():
                run.summary[f"test/{name}"] = value
            columns, listed = _list_classes(result)
            table = wandb.Table(columns=list(columns), data=[list(row) for row in listed])
            shown: dict[str, Any] = {"test/samples": [make_film(sample) for sample in samples]}
            if isinstance(result, Result):
                png = draw_confusion_matrix(result.labels, result.ranked[:, 0], result.class_names)
                matrix = wandb.Image(tf.io.decode_png(png, channels=3).numpy())
                shown |= {"test/confused_classes": table, "test/confusion_matrix": matrix}
            else:
                shown["test/classes"] = table
            # The step comes after all epochs, whether the wandb run continues online or in a separate offline file.
            run.log(shown, step=max(run.step, saved.epochs + 1))
    except Exception as error:  # an error of wandb must not end the evaluation
        logger.info(f"wandb: the evaluation was not taken ({error}); its report is complete")


def make_film(sample: Example) -> wandb.Video:
    """Encodes a sample as an MP4."""
    import wandb

    file, frames = io.BytesIO(), sample.frames
    encode_video(file, frames, (frames.shape[2], frames.shape[1]), _FRAME_RATE)
    file.seek(0)
    return wandb.Video(file, caption=sample.caption, format="mp4")


def _list_classes(result: Result | MultiLabelResult) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
    """Lists the pairs of classes that were confused most often; with several labels, the figures of each class."""
    if isinstance(result, MultiLabelResult):
        columns, *rows = result.class_rows()
        return columns, rows
    names = result.class_names
    pairs = most_confused(result.labels, result.ranked[:, 0], len(names), _NUM_PAIRS)
    confused = [(names[pair.label], names[pair.predicted], pair.num_confused) for pair in pairs]
    return ("class", "predicted", "videos"), confused
