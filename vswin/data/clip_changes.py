"""Draw and apply everything that happens to the pixels of a training clip before they travel to the device."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np

from vswin.data import transforms
from vswin.data.color_jitter import draw_color_jitter
from vswin.data.operations import Operation, apply_operations
from vswin.data.rand_augment import draw_rand_augment
from vswin.data.transforms import Box
from vswin.schema import AugmentConfig


class ClipChanges(NamedTuple):
    """Hold what is drawn for a clip; it is the same for all its frames.

    Attributes:
        box: What is cut out of the frames.
        is_flipped: Whether they are mirrored then.
        operations: What changes them last: colour jitter, then RandAugment.
    """

    box: Box
    is_flipped: bool
    operations: list[Operation]


class BoxDraw:
    """Gives the box that `draw_changes` will draw, once its frames have a size, and leaves the draw to it.

    May be pickled, so that frames can be cut where they are decoded.
    """

    def __init__(self, augment: AugmentConfig, rng: np.random.Generator) -> None:
        """Remembers a generator as it is now, and how large the box may be."""
        self._area = augment.crop_area
        self._aspect = augment.crop_aspect
        self._rng = copy.deepcopy(rng)

    def __call__(self, height: int, width: int) -> Box:
        """Gives the box in frames of H x W pixels; the same one every time."""
        return transforms.random_resized_crop_box(height, width, self._area, self._aspect, copy.deepcopy(self._rng))


def draw_changes(
    height: int, width: int, augment: AugmentConfig, allow_flip: bool, rng: np.random.Generator
) -> ClipChanges:
    """Draws the changes of a clip.

    Args:
        height: H of its frames.
        width: W of its frames.
        augment: What is drawn, and how strong it is.
        allow_flip: Whether mirroring keeps the label; False draws no flip.
        rng: Source of the draws.

    Returns:
        The changes.
    """
    box = transforms.random_resized_crop_box(height, width, augment.crop_area, augment.crop_aspect, rng)
    is_flipped = allow_flip and bool(rng.random() < augment.flip)
    operations = draw_color_jitter(augment.color_jitter, rng)
    operations += draw_rand_augment(augment.rand_augment, augment.rand_augment_ops, augment.rand_augment_magnitude, rng)
    return ClipChanges(box, is_flipped, operations)


def apply_changes(frames: np.ndarray, changes: ClipChanges) -> np.ndarray:
    """Applies the changes of a clip whose box has been cut out already.

    Args:
        frames: The box of every frame, resized, uint8 [T, size, size, 3].
        changes: Drawn for these frames.

    Returns:
        uint8 [T, size, size, 3].
    """
    if changes.is_flipped:
        frames = transforms.flip(frames)
    return apply_operations(frames, changes.operations)
