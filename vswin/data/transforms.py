"""Resize, crop and flip decoded uint8 frames.

`frames` is always uint8 [T, H, W, 3]; every function treats all frames of a clip alike. The model's first layer
normalises, and mixing runs on the device, so neither belongs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

NUM_BOX_CANDIDATES = 10


class Box(NamedTuple):
    """A rectangle in a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one frame, uint8 [H, W, 3], bilinearly and without antialiasing, as the official pipeline does.

    A frame that already has this size is returned without a copy.
    """
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_short_side(frame: np.ndarray, size: int) -> np.ndarray:
    """Resizes one frame up or down to uint8 [H', W', 3] with min(H', W') == size, and keeps its aspect ratio.

    Source: mmaction/datasets/pipelines/augmentations.py, Resize, with mmcv/image/geometric.py, rescale_size.
    """
    return resize_frame(frame, *scale_short_side(frame.shape[0], frame.shape[1], size))


def scale_short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """Returns H' and W' of a frame of H x W pixels after `resize_short_side`."""
    scale = size / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def crop(frames: np.ndarray, box: Box) -> np.ndarray:
    """Crops all frames to the same rectangle; returns a view, uint8 [T, box.height, box.width, 3]."""
    return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]


def center_crop(frames: np.ndarray, size: int) -> np.ndarray:
    """Crops all frames to the central square, uint8 [T, size, size, 3].

    Source: mmaction/datasets/pipelines/augmentations.py, CenterCrop.
    """
    height, width = frames.shape[1:3]
    return crop(frames, Box((height - size) // 2, (width - size) // 2, size, size))


def three_crops(frames: np.ndarray, size: int) -> np.ndarray:
    """Crops three squares along the longer side: at its start, its end and its middle, in this order.

    If the remaining length is odd, the end square stops one pixel before the edge, as the official crop does. Along the
    shorter side, the squares are centred.

    Returns:
        Left (top), right (bottom) and middle crops, uint8 [3, T, size, size, 3].

    Source: mmaction/datasets/pipelines/augmentations.py, ThreeCrop.
    """
    height, width = frames.shape[1:3]
    top, left = (height - size) // 2, (width - size) // 2
    if width >= height:
        boxes = [Box(top, start, size, size) for start in (0, 2 * left, left)]
    else:
        boxes = [Box(start, left, size, size) for start in (0, 2 * top, top)]
    return np.stack([crop(frames, box) for box in boxes])  # [3, T, H, W, 3]


def random_resized_crop_box(
    height: int, width: int, area: Sequence[float], aspect: Sequence[float], rng: np.random.Generator
) -> Box:
    """Draws a rectangle of random area and aspect ratio in frames of H x W pixels.

    `area` is the range of the area as a fraction of the frame's, in (0, 1]; `aspect` is the range of width / height,
    which is drawn log-uniformly.

    Returns:
        The first of ten candidates that fits, or the largest centred square if none fits.

    Source: mmaction/datasets/pipelines/augmentations.py, RandomResizedCrop.get_crop_bbox.
    """
    ratios = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1]), NUM_BOX_CANDIDATES))
    areas = rng.uniform(area[0], area[1], NUM_BOX_CANDIDATES) * (height * width)
    widths = np.round(np.sqrt(areas * ratios)).astype(np.int64)
    heights = np.round(np.sqrt(areas / ratios)).astype(np.int64)
    for box_height, box_width in zip(heights.tolist(), widths.tolist(), strict=True):
        if 0 < box_height <= height and 0 < box_width <= width:
            left = int(rng.integers(width - box_width, endpoint=True))
            top = int(rng.integers(height - box_height, endpoint=True))
            return Box(top, left, box_height, box_width)
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


class BoxCutter:
    """Crops all frames of a video to one random box and resizes the result to a square, in one step.

    The box is drawn for frames whose shorter side has `size` pixels, as in the official pipeline, which resizes the
    frames first. Here, the box is scaled to the original frames, rounded to whole pixels, and cut out of them. For
    frames whose shorter side has `size` pixels, both methods give the same bytes.

    Attributes:
        box: The box, drawn with the first frame.
    """

    box: Box

    def __init__(
        self,
        size: int,
        side: int,
        area: Sequence[float],
        aspect: Sequence[float],
        rng: np.random.Generator,
        resizes_first: bool = False,
    ) -> None:
        """Sets up a square of `side` pixels; see `random_resized_crop_box` for the draws."""
        self._size = size
        self._side = side
        self._draws = area, aspect, rng
        self._resizes_first = resizes_first
        self._shape: tuple[int, ...] = ()
        self._rows = self._columns = slice(0)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Crops and resizes a frame, uint8 [H, W, 3], to uint8 [side, side, 3]."""
        if self._resizes_first:
            frame = resize_short_side(frame, self._size)
        if frame.shape != self._shape:
            self._shape = frame.shape
            height, width = scale_short_side(frame.shape[0], frame.shape[1], self._size)
            self.box = box = random_resized_crop_box(height, width, *self._draws)
            self._rows = _scale_span(box.top, box.height, frame.shape[0] / height, frame.shape[0])
            self._columns = _scale_span(box.left, box.width, frame.shape[1] / width, frame.shape[1])
        return resize_frame(frame[self._rows, self._columns], self._side, self._side)


def _scale_span(start: int, length: int, scale: float, end: int) -> slice:
    """Scales a span of pixels to at least one whole pixel below `end`."""
    first = min(round(start * scale), end - 1)
    return slice(first, max(round((start + length) * scale), first + 1))


def flip(frames: np.ndarray) -> np.ndarray:
    """Mirrors all frames left to right."""
    flipped = np.empty_like(frames)
    for frame, target in zip(frames, flipped, strict=True):
        # Several times faster than reversing the axis in NumPy, which copies byte by byte.
        cv2.flip(frame, 1, dst=target)
    return flipped
