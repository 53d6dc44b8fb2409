"""Fits weights to another network: inflates those of an image network, and resizes bias tables to another window."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vswin.errors import InputError
from vswin.models.zoo import ModelSize, Triple
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.names import PATCHES, Difference, first_five, fits

_TABLE_SUFFIX = "relative_position_bias_table"
_CUBIC_A = -0.75


@dataclass(frozen=True)
class Adapted:
    """Weights that fit a network except for its head, names of inflated or resized weights, and the reason."""

    tensors: dict[str, np.ndarray]
    inflated: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    note: str = ""


def adapt(checkpoint: Checkpoint, size: ModelSize, resize_bias: bool) -> Adapted:
    """Fits weights to a network; the head, if there is one, stays as in the checkpoint.

    With `resize_bias`, bias tables of a video network with another window may be resized. The tables of an image
    network always may, as in the official inflation.

    Raises:
        InputError: if the weights have another network, or another window and `resize_bias` is false.
    """
    given = checkpoint.tensors
    if checkpoint.network.is_2d:
        tensors, resized = inflate(given, size.patch_size, size.window_size)
        if differences := fits(tensors, size):
            raise InputError(f"the image network is another one: {_explain(differences, checkpoint)}")
        inflated = tuple(name for name, tensor in tensors.items() if tensor.shape != given[name].shape)
        note = f", {len(resized)} bias tables resized" if resized else ""
        return Adapted(tensors, inflated, resized, f"from an image network{note}")

    differences = fits(given, size)
    if not all(difference.name.endswith(_TABLE_SUFFIX) for difference in differences):
        raise InputError(f"the weights are of another network: {_explain(differences, checkpoint)}")
    if not differences and checkpoint.window in (None, size.window_size):
        return Adapted(given)
    old, new = checkpoint.window or checkpoint.network.window_size, size.window_size
    if old is None:
        candidates = ", ".join(map(str, checkpoint.network.window_candidates))
        raise InputError(f"the weights are of another window, and do not say which: it may be {candidates}")
    if not resize_bias:
        raise InputError(
            f"the weights are of the window {_dense(old)}, the model has {_dense(new)}: give "
            f"model.window_size={_dense(old)}, or model.resize_bias=true to interpolate the bias tables"
        )
    tables = {name: resize_bias_table(table, old, new) for name, table in given.items() if name.endswith(_TABLE_SUFFIX)}
    return Adapted(given | tables, resized=tuple(tables), note=f"window {_dense(old)} to {_dense(new)}")


def _explain(differences: Sequence[Difference], checkpoint: Checkpoint) -> str:
    """Names the first differences, the network that the weights fit, and how to ask for it."""
    network = checkpoint.network
    windows = " or ".join(map(_dense, network.window_candidates))
    if network.size_name:
        asked = f"model={network.size_name}"
    elif network.sizes_but_window:
        asked = f"model={network.sizes_but_window[0]} with model.window_size={windows}"
    else:
        asked = (
            f"model.embed_dim={network.embed_dim} model.depths={_dense(network.depths)} "
            f"model.num_heads={_dense(network.num_heads)} model.window_size={windows}"
        )
    return f"{first_five(differences)}. They fit {asked}"


def _dense(extents: tuple[int, ...]) -> str:
    """Writes extents as the command line expects them, without spaces."""
    return "[" + ",".join(map(str, extents)) + "]"


def inflate(
    tensors: Mapping[str, np.ndarray], patch_size: Triple, window_size: Triple
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Makes the weights of a video backbone, without a head, from the weights of an image network.

    The patch embedding is repeated in time and divided by the number of repetitions, so that a still clip is embedded
    like the image. Bias tables are repeated for every distance in time and not divided. All other weights stay.
    `patch_size` and `window_size` are (t, h, w) of the video network.

    Returns:
        The weights, and the names of bias tables that were resized in space.

    Raises:
        InputError: if the image network has another patch size.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, inflate_weights.
    """
    inflated, resized = dict(tensors), []
    frames, *pixels = patch_size
    if list(tensors[PATCHES].shape[2:]) != pixels:
        height, width = tensors[PATCHES].shape[2:]
        raise InputError(
            f"the image network has patches of {(height, width)} pixels, the video network of {tuple(pixels)}; give "
            f"patch_size=({frames}, {height}, {width}) or another file"
        )
    inflated[PATCHES] = np.repeat(tensors[PATCHES][:, :, None], frames, axis=2) / frames  # [C, 3, t, h, w]
    for name, table in tensors.items():
        if not name.endswith(_TABLE_SUFFIX):
            continue
        side = (math.isqrt(len(table)) + 1) // 2
        if (2 * side - 1) ** 2 != len(table):
            raise InputError(f"{name} has {len(table)} rows, which no square window of an image network has")
        spatial = resize_bias_table(table, (1, side, side), (1, *window_size[1:]))  # [(2h-1)*(2w-1), nH]
        if len(spatial) != len(table):
            resized.append(name)
        inflated[name] = np.tile(spatial, (2 * window_size[0] - 1, 1))  # [(2t-1)*(2h-1)*(2w-1), nH]
    return inflated, tuple(resized)


def resize_bias_table(table: np.ndarray, old_window: Triple, new_window: Triple) -> np.ndarray:
    """Resizes a bias table, float [(2t-1)*(2h-1)*(2w-1), nH], to another window (t, h, w) in tokens.

    In space it resizes like PyTorch, bicubic with a = -0.75 and half-pixel centres, as the official inflation of image
    networks does; TensorFlow's bicubic has a = -0.5. In time, where the official code never resizes, it is linear: a
    cubic would overshoot along so short an axis, and a bias is added to logits. The middle of the table, the bias
    between tokens of the same time, stays in the middle. Equal windows give the table itself; the dtype stays.

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
        weights = _interpolation(old[axis], new[axis], is_cubic=axis > 0)
        grid = np.moveaxis(np.tensordot(weights, grid, axes=(1, axis)), 0, axis)
    return grid.reshape(-1, num_heads).astype(table.dtype)  # [(2t'-1)*(2h'-1)*(2w'-1), nH]


def _interpolation(num_old: int, num_new: int, is_cubic: bool) -> np.ndarray:
    """Gives the weights [num_new, num_old] of cubic or linear interpolation along one axis."""
    scale = float(np.float32(num_old) / np.float32(num_new))
    centres = _multiply_add(scale, np.arange(num_new) + 0.5, -0.5)
    first = np.floor(centres)
    beyond = centres - first  # the distance from the old value before the centre, in [0, 1)
    ahead = 1 - beyond
    coefficients = [ahead, beyond]
    if is_cubic:
        first = first - 1
        coefficients = [_cubic_far(beyond + 1), _cubic_near(beyond), _cubic_near(ahead), _cubic_far(ahead + 1)]
    weights = np.zeros((num_new, num_old))
    for offset, coefficient in enumerate(coefficients):
        column = np.clip(first.astype(int) + offset, 0, num_old - 1)
        np.add.at(weights, (np.arange(num_new), column), coefficient)
    return weights


def _cubic_near(x: np.ndarray) -> np.ndarray:
    """Gives the cubic kernel at distances of 0 to 1."""
    return _multiply_add(_multiply_add(_CUBIC_A + 2, x, -(_CUBIC_A + 3)) * x, x, 1)


def _cubic_far(x: np.ndarray) -> np.ndarray:
    """Gives the cubic kernel at distances of 1 to 2."""
    return _multiply_add(_multiply_add(_multiply_add(_CUBIC_A, x, -5 * _CUBIC_A), x, 8 * _CUBIC_A), x, -4 * _CUBIC_A)


def _multiply_add(a: np.ndarray | float, b: np.ndarray, c: float) -> np.ndarray:
    """Computes a * b + c in float32 with one rounding, as PyTorch does: the exact weights differ by up to 4e-6."""
    return np.asarray(np.asarray(a, np.float64) * b + c, np.float32)
