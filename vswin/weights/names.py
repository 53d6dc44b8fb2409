"""The weights of a network: their official names and layout, our variables, and which network given weights form.

Variables are found by following the objects of the model: Keras's own names of variables change with scopes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vswin.console import printable
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, Triple, official_shapes

if TYPE_CHECKING:
    import tensorflow as tf

    from vswin.models.video_swin import VideoSwin

HEAD_PREFIX = "cls_head.fc_cls"
PATCHES = "backbone.patch_embed.proj.weight"

# Official module name -> our attribute, where they differ.
_OURS = {"layers": "stages", "cls_head": "head", "fc_cls": "linear"}
_VARIABLES = {"weight": ("kernel", "gamma"), "bias": ("bias", "beta")}
# Axes of a kernel: ours [in, out] and [t, h, w, in, out]; official [out, in] and [out, in, t, h, w].
_TO_OFFICIAL = {2: (1, 0), 5: (4, 3, 0, 1, 2)}
_FROM_OFFICIAL = {2: (1, 0), 5: (2, 3, 4, 1, 0)}
_BLOCK = re.compile(r"backbone\.layers\.(\d{1,3})\.blocks\.(\d{1,3})\.")

Shape = tuple[int, ...]


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


@dataclass(frozen=True)
class Difference:
    """A difference between weights and a network; a shape is None if that side lacks the name."""

    name: str
    given: Shape | None
    wanted: Shape | None

    def __str__(self) -> str:
        """Describes the difference in words."""
        if self.given is None:
            return f"{self.name} {self.wanted} is missing"
        if self.wanted is None:
            return f"{self.name} {self.given} is unknown"
        return f"{self.name} is {self.given} and should be {self.wanted}"


def compare(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[Difference]:
    """Lists the names whose shapes differ: names of the network in its order, then unknown names."""
    names = [*wanted, *(name for name in given if name not in wanted)]
    differences = [Difference(name, given.get(name), wanted.get(name)) for name in names]
    return [difference for difference in differences if difference.given != difference.wanted]


def fits(tensors: Mapping[str, np.ndarray], size: ModelSize) -> list[Difference]:
    """Lists the differences between weights and a network; the head may have any number of classes, or be missing."""
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    head = shapes.get(f"{HEAD_PREFIX}.weight")
    return compare(shapes, official_shapes(size, head[0] if head else None))


def first_five(problems: Sequence[object]) -> str:
    """Writes the first five tensors or differences, and how many more there are."""
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(printable(str(problem)) for problem in problems[:5]) + more


@dataclass(frozen=True)
class Recognised:
    """Describes the network that weights belong to, with fields as in `ModelSize`."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratio: float
    patch_size: Triple  # (1, h, w) for an image network
    num_classes: int | None  # None without a head
    window_size: Triple | None  # (1, h, w) for an image network; None if the weights do not decide it
    window_candidates: tuple[Triple, ...]  # windows that explain the number of rows of the bias tables
    size_name: str | None  # matching key of `SIZES`, if any
    sizes_but_window: tuple[str, ...]  # keys that match but for the window, and for an image network but for time
    num_parameters: int  # trainable values, head included
    is_2d: bool  # whether it is an image network


def recognise(tensors: Mapping[str, np.ndarray], position_index: np.ndarray | None = None) -> Recognised:
    """Recognises the network that weights belong to, and checks that they are one whole network.

    Weights have official names and layout, with or without a head; those of images lack time. A
    `relative_position_index` of the file, int [N, N], decides the window.

    Raises:
        InputError: if tensors are missing or unknown, or their shapes do not fit together.
    """
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    depths = read_depths(shapes)
    first_blocks = [f"backbone.layers.{i}.blocks.0" for i in range(len(depths))]
    tables = [_find(shapes, f"{block}.attn.relative_position_bias_table", (2,)) for block in first_blocks]
    patches = _find(shapes, PATCHES, (4, 5))
    num_classes = _find(shapes, f"{HEAD_PREFIX}.weight", (2,))[0] if f"{HEAD_PREFIX}.weight" in shapes else None
    embed_dim, rows, num_heads = patches[0], tables[0][0], tuple(table[1] for table in tables)
    mlp_ratio = _find(shapes, f"{first_blocks[0]}.mlp.fc1.weight", (2,))[0] / embed_dim
    is_2d = len(patches) == 4
    t, h, w = (1, *patches[2:])[-3:]
    # A window of one row and column stands for every window whose bias table has as many rows.
    size = ModelSize(embed_dim, depths, num_heads, ((rows + 1) // 2, 1, 1), (t, h, w), mlp_ratio)
    wanted = official_shapes(size, num_classes)
    if is_2d:
        wanted[PATCHES] = (embed_dim, 3, h, w)
    if differences := compare(shapes, wanted):
        raise InputError(f"the weights are no whole network: {first_five(differences)}")
    candidates, window_size = find_window(rows, is_2d, position_index)
    same = tuple(
        name
        for name, known in SIZES.items()
        if (known.embed_dim, known.depths, known.num_heads, known.mlp_ratio)
        == (embed_dim, depths, num_heads, mlp_ratio)
        and (is_2d or known.patch_size[0] == t)
        and known.patch_size[1:] == (h, w)
    )
    return Recognised(
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        patch_size=(t, h, w),
        num_classes=num_classes,
        window_size=window_size,
        window_candidates=candidates,
        size_name=next((name for name in same if SIZES[name].window_size == window_size), None),
        sizes_but_window=same,
        num_parameters=sum(map(math.prod, shapes.values())),
        is_2d=is_2d,
    )


def _find(shapes: Mapping[str, Shape], name: str, ranks: tuple[int, ...]) -> Shape:
    """Looks up a shape that the recognition needs."""
    if name not in shapes:
        raise InputError(f"{name} is missing: the network cannot be recognised")
    shape = shapes[name]
    if len(shape) not in ranks or min(shape) < 1:
        wanted = " or ".join(map(str, ranks))
        raise InputError(f"{name} has shape {shape}, not {wanted} axes: the network cannot be recognised")
    return shape


def find_window(rows: int, is_2d: bool, index: np.ndarray | None) -> tuple[tuple[Triple, ...], Triple | None]:
    """Finds the windows that a bias table may belong to: those whose (2t-1)*(2h-1)*(2w-1) is its number of rows.

    For images, t is 1. The `relative_position_index` that belongs to the table, int [N, N], decides the window.

    Returns:
        All windows (t, h, w) that fit (without an index only those with h == w > 1); and the right one, None if neither
        the index decides it nor exactly one of them belongs to a known size.
    """
    windows: list[Triple] = []
    if index is not None and index.ndim == 2:
        windows = [window for window in _windows_of(len(index), rows, is_2d) if _has_first_row(index, window)]
    if windows:
        return tuple(windows), windows[0] if len(windows) == 1 else None
    for side in range(2, (math.isqrt(rows) + 1) // 2 + 1):
        times, rest = divmod(rows, (2 * side - 1) ** 2)
        if rest == 0 and times % 2 and not (is_2d and times > 1):
            windows.append(((times + 1) // 2, side, side))
    known = {size.window_size for size in SIZES.values()}
    decided = windows if is_2d else [window for window in windows if window in known]
    return tuple(windows), decided[0] if len(decided) == 1 else None


def _windows_of(num_tokens: int, rows: int, is_2d: bool) -> Iterator[Triple]:
    """Yields the windows of `num_tokens` tokens whose bias tables have `rows` rows."""
    divisors = [n for n in range(1, num_tokens + 1) if num_tokens % n == 0]
    for t, h in itertools.product((1,) if is_2d else divisors, divisors):
        w = num_tokens // (t * h)
        if t * h * w == num_tokens and (2 * t - 1) * (2 * h - 1) * (2 * w - 1) == rows:
            yield (t, h, w)


def _has_first_row(index: np.ndarray, window: Triple) -> bool:
    """Says whether the first row of a position index belongs to this window."""
    t, h, w = window
    rows = np.arange(t)[:, None] * (2 * h - 1) + np.arange(h)  # [t, h]
    distance = (rows[:, :, None] * (2 * w - 1) + np.arange(w)).reshape(-1)  # [N]
    return np.array_equal(index[0], index[0, 0] - distance) and index[0, 0] == distance[-1]
