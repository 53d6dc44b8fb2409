"""From a grid of tokens to the pixels and frames that they stand for."""

from __future__ import annotations

import numpy as np

from vswin.errors import InputError
from vswin.zoo import ModelSize, Triple


def find_extents(size: ModelSize, stage: int) -> Triple:
    """Says how much of a clip a token of a stage covers.

    Args:
        size: the network.
        stage: its number, counted from 1 as in the paper.

    Returns:
        Frames, rows and columns: a patch in the first stage, and twice as many rows and columns in each later one.

    Raises:
        InputError: if there is no such stage.
    """
    num_stages = len(size.depths)
    if not 1 <= stage <= num_stages:
        raise InputError(f"stage {stage}: the model has the stages 1 to {num_stages}")
    frames, rows, columns = size.patch_size
    return frames, rows * 2 ** (stage - 1), columns * 2 ** (stage - 1)


def interpolate(grid: np.ndarray, shape: Triple, extents: Triple) -> np.ndarray:
    """Interpolates numbers of tokens to pixels and frames, linearly along each of the three axes.

    The number of a token stands in the middle of what it covers, so that of two frames between them; beyond the
    middle of the first and of the last token it stays the same. A token at the end that covers padding as well is no
    exception: grids are padded at their end, which moves no place.

    Args:
        grid: [..., T', H', W'].
        shape: frames, rows and columns of the clip (T, H, W).
        extents: frames, rows and columns that a token covers.

    Returns:
        float32 [..., T, H, W].
    """
    t, h, w = (_weigh(*axis) for axis in zip(shape, grid.shape[-3:], extents, strict=True))  # [T, T'], ...
    return np.einsum("...abc,ta,hb,wc->...thw", grid, t, h, w, optimize=True).astype(np.float32)


def spread(grid: np.ndarray, shape: Triple, extents: Triple) -> np.ndarray:
    """Gives all pixels that a token covers its number.

    Args:
        grid: [..., T', H', W'].
        shape: frames, rows and columns of the clip (T, H, W).
        extents: frames, rows and columns that a token covers.

    Returns:
        [..., T, H, W].
    """
    for axis, extent in zip((-3, -2, -1), extents, strict=True):
        grid = np.repeat(grid, extent, axis=axis)
    frames, rows, columns = shape
    return grid[..., :frames, :rows, :columns]


def _weigh(num_places: int, num_tokens: int, extent: int) -> np.ndarray:
    """Weighs the tokens of an axis for each frame, row or column: [num_places, num_tokens]."""
    places = (np.arange(num_places) + 0.5) / extent - 0.5
    each = [np.interp(places, np.arange(num_tokens), one) for one in np.eye(num_tokens)]
    return np.stack(each, axis=1)
