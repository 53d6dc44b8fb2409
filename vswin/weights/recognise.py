"""From weights to the network they belong to: which size, which window, how many classes.

Used by the dialects, which check that what they translated is one whole network, and by everything that says what a
file holds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vswin.errors import InputError
from vswin.weights.bias_window import find_window
from vswin.weights.shapes import (
    HEAD,
    PATCHES,
    Difference,
    Shape,
    compare,
    head_shapes,
    official_shapes,
    read_depths,
    walk_backbone,
)
from vswin.zoo import SIZES, ModelSize, Triple


@dataclass(frozen=True)
class Recognised:
    """Describes the network that weights belong to.

    Args:
        embed_dim, depths, num_heads, mlp_ratio, patch_size: as in `ModelSize`; patches of an image network are
            (1, h, w).
        num_classes: classes of the head, None without one.
        window_size: attention window (t, h, w) where the weights decide it, (1, h, w) for an image network.
        window_candidates: windows that explain the rows of the bias tables; several while `window_size` is None.
        size_name: key of `vswin.zoo.SIZES` that this is.
        sizes_but_window: keys of the sizes it is but for the window, and for an image network but for time.
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


def recognise(tensors: Mapping[str, np.ndarray], position_index: np.ndarray | None = None) -> Recognised:
    """Recognises the network that weights belong to, and checks that they are one whole network.

    Args:
        tensors: official name -> values in official layout, with or without a head; 2-D ones for an image network.
        position_index: int [N, N], a `relative_position_index` of the file; it decides the window.

    Returns:
        The network.

    Raises:
        InputError: if tensors are missing, unknown, or of shapes that do not fit together.
    """
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    depths = read_depths(shapes)
    blocks = [f"backbone.layers.{i}.blocks.0" for i in range(len(depths))]
    tables = [_find(shapes, f"{block}.attn.relative_position_bias_table", (2,)) for block in blocks]
    patches = _find(shapes, PATCHES, (4, 5))
    num_classes = _find(shapes, f"{HEAD}.weight", (2,))[0] if f"{HEAD}.weight" in shapes else None
    embed_dim, rows, num_heads = patches[0], tables[0][0], tuple(table[1] for table in tables)
    mlp_ratio = _find(shapes, f"{blocks[0]}.mlp.fc1.weight", (2,))[0] / embed_dim
    wanted = dict(walk_backbone((embed_dim, 3, *patches[2:]), depths, num_heads, rows, mlp_ratio))
    wanted |= head_shapes(embed_dim * 2 ** (len(depths) - 1), num_classes)
    if differences := compare(shapes, wanted):
        raise InputError(f"the weights are no whole network: {_first_five(differences)}")
    is_2d = len(patches) == 4
    t, h, w = (1, *patches[2:])[-3:]
    candidates, window_size = find_window(rows, is_2d, position_index)
    same = _find_sizes((embed_dim, depths, num_heads, mlp_ratio), (h, w) if is_2d else (t, h, w))
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
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        is_2d=is_2d,
    )


def fits(tensors: Mapping[str, np.ndarray], size: ModelSize) -> list[Difference]:
    """Lists where weights differ from a network, in its order; an empty list says that they fit.

    Args:
        tensors: official name -> values in official layout. A head may have any number of classes, or be missing.
        size: the network.

    Returns:
        What differs; `len` of it can be that of the whole network.
    """
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    head = shapes.get(f"{HEAD}.weight")
    return compare(shapes, official_shapes(size, head[0] if head else None))


def _find(shapes: Mapping[str, Shape], name: str, ranks: tuple[int, ...]) -> Shape:
    """Looks up a shape that the network is recognised by."""
    if name not in shapes:
        raise InputError(f"{name} is missing: the network cannot be recognised")
    shape = shapes[name]
    if len(shape) not in ranks or min(shape) < 1:
        wanted = " or ".join(map(str, ranks))
        raise InputError(f"{name} has shape {shape}, not {wanted} axes: the network cannot be recognised")
    return shape


def _find_sizes(network: tuple[object, ...], patch_size: Shape) -> tuple[str, ...]:
    """Names the sizes of the same embed_dim, depths, num_heads, mlp_ratio and patches."""
    return tuple(
        name
        for name, size in SIZES.items()
        if (size.embed_dim, size.depths, size.num_heads, size.mlp_ratio) == network
        and size.patch_size[-len(patch_size) :] == patch_size
    )


def _first_five(differences: list[Difference]) -> str:
    """Says the first five, and how many more there are."""
    more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
    return "; ".join(map(str, differences[:5])) + more
