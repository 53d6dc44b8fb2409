"""The sizes of the model, the shapes of their weights, and their cost.

Nothing here needs TensorFlow: `vswin models`, the configuration checks and `--help` read this module too.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from vswin.errors import InputError, nearest

if TYPE_CHECKING:
    from vswin.config.schema import ModelConfig

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ModelSize:
    """Describes one network; every triple is (t, h, w).

    Args:
        embed_dim: channels C after the patch embedding; each later stage doubles them.
        depths: blocks per stage.
        num_heads: attention heads per stage; each divides the channels of its stage.
        window_size: attention window in tokens.
        patch_size: voxels per token.
        mlp_ratio: hidden channels of the MLP as a multiple of its channels.
        drop_path_rate: rate of the last block; it rises linearly from 0 over all blocks. In [0, 1).
        init_std: standard deviation of the initial kernels. The official 0.02 suits 100 channels and more: with
            24 the branches are so weak that training stays at chance for epochs.

    Raises:
        InputError: if the numbers do not describe a network.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: Triple = (8, 7, 7)
    patch_size: Triple = (2, 4, 4)
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.1
    init_std: float = 0.02

    def __post_init__(self) -> None:
        """Refuses numbers that do not fit together."""
        if len(self.depths) != len(self.num_heads) or not self.depths:
            raise InputError(f"depths={self.depths} and num_heads={self.num_heads} need one entry per stage")
        for dim, heads in zip(self.stage_dims, self.num_heads, strict=True):
            if heads < 1 or dim < 1 or dim % heads:
                raise InputError(
                    f"embed_dim={self.embed_dim}, num_heads={self.num_heads}: {heads} heads do not divide "
                    f"the {dim} channels of their stage"
                )
        for key, triple in (("window_size", self.window_size), ("patch_size", self.patch_size)):
            if len(triple) != 3 or min(triple) < 1:
                raise InputError(f"{key}={triple} must be three positive numbers (t, h, w)")
        if min(self.depths) < 1 or self.mlp_ratio <= 0:
            raise InputError(f"depths={self.depths} and mlp_ratio={self.mlp_ratio} must be positive")
        if not 0 <= self.drop_path_rate < 1:
            raise InputError(f"drop_path_rate={self.drop_path_rate} must be in [0, 1)")
        if not 0 < self.init_std < 10:
            raise InputError(f"init_std={self.init_std} must be in (0, 10)")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "ModelSize":
        """Builds a size from its fields as read from JSON, with lists for tuples."""
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
        return cls(**values)

    @property
    def num_blocks(self) -> int:
        """Counts the blocks of all stages."""
        return sum(self.depths)

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Lists the channels of each stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    @property
    def num_features(self) -> int:
        """Gives the channels of the last stage, 8C for four stages."""
        return self.stage_dims[-1]


SIZES: dict[str, ModelSize] = {
    "swin_micro": ModelSize(24, (1, 2, 2, 1), (1, 2, 4, 8), window_size=(4, 4, 4), drop_path_rate=0.0, init_std=0.1),
    "swin_tiny": ModelSize(96, (2, 2, 6, 2), (3, 6, 12, 24), drop_path_rate=0.1),
    "swin_small": ModelSize(96, (2, 2, 18, 2), (3, 6, 12, 24), drop_path_rate=0.1),
    "swin_base": ModelSize(128, (2, 2, 18, 2), (4, 8, 16, 32), drop_path_rate=0.2),
    "swin_base_w16": ModelSize(128, (2, 2, 18, 2), (4, 8, 16, 32), window_size=(16, 7, 7), drop_path_rate=0.4),
    "swin_large": ModelSize(192, (2, 2, 18, 2), (6, 12, 24, 48), drop_path_rate=0.2),
}


def find_size(name: str) -> ModelSize:
    """Looks up a model size.

    Raises:
        InputError: if no size has that name; the message names the nearest ones and all.
    """
    if name not in SIZES:
        raise InputError(f"no model size is called {name!r}: {nearest(name, list(SIZES))}")
    return SIZES[name]


def configured_size(model: "ModelConfig") -> ModelSize:
    """Applies the fields of a configuration to the size it names; a field that is None keeps its value in `SIZES`.

    Raises:
        InputError: if no size has that name, or the numbers do not describe a network.
    """
    configured = {key: value for key, value in dataclasses.asdict(model).items() if value is not None}
    fields = dataclasses.asdict(find_size(model.name))
    return ModelSize.from_fields(fields | {key: configured[key] for key in fields if key in configured})


def official_shapes(size: ModelSize, num_classes: int | None) -> dict[str, tuple[int, ...]]:
    """Lists the weights of a network without building it; names, counts, orders and checks follow from this list.

    Returns:
        Official name -> shape in official layout (Linear [out, in], Conv3d [out, in, t, h, w]), in the order of the
        official state dict, which the TF-Hub collection shares; no head for num_classes=None.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, names of its modules.
    """
    table = math.prod(2 * extent - 1 for extent in size.window_size)
    shapes = _weight_and_bias("backbone.patch_embed.proj", size.embed_dim, 3, *size.patch_size)
    shapes |= _weight_and_bias("backbone.patch_embed.norm", size.embed_dim)
    for i, (dim, depth, heads) in enumerate(zip(size.stage_dims, size.depths, size.num_heads, strict=True)):
        hidden = int(dim * size.mlp_ratio)
        for j in range(depth):
            block = f"backbone.layers.{i}.blocks.{j}"
            shapes |= _weight_and_bias(f"{block}.norm1", dim)
            shapes[f"{block}.attn.relative_position_bias_table"] = (table, heads)
            shapes |= _weight_and_bias(f"{block}.attn.qkv", 3 * dim, dim)
            shapes |= _weight_and_bias(f"{block}.attn.proj", dim, dim)
            shapes |= _weight_and_bias(f"{block}.norm2", dim)
            shapes |= _weight_and_bias(f"{block}.mlp.fc1", hidden, dim)
            shapes |= _weight_and_bias(f"{block}.mlp.fc2", dim, hidden)
        if i < len(size.depths) - 1:
            shapes[f"backbone.layers.{i}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
            shapes |= _weight_and_bias(f"backbone.layers.{i}.downsample.norm", 4 * dim)
    shapes |= _weight_and_bias("backbone.norm", size.num_features)
    if num_classes is not None:
        shapes |= _weight_and_bias("cls_head.fc_cls", num_classes, size.num_features)
    return shapes


def _weight_and_bias(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def count_parameters(size: ModelSize, num_classes: int) -> int:
    """Counts the trainable values of a model, head included, without building it."""
    return sum(map(math.prod, official_shapes(size, num_classes).values()))


class StageGrid(NamedTuple):
    """Holds the token grid of a stage."""

    grid: Triple
    window: int  # tokens N of a window after shrinking to the grid
    padded: int  # tokens including the padding of the last windows


def stage_grids(size: ModelSize, clip_shape: Triple) -> list[StageGrid]:
    """Computes the token grid of each stage for a clip of (frames, rows, columns)."""
    t, h, w = (_ceil(n, p) for n, p in zip(clip_shape, size.patch_size, strict=True))
    stages = []
    for _ in size.depths:
        window = [min(extent, full) for extent, full in zip((t, h, w), size.window_size, strict=True)]
        padded = math.prod(_ceil(extent, part) * part for extent, part in zip((t, h, w), window, strict=True))
        stages.append(StageGrid((t, h, w), math.prod(window), padded))
        h, w = _ceil(h, 2), _ceil(w, 2)
    return stages


def count_macs(size: ModelSize, num_frames: int, height: int, width: int) -> int:
    """Counts the multiply-adds of the backbone on one clip, including tokens that only pad a window.

    Only matrix products count, as in the tables of the literature ("FLOPs"): 32 x 224 x 224 gives 88 G for `swin_tiny`.
    """
    stages = stage_grids(size, (num_frames, height, width))
    macs = math.prod(stages[0].grid) * size.embed_dim * 3 * math.prod(size.patch_size)
    for i, (stage, dim, depth) in enumerate(zip(stages, size.stage_dims, size.depths, strict=True)):
        tokens = math.prod(stage.grid)
        if i > 0:
            macs += tokens * 2 * dim * dim
        attention = stage.padded * (4 * dim**2 + 2 * dim * stage.window)
        macs += depth * (attention + tokens * 2 * dim * int(dim * size.mlp_ratio))
    return macs


def _ceil(extent: int, part: int) -> int:
    return -(-extent // part)
