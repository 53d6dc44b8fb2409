"""Names and shapes of the weights of a network, in the official layout, without building it."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vswin.errors import InputError
from vswin.zoo import ModelSize

PATCHES = "backbone.patch_embed.proj.weight"
HEAD = "cls_head.fc_cls"

Shape = tuple[int, ...]

_BLOCK = re.compile(r"backbone\.layers\.(\d{1,3})\.blocks\.(\d{1,3})\.")


@dataclass(frozen=True)
class Difference:
    """Says where weights and a network part; a shape is None where one of them lacks the name."""

    name: str
    given: Shape | None
    wanted: Shape | None

    def __str__(self) -> str:
        """Says it in words."""
        if self.given is None:
            return f"{self.name} {self.wanted} is missing"
        if self.wanted is None:
            return f"{self.name} {self.given} is unknown"
        return f"{self.name} is {self.given} and should be {self.wanted}"


def official_shapes(size: ModelSize, num_classes: int | None) -> dict[str, Shape]:
    """Lists the weights of a network and their shapes, without building it.

    Args:
        size: the network.
        num_classes: classes of the head, None for the backbone alone.

    Returns:
        Official name -> shape in official layout, in the order of the official state dict.
    """
    rows = math.prod(2 * extent - 1 for extent in size.window_size)
    patches = (size.embed_dim, 3, *size.patch_size)
    shapes = dict(walk_backbone(patches, size.depths, size.num_heads, rows, size.mlp_ratio))
    return shapes | head_shapes(size.num_features, num_classes)


def official_names(depths: Sequence[int], has_head: bool) -> list[str]:
    """Lists the names of the weights of a network, in the order of the official state dict."""
    backbone = dict(walk_backbone((1,), depths, depths, 1, 1.0))
    return [*backbone, *head_shapes(1, 1 if has_head else None)]


def read_depths(names: Iterable[str]) -> tuple[int, ...]:
    """Reads from official names how many blocks each stage has.

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


def walk_backbone(
    patches: Shape, depths: Sequence[int], num_heads: Sequence[int], rows: int, mlp_ratio: float
) -> Iterator[tuple[str, Shape]]:
    """Yields names and shapes of a backbone; `patches` is the shape of its first kernel, `rows` of its bias tables."""
    dim = patches[0]
    yield PATCHES, patches
    yield "backbone.patch_embed.proj.bias", (dim,)
    yield from _norm("backbone.patch_embed.norm", dim)
    for i, depth in enumerate(depths):
        for j in range(depth):
            block = f"backbone.layers.{i}.blocks.{j}"
            yield from _norm(f"{block}.norm1", dim)
            yield f"{block}.attn.relative_position_bias_table", (rows, num_heads[i])
            yield from _linear(f"{block}.attn.qkv", dim, 3 * dim)
            yield from _linear(f"{block}.attn.proj", dim, dim)
            yield from _norm(f"{block}.norm2", dim)
            yield from _linear(f"{block}.mlp.fc1", dim, int(dim * mlp_ratio))
            yield from _linear(f"{block}.mlp.fc2", int(dim * mlp_ratio), dim)
        if i < len(depths) - 1:
            yield f"backbone.layers.{i}.downsample.reduction.weight", (2 * dim, 4 * dim)
            yield from _norm(f"backbone.layers.{i}.downsample.norm", 4 * dim)
            dim *= 2
    yield from _norm("backbone.norm", dim)


def head_shapes(num_features: int, num_classes: int | None) -> dict[str, Shape]:
    """Lists names and shapes of a head, none for num_classes=None."""
    return {} if num_classes is None else dict(_linear(HEAD, num_features, num_classes))


def _norm(prefix: str, dim: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", (dim,)
    yield f"{prefix}.bias", (dim,)


def _linear(prefix: str, num_in: int, num_out: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", (num_out, num_in)
    yield f"{prefix}.bias", (num_out,)


def compare(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[Difference]:
    """Lists the names whose shapes differ, those of the network in its order and then the unknown ones."""
    names = [*wanted, *(name for name in given if name not in wanted)]
    differences = [Difference(name, given.get(name), wanted.get(name)) for name in names]
    return [difference for difference in differences if difference.given != difference.wanted]
