"""Resizes relative position bias tables to another attention window.

In space it resizes like PyTorch, bicubic with a = -0.75 and half-pixel centres, as the official inflation of image
networks does. It is written in NumPy because TensorFlow's bicubic has a = -0.5.

In time it is linear, and the middle of the table (the bias between tokens of the same time) stays in the middle too.
The official code never resizes in time; the public code that does, for another backbone with such tables, is linear.
Linear is also the cautious choice: along so short an axis a cubic would overshoot, and a bias is added to logits.
"""

import numpy as np

from vswin.errors import InputError
from vswin.models.zoo import Triple

_CUBIC_A = -0.75


def resize_bias_table(table: np.ndarray, old_window: Triple, new_window: Triple) -> np.ndarray:
    """Resizes a bias table, float [(2t-1)*(2h-1)*(2w-1), nH], to another window (t, h, w) in tokens.

    Equal windows give the table itself; the dtype stays.

    Raises:
        InputError: if the table does not have the rows of `old_window`.
    Source: torch.nn.functional.interpolate with mode="bicubic" and "linear", align_corners=False.
    """
    old, new = (tuple(2 * extent - 1 for extent in window) for window in (old_window, new_window))
    rows, num_heads = table.shape
    if rows != np.prod(old):
        raise InputError(f"a bias table of {rows} rows is not that of the window {old_window}, {np.prod(old)} rows")
    if old == new:
        return table
    grid: np.ndarray = table.reshape(*old, num_heads).astype(np.float64)  # [2t-1, 2h-1, 2w-1, nH]
    for axis in range(3):
        weights = _linear(old[0], new[0]) if axis == 0 else _bicubic(old[axis], new[axis])
        grid = np.moveaxis(np.tensordot(weights, grid, axes=(1, axis)), 0, axis)
    return grid.reshape(-1, num_heads).astype(table.dtype)  # [(2t'-1)*(2h'-1)*(2w'-1), nH]


def _linear(num_old: int, num_new: int) -> np.ndarray:
    """Gives the weights [num_new, num_old] of linear interpolation."""
    before, beyond = _source_positions(num_old, num_new)
    return _spread(before, [1 - beyond, beyond], num_old)


def _bicubic(num_old: int, num_new: int) -> np.ndarray:
    """Gives the weights [num_new, num_old] of one axis of bicubic interpolation."""
    before, beyond = _source_positions(num_old, num_new)
    ahead = 1 - beyond
    return _spread(
        before - 1, [_cubic_far(beyond + 1), _cubic_near(beyond), _cubic_near(ahead), _cubic_far(ahead + 1)], num_old
    )


def _source_positions(num_old: int, num_new: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives for each new position the old index before it, and its distance from that index, in [0, 1)."""
    scale = float(np.float32(num_old) / np.float32(num_new))
    centres = _multiply_add(scale, np.arange(num_new) + 0.5, -0.5)
    before = np.floor(centres)
    return before.astype(int), centres - before


def _cubic_near(x: np.ndarray) -> np.ndarray:
    """Gives the cubic kernel at distances of 0 to 1."""
    return _multiply_add(_multiply_add(_CUBIC_A + 2, x, -(_CUBIC_A + 3)) * x, x, 1)


def _cubic_far(x: np.ndarray) -> np.ndarray:
    """Gives the cubic kernel at distances of 1 to 2."""
    return _multiply_add(_multiply_add(_multiply_add(_CUBIC_A, x, -5 * _CUBIC_A), x, 8 * _CUBIC_A), x, -4 * _CUBIC_A)


def _multiply_add(a: np.ndarray | float, b: np.ndarray, c: float) -> np.ndarray:
    """Computes a * b + c in float32 with one rounding, as PyTorch does: the exact weights differ by up to 4e-6."""
    return np.asarray(np.asarray(a, np.float64) * b + c, np.float32)


def _spread(first: np.ndarray, coefficients: list[np.ndarray], num_old: int) -> np.ndarray:
    """Puts coefficients on the old values from index `first` on; indices beyond the ends are clipped."""
    weights = np.zeros((len(first), num_old))
    for offset, coefficient in enumerate(coefficients):
        np.add.at(weights, (np.arange(len(first)), np.clip(first + offset, 0, num_old - 1)), coefficient)
    return weights
