"""Hold drawn changes of pixels and apply them to clips; `color_jitter` and `rand_augment` draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Operation(NamedTuple):
    """Hold a change whose parameters are drawn.

    Attributes:
        text: Says in words what it does, e.g. "rotated by +7.0 deg".
        change: From a frame, uint8 [H, W, 3] RGB, to the changed one of the same shape.
    """

    text: str
    change: Callable[[np.ndarray], np.ndarray]


def apply_operations(frames: np.ndarray, operations: Sequence[Operation]) -> np.ndarray:
    """Applies operations to every frame of a clip, one after another.

    Args:
        frames: uint8 [T, H, W, 3].
        operations: May be empty.

    Returns:
        uint8 [T, H, W, 3].
    """
    if not operations:
        return frames
    changed = np.empty_like(frames)
    for frame, place in zip(frames, changed, strict=True):
        for operation in operations:
            frame = operation.change(frame)
        place[:] = frame
    return changed
