"""The sizes of the model, what they cost, and the table of published models.

Nothing here needs TensorFlow: `vswin models`, the configuration checks and `--help` read this module too.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vswin.errors import InputError, nearest

if TYPE_CHECKING:
    from vswin.config import ModelConfig

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ModelSize:
    """Describes one network; every triple is (t, h, w).

    Args:
        embed_dim: channels C after the patch embedding; each stage but the first doubles them.
        depths: blocks per stage.
        num_heads: attention heads per stage; each divides the channels of its stage.
        window_size: attention window in tokens.
        patch_size: voxels per token.
        mlp_ratio: hidden channels of the MLP as a multiple of its channels.
        drop_path_rate: rate of the last block; it rises linearly from 0 over all blocks. In [0, 1).
        init_std: standard deviation of the initial kernels. The official 0.02 suits 100 channels and more: with
            24 it makes the branches so faint that training stays at chance for epochs.

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

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "ModelSize":
        """Builds a size from its fields as JSON gives them back, with lists for tuples."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list | tuple) else value for key, value in fields.items()
        }
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


@dataclass(frozen=True)
class Source:
    """Says where one copy of published weights is.

    Args:
        name: who offers it, e.g. `official` or `torchvision`.
        address: URL of a file, or handle of a TF-Hub model.
        dialect: how names and layout differ from the official ones.
        sha256_prefix: first digits of the file's hash where its owner gives them, else empty.
        has_head: whether the classifier comes with the backbone.
        top1, top5: percent, where the owner reports other values than the official ones.
        note: what is special about this copy.
    """

    name: str
    address: str
    dialect: str
    sha256_prefix: str = ""
    has_head: bool = True
    top1: float | None = None
    top5: float | None = None
    note: str = ""


@dataclass(frozen=True)
class HubPage:
    """Holds what the page of the TF-Hub collection says of a model; accuracies in percent."""

    name: str
    pretrained_on: str
    top1: float
    top5: float


@dataclass(frozen=True)
class PublishedModel:
    """Holds one row of the published table.

    Args:
        name: name in the literature.
        size: key of `SIZES`.
        num_classes: classes of the head.
        dataset: what the model was trained on, and the accuracies were measured on.
        pretrained_on: what its initial weights were trained on.
        top1, top5: official accuracies in percent.
        test_views: clips x crops per video behind those accuracies.
        parameters: trainable values, head included.
        hub_page: what the TF-Hub page says.
        sources: where its weights are, the official copy first.
    """

    name: str
    size: str
    num_classes: int
    dataset: str
    pretrained_on: str
    top1: float
    top5: float
    test_views: str
    parameters: int
    hub_page: HubPage
    sources: tuple[Source, ...]


def find_size(name: str) -> ModelSize:
    """Looks up a model size.

    Raises:
        InputError: if there is none of that name; names the nearest and all.
    """
    if name not in SIZES:
        raise InputError(f"no model size is called {name!r}: {nearest(name, list(SIZES))}")
    return SIZES[name]


def configured_size(model: "ModelConfig") -> ModelSize:
    """Applies the fields that a configuration sets to the size it names.

    Args:
        model: configuration of the model; a field that is None stays as in `SIZES`.

    Returns:
        The size to build.

    Raises:
        InputError: if there is no size of that name, or the numbers do not describe a network.
    """
    configured = {key: value for key, value in dataclasses.asdict(model).items() if value is not None}
    fields = dataclasses.asdict(find_size(model.name))
    return ModelSize.from_fields(fields | {key: configured[key] for key in fields if key in configured})


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """Reads the published table: name, accuracy, protocol, parameters, where the weights are."""
    text = Path(__file__).with_name("published.json").read_text(encoding="utf-8")
    return tuple(_read_model(name, row) for name, row in json.loads(text)["published"].items())


def find_published(name: str) -> PublishedModel:
    """Looks up a published model by its name in the literature or on the TF-Hub page.

    Raises:
        InputError: if there is none of that name; names the nearest and all.
    """
    models = {model.hub_page.name: model for model in published_models()}
    models |= {model.name: model for model in published_models()}
    if name not in models:
        raise InputError(f"no published model is called {name!r}: {nearest(name, list(models))}")
    return models[name]


def count_parameters(size: ModelSize, num_classes: int) -> int:
    """Counts the trainable values of a model, head included, without building it."""
    total = size.embed_dim * (3 * math.prod(size.patch_size) + 3)
    table = math.prod(2 * extent - 1 for extent in size.window_size)
    for dim, depth, heads in zip(size.stage_dims, size.depths, size.num_heads, strict=True):
        hidden = int(dim * size.mlp_ratio)
        total += depth * (4 * dim**2 + 9 * dim + table * heads + 2 * dim * hidden + hidden)
    total += sum(8 * dim**2 + 8 * dim for dim in size.stage_dims[:-1])
    return total + 2 * size.num_features + (size.num_features + 1) * num_classes


def count_macs(size: ModelSize, num_frames: int, height: int, width: int) -> int:
    """Counts the multiply-adds of the backbone on one clip, tokens that only pad a window included.

    The matrix products alone, as in the tables of the literature ("FLOPs"): 32 x 224 x 224 gives 88 G for
    `swin_tiny`.
    """
    grid = [_ceil(n, p) for n, p in zip((num_frames, height, width), size.patch_size, strict=True)]
    macs = math.prod(grid) * size.embed_dim * 3 * math.prod(size.patch_size)
    for stage, (dim, depth) in enumerate(zip(size.stage_dims, size.depths, strict=True)):
        if stage > 0:
            grid = [grid[0], _ceil(grid[1], 2), _ceil(grid[2], 2)]
            macs += math.prod(grid) * 2 * dim * dim
        window = [min(extent, full) for extent, full in zip(grid, size.window_size, strict=True)]
        padded = math.prod(_ceil(extent, w) * w for extent, w in zip(grid, window, strict=True))
        attention = padded * (4 * dim**2 + 2 * dim * math.prod(window))
        macs += depth * (attention + math.prod(grid) * 2 * dim * int(dim * size.mlp_ratio))
    return macs


def _read_model(name: str, row: Mapping[str, Any]) -> PublishedModel:
    """Types one row of published.json."""
    page = row["hub_page"]
    return PublishedModel(
        name=name,
        **{key: row[key] for key in ("size", "num_classes", "dataset", "pretrained_on", "top1", "top5")},
        test_views=row["test_views"],
        parameters=count_parameters(SIZES[row["size"]], row["num_classes"]),
        hub_page=HubPage(page.get("name", name), page["pretrain"], page["top1"], page["top5"]),
        sources=tuple(_read_source(key, source) for key, source in row["sources"].items()),
    )


def _read_source(name: str, source: Mapping[str, Any]) -> Source:
    """Types one source: a file has a `url`, a TF-Hub model a `handle`."""
    rest = {key: value for key, value in source.items() if key not in ("url", "handle", "head")}
    address = source["url"] if "url" in source else source["handle"]
    return Source(name=name, address=address, has_head=source.get("head", True), **rest)


def _ceil(extent: int, part: int) -> int:
    return -(-extent // part)
