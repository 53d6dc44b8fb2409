"""What wandb and TensorBoard show of an evaluation besides its figures: classes that were confused, and some videos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from vswin.data.decode_error import DecodeError
from vswin.data.stores import VideoStore
from vswin.errors import InputError
from vswin.evaluation.metrics import NO_PREDICTION, confusion_matrix
from vswin.evaluation.report import Result

CONFUSED_COLUMNS = ("class", "predicted", "videos")
_NUM_PAIRS = 100
_NUM_SAMPLES = 8
_SAMPLE_FRAMES, _SAMPLE_SIDE = 32, 128
# Frames all over a long video may take long to reach.
_SECONDS_FOR_ONE = 5.0


class Sample(NamedTuple):
    """Hold a video as it is shown.

    Attributes:
        caption: What it is, and what was predicted.
        frames: Spread over it, uint8 [T, H, W, 3] RGB, of even sides.
    """

    caption: str
    frames: np.ndarray


def list_confused(result: Result) -> list[tuple[str, str, int]]:
    """Lists the pairs of classes that were confused most often: class, what was predicted instead, how often."""
    counts = confusion_matrix(result.labels, result.ranked[:, 0], len(result.class_names))
    np.fill_diagonal(counts, 0)
    pairs = np.argsort(-counts, axis=None, kind="stable")[:_NUM_PAIRS]
    rows = [(*np.unravel_index(pair, counts.shape), counts.flat[pair]) for pair in pairs if counts.flat[pair] > 0]
    names = result.class_names
    return [(names[label], names[predicted], int(count)) for label, predicted, count in rows]


def read_samples(result: Result, store: VideoStore) -> Iterator[Sample]:
    """Yields the same few videos in every evaluation of a data set, without those that have no prediction."""
    for number in choose_samples(len(result.paths)):
        predicted = result.ranked[number, 0]
        if predicted == NO_PREDICTION:
            continue
        try:
            frames = _read_frames(result.paths[number], store)
        # A store whose files have changed; all of these videos were read a moment ago.
        except (DecodeError, InputError, OSError):
            continue
        names = result.class_names
        label, said = names[result.labels[number]], names[predicted]
        yield Sample(describe(label, said, result.probabilities[number, 0]), frames)


def choose_samples(num_videos: int) -> list[int]:
    """Chooses the videos that are shown, the same few each time."""
    return sorted(np.random.default_rng(0).permutation(num_videos)[:_NUM_SAMPLES].tolist())


def describe(label: str, said: str, probability: float) -> str:
    """Says what a video is and what was predicted with which probability, 0..1."""
    return f"{label}, predicted {said} ({100 * probability:.1f} %)"


def _read_frames(path: str, store: VideoStore) -> np.ndarray:
    """Reads frames spread over a video, uint8 [T, H, W, 3], their short side reduced."""
    with store.open(path, timeout_sec=_SECONDS_FOR_ONE) as reader:
        numbers = np.unique(np.linspace(0, reader.num_video_frames - 1, _SAMPLE_FRAMES).astype(int))
        return reader.read(numbers, reduce_frame)


def reduce_frame(frame: np.ndarray) -> np.ndarray:
    """Reduces a frame, uint8 [H, W, 3], so that its short side has at most 128 pixels; both become even."""
    height, width = frame.shape[:2]
    scale = min(1.0, _SAMPLE_SIDE / min(height, width))
    # Even sides are what every player takes.
    size = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
