"""Inflates the weights of an image network, so that a video network can start from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vswin.errors import InputError
from vswin.models.zoo import Triple
from vswin.weights.recognise import PATCHES
from vswin.weights.resize_bias import resize_bias_table

_TABLE_SUFFIX = "relative_position_bias_table"


@dataclass(frozen=True)
class Inflated:
    """Weights of a video backbone under official names, and the names of bias tables that were resized in space."""

    tensors: dict[str, np.ndarray]
    resized: tuple[str, ...]


def inflate(tensors: Mapping[str, np.ndarray], patch_size: Triple, window_size: Triple) -> Inflated:
    """Makes the weights of a video backbone, without a head, from the weights of an image network.

    The patch embedding is repeated in time and divided by the number of repetitions, so that a still clip is embedded
    like the image. Bias tables are repeated for every distance in time and not divided. All other weights stay.

    Args:
        tensors: official name -> values.
        patch_size: (t, h, w) of the video network, in pixels.
        window_size: (t, h, w) of the video network, in tokens.

    Raises:
        InputError: if the weights belong to a video network, or have another patch size.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, inflate_weights.
    """
    if PATCHES not in tensors:
        raise InputError(f"{PATCHES} is missing: these are no weights of an image Swin Transformer")
    shape = tensors[PATCHES].shape
    if len(shape) != 4:
        raise InputError(
            f"{PATCHES} has shape {shape}: the weights are those of a video network, which is not inflated; give the "
            "file of an image network (4 axes), or load this one as it is"
        )
    if shape[2:] != patch_size[1:]:
        raise InputError(
            f"the image network has patches of {shape[2:]} pixels, the video network of {patch_size[1:]}; give "
            f"patch_size=({patch_size[0]}, {shape[2]}, {shape[3]}) or another file"
        )
    inflated, resized = dict(tensors), []
    frames = patch_size[0]
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
    return Inflated(inflated, tuple(resized))
