"""What a model says at each moment of a video: clips that overlap, and their average around each frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from vswin.data.sampling import segments, uniform_clips
from vswin.data.stores import FrameReader
from vswin.data.transforms import center_crop, resize_short_side
from vswin.schema import ClipConfig

T = TypeVar("T")


class Timeline(NamedTuple):
    """Hold the probabilities of clips in their places.

    Attributes:
        centres: Frame in the middle of each clip, float64 [n], increasing.
        probabilities: float32 [n, K].
        reach: Frames from one clip's first to its last. A clip counts for the frames up to so far from its centre, the
            less the farther.
    """

    centres: np.ndarray
    probabilities: np.ndarray
    reach: float

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Averages the clips around frames.

        Args:
            frames: Frame numbers, [m].

        Returns:
            Probabilities, float32 [m, K]; each row sums to 1. Frames beyond the reach of all clips have those of the
            nearest.
        """
        distances = np.abs(np.asarray(frames, np.float64)[:, None] - self.centres)  # [m, n]
        weights = np.maximum(1 - distances / max(self.reach, 1), 0)
        nearest = distances.argmin(axis=1)
        weights[np.arange(len(weights)), nearest] += 1e-9
        weights /= weights.sum(axis=1, keepdims=True)
        return (weights @ self.probabilities).astype(np.float32)


def make_timeline(
    reader: FrameReader,
    clip: ClipConfig,
    classify: Callable[[np.ndarray], np.ndarray],
    on_clips: Callable[[int, int], None],
) -> Timeline:
    """Classifies clips all along a video; decoding works ahead of the model.

    Args:
        reader: the video, at its start.
        clip: frames and size of a clip, see `place_clips`; the centre of each frame is taken.
        classify: from clips, uint8 [n, T, crop, crop, 3], to probabilities, float32 [n, K].
        on_clips: is told how many clips are done, and of how many.

    Returns:
        The timeline.

    Raises:
        DecodeError: if the video cannot be decoded to its end.
    """
    placed = place_clips(reader.num_video_frames, clip)
    found: list[np.ndarray] = []
    for clips in _ahead(_read_clips(reader, clip, placed)):
        found.extend(classify(clips))
        on_clips(len(found), len(placed))
    ends = np.stack([placed.min(axis=1), placed.max(axis=1)])  # [2, n]
    return Timeline(ends.mean(axis=0), np.stack(found), float((ends[1] - ends[0]).max()))


def place_clips(num_video_frames: int, clip: ClipConfig) -> np.ndarray:
    """Places clips all along a video, each half over the one before, the last one at the end.

    Args:
        num_video_frames: Frames in the file, >= 1.
        clip: Frames of a clip and the distance between them. With "segments", whose one clip covers the video and so
            would say the same throughout, clips are as if "dense", closer together where there is no room for two.

    Returns:
        Frame numbers, int64 [n, T], in [0, num_video_frames). A video shorter than a clip starts again.
    """
    stride = clip.frame_stride
    if clip.sampling == "segments":
        stride = min(stride, max(1, num_video_frames // (2 * clip.num_frames)))
    last = num_video_frames - 1 - (clip.num_frames - 1) * stride
    if last < 0 and clip.sampling == "segments":
        return segments(num_video_frames, clip.num_frames)[None]  # [1, T]
    if last < 0:
        return uniform_clips(num_video_frames, clip.num_frames, stride, 1)
    # All on one grid, so that clips share their frames.
    hop = max(1, clip.num_frames // 2) * stride
    starts = np.unique([*range(0, last + 1, hop), last // stride * stride])
    return starts[:, None] + stride * np.arange(clip.num_frames)  # [n, T]


def _read_clips(reader: FrameReader, clip: ClipConfig, placed: np.ndarray) -> Iterator[np.ndarray]:
    """Reads clips, uint8 [n, T, crop, crop, 3], a step of the model at a time, each frame once."""
    kept: dict[int, np.ndarray] = {}
    for start in range(0, len(placed), clip.views_per_step):
        numbers = placed[start : start + clip.views_per_step]
        missing = np.setdiff1d(numbers, list(kept))
        if len(missing):
            frames = center_crop(reader.read(missing, partial(resize_short_side, size=clip.resize)), clip.crop)
            kept |= dict(zip(missing.tolist(), frames, strict=True))
        yield np.stack([np.stack([kept[number] for number in row]) for row in numbers.tolist()])
        # Later clips start later.
        kept = {number: frame for number, frame in kept.items() if number > numbers[-1].min()}


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Makes each item while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item
