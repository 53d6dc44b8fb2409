"""Official names of our variables, and the conversion between the two layouts.

Names are found by following the objects of the model: Keras's own names of variables change with scopes. Used by
`load`, by checkpoints, and by the optimizer to form its parameter groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vswin.errors import InputError
from vswin.models.zoo import ModelSize, official_shapes

if TYPE_CHECKING:
    import tensorflow as tf

    from vswin.models.video_swin import VideoSwin

HEAD_PREFIX = "cls_head.fc_cls"

# Official module name -> our attribute, where they differ.
_OURS = {"layers": "stages", "cls_head": "head", "fc_cls": "linear"}
_VARIABLES = {"weight": ("kernel", "gamma"), "bias": ("bias", "beta")}
# Axes of a kernel: ours [in, out] and [t, h, w, in, out]; official [out, in] and [out, in, t, h, w].
_TO_OFFICIAL = {2: (1, 0), 5: (4, 3, 0, 1, 2)}
_FROM_OFFICIAL = {2: (1, 0), 5: (2, 3, 4, 1, 0)}
_BLOCK = re.compile(r"backbone\.layers\.(\d{1,3})\.blocks\.(\d{1,3})\.")


def official_names(depths: Sequence[int], has_head: bool) -> list[str]:
    """Lists the names of the weights of a network, in the order of the official state dict."""
    smallest = ModelSize(1, tuple(depths), (1,) * len(depths))
    return list(official_shapes(smallest, 1 if has_head else None))


def read_depths(names: Iterable[str]) -> tuple[int, ...]:
    """Reads the number of blocks per stage from official names.

    Raises:
        InputError: if there are no blocks, or a stage has none.
    """
    depths: dict[int, int] = {}
    for match in filter(None, map(_BLOCK.match, names)):
        stage, block = int(match[1]), int(match[2])
        depths[stage] = max(depths.get(stage, 0), block + 1)
    empty = [i for i in range(max(depths, default=0) + 1) if i not in depths]
    if empty:
        raise InputError(f"there are no weights backbone.layers.{empty[0]}.blocks.*: a stage without blocks")
    return tuple(depths[i] for i in range(len(depths)))


def first_five(problems: Sequence[object]) -> str:
    """Writes the first five tensors or differences, and how many more there are."""
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(map(str, problems[:5])) + more


def named_weights(model: VideoSwin) -> dict[str, tf.Variable]:
    """Maps the official name of each weight to our variable, in the order of the official state dict.

    The variables of `model` must exist; each trainable one appears once. Buffers such as `relative_position_index` have
    no variable.
    """
    return {name: _find_variable(model, name) for name in official_names(model.size.depths, has_head=True)}


def _find_variable(model: VideoSwin, name: str) -> tf.Variable:
    """Follows an official name from object to object: `backbone.layers.0` is `model.backbone.stages[0]`."""
    *path, last = name.split(".")
    thing: Any = model
    for part in path:
        thing = thing[int(part)] if part.isdecimal() else getattr(thing, _OURS.get(part, part))
    return next(getattr(thing, key) for key in _VARIABLES.get(last, (last,)) if hasattr(thing, key))


def official_tensors(model: VideoSwin) -> dict[str, np.ndarray]:
    """Copies the weights of a model under official names and in official layout, as checkpoints hold them."""
    return {name: to_official(name, variable.numpy()) for name, variable in named_weights(model).items()}


def to_official(name: str, array: np.ndarray) -> np.ndarray:
    """Converts the weight `name` from our layout to the official one."""
    return _transpose(name, array, _TO_OFFICIAL)


def from_official(name: str, array: np.ndarray) -> np.ndarray:
    """Converts the weight `name` from the official layout to ours."""
    return _transpose(name, array, _FROM_OFFICIAL)


def _transpose(name: str, array: np.ndarray, axes: dict[int, tuple[int, ...]]) -> np.ndarray:
    """Transposes kernels; norms, biases and bias tables have the same layout on both sides."""
    is_kernel = name.endswith(".weight") and array.ndim in axes
    return np.transpose(array, axes[array.ndim]) if is_kernel else array  # [out, in, ...] or [..., in, out]
