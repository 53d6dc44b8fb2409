"""Recognises the network that weights belong to: its size, window and number of classes.

The dialects check with it that a translation is one whole network; other modules describe files with it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, Triple, official_shapes
from vswin.weights.names import HEAD_PREFIX, first_five, read_depths

PATCHES = "backbone.patch_embed.proj.weight"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recognised:
    """Describes the network that weights belong to.

    Args:
        embed_dim, depths, num_heads, mlp_ratio, patch_size: as in `ModelSize`; image patches are (1, h, w).
        num_classes: classes of the head, None without one.
        window_size: attention window (t, h, w), (1, h, w) for an image network; None if the weights do not decide it.
        window_candidates: windows that explain the number of rows of the bias tables.
        size_name: matching key of `vswin.models.zoo.SIZES`, if any.
        sizes_but_window: keys of sizes that match except for the window, and for an image network except for time.
        num_parameters: trainable values, head included.
        is_2d: whether it is an image network.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratio: float
    patch_size: Triple
    num_classes: int | None
    window_size: Triple | None
    window_candidates: tuple[Triple, ...]
    size_name: str | None
    sizes_but_window: tuple[str, ...]
    num_parameters: int
    is_2d: bool


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


def recognise(tensors: Mapping[str, np.ndarray], position_index: np.ndarray | None = None) -> Recognised:
    """Recognises the network that weights belong to, and checks that they are one whole network.

    Args:
        tensors: official name -> values in official layout, with or without a head; those of images lack time.
        position_index: int [N, N], a `relative_position_index` of the file, which decides the window.

    Raises:
        InputError: if tensors are missing or unknown, or their shapes do not fit together.
    """
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    depths = read_depths(shapes)
    tables = [
        _find(shapes, f"backbone.layers.{i}.blocks.0.attn.relative_position_bias_table", (2,))
        for i in range(len(depths))
    ]
    patches = _find(shapes, PATCHES, (4, 5))
    num_classes = _find(shapes, f"{HEAD_PREFIX}.weight", (2,))[0] if f"{HEAD_PREFIX}.weight" in shapes else None
    embed_dim, rows, num_heads = patches[0], tables[0][0], tuple(table[1] for table in tables)
    mlp_ratio = _find(shapes, "backbone.layers.0.blocks.0.mlp.fc1.weight", (2,))[0] / embed_dim
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


def fits(tensors: Mapping[str, np.ndarray], size: ModelSize) -> list[Difference]:
    """Lists the differences between weights and a network; the head may have any number of classes, or be missing."""
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    head = shapes.get(f"{HEAD_PREFIX}.weight")
    return compare(shapes, official_shapes(size, head[0] if head else None))


def compare(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[Difference]:
    """Lists the names whose shapes differ: names of the network in its order, then unknown names."""
    names = [*wanted, *(name for name in given if name not in wanted)]
    differences = [Difference(name, given.get(name), wanted.get(name)) for name in names]
    return [difference for difference in differences if difference.given != difference.wanted]


def find_window(rows: int, is_2d: bool, index: np.ndarray | None) -> tuple[tuple[Triple, ...], Triple | None]:
    """Finds the windows that a bias table may belong to: those whose (2t-1)*(2h-1)*(2w-1) is its number of rows.

    Args:
        rows: rows of the table.
        is_2d: whether the network is for images; then t is 1.
        index: int [N, N], the `relative_position_index` that belongs to the table and decides the window.

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


def _find(shapes: Mapping[str, Shape], name: str, ranks: tuple[int, ...]) -> Shape:
    """Looks up a shape that the recognition needs."""
    if name not in shapes:
        raise InputError(f"{name} is missing: the network cannot be recognised")
    shape = shapes[name]
    if len(shape) not in ranks or min(shape) < 1:
        wanted = " or ".join(map(str, ranks))
        raise InputError(f"{name} has shape {shape}, not {wanted} axes: the network cannot be recognised")
    return shape
