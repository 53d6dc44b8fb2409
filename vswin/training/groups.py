"""Parameter groups: which weights are trained, with which learning rate and which weight decay."""

import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import NamedTuple

import tensorflow as tf
from rich.console import Console
from rich.table import Table

from vswin.config.schema import OptimizerConfig
from vswin.errors import InputError, nearest
from vswin.models.draws import Draws
from vswin.weights.names import HEAD_PREFIX, read_depths

_LAYER = re.compile(r"backbone\.layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.")
_BLOCK = re.compile(r"backbone\.layers\.\d+\.blocks\.\d+\.")


class ParameterGroup(NamedTuple):
    """How the optimizer treats a set of weights."""

    name: str
    learning_rate_multiplier: float
    weight_decay: float


def find_group(name: str, config: OptimizerConfig) -> ParameterGroup:
    """Finds the group of a weight, given by official name, with the rule `optimizer.groups`.

    Source: official: Video-Swin-Transformer configs/recognition/swin, paramwise_cfg, as mmcv applies it: only the
        longest matching key counts, so layer norms of the backbone do decay. mmaction2: mmaction2 1.x
        engine/optimizers/swin_optim_wrapper_constructor.py, whose Swin-T reaches the same accuracy: all matching keys
        multiply, so layer norms do not decay and bias tables learn at the backbone's rate.
    """
    decay, backbone = config.weight_decay, config.backbone_multiplier
    is_bias_table = name.endswith("relative_position_bias_table")
    if not name.startswith("backbone."):
        return ParameterGroup("head", 1.0, decay)
    if config.groups == "official" and is_bias_table:
        return ParameterGroup("bias tables", 1.0, 0.0)
    if config.groups == "mmaction2" and is_bias_table:
        return ParameterGroup("bias tables", backbone, 0.0)
    if config.groups == "mmaction2" and "norm" in name:
        return ParameterGroup("layer norms", backbone, 0.0)
    return ParameterGroup("backbone", backbone, decay)


def layer_multiplier(name: str, depths: Sequence[int], decay: float) -> float:
    """Computes the rate multiplier of a weight under layer-wise decay: the closer to the input, the lower.

    Layer 0 is the patch embedding, layer k + 1 is block k counted over all stages, and the topmost layer is the last
    normalisation and the head. A patch merging belongs to the block before it. `depths` are the numbers of blocks per
    stage; `decay` is the rate of a layer divided by the rate of the layer above.

    Source: BEiT, get_num_layer_for_vit, as VideoMAE uses it; for stages SimMIM optimizer.py, get_swin_layer.
    """
    top = sum(depths) + 1
    if match := _LAYER.match(name):
        stage, block = int(match[1]), match[2]
        layer = sum(depths[:stage]) + (depths[stage] if block is None else int(block) + 1)
    else:
        layer = 0 if name.startswith("backbone.patch_embed.") else top
    return decay ** (top - layer)


def assign_groups(names: Iterable[str], config: OptimizerConfig) -> dict[str, ParameterGroup]:
    """Assigns every weight of a model, by official name, to a group; layer-wise decay multiplies the group's rate."""
    names = list(names)
    depths, groups = read_depths(names), {}
    for name in names:
        group = find_group(name, config)
        multiplier = group.learning_rate_multiplier * layer_multiplier(name, depths, config.layer_decay)
        groups[name] = group._replace(learning_rate_multiplier=multiplier)
    return groups


def describe_groups(
    weights: Mapping[str, tf.Variable], config: OptimizerConfig, rate_now: float, frozen: Collection[str] = ()
) -> list[str]:
    """Formats a table of the parameter groups: headings, a line per group, and a line for frozen weights.

    If layer-wise decay gives a group several rates, the table shows the lowest and the highest. `weights` has official
    names; `rate_now` is the base rate of the next step.
    """
    groups = assign_groups(weights, config)
    sizes = {name: int(variable.shape.num_elements()) for name, variable in weights.items()}
    members: dict[tuple[str, float], list[str]] = {}
    for name, group in groups.items():
        if name not in frozen:
            members.setdefault((group.name, group.weight_decay), []).append(name)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for heading in ("group", "rate now", "full rate", "decay", "parameters"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", no_wrap=True)
    for (group_name, decay), names in members.items():
        multipliers = [groups[name].learning_rate_multiplier for name in names]
        low, high = min(multipliers), max(multipliers)
        rates = ((f"{rate * low:.3g}", f"{rate * high:.3g}") for rate in (rate_now, config.learning_rate))
        texts = (lowest if lowest == highest else f"{lowest} to {highest}" for lowest, highest in rates)
        table.add_row(group_name, *texts, f"{decay:g}", f"{sum(sizes[name] for name in names):,}")
    num_frozen, num_all = sum(sizes[name] for name in frozen), sum(sizes.values())
    if frozen:
        table.add_row("frozen", "", "", "", f"{num_frozen:,}")
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    if frozen:
        lines.append(f"{100 * (1 - num_frozen / num_all):.3g} % of {num_all:,} parameters are trained")
    return lines


def find_frozen(names: Collection[str], freeze_stages: int, patterns: Sequence[str]) -> frozenset[str]:
    """Finds the official names of the frozen weights, which have no gradient, no moments and no decay.

    `freeze_stages` is the number of first stages to freeze, with the patch embedding before them; 0 for none.
    Upstream's `frozen_stages` is the same, except that its 0 freezes the patch embedding. `patterns` are shell
    patterns of official names, e.g. `backbone.*`; `*` also matches dots.

    Raises:
        InputError: if the model has fewer stages, a pattern matches nothing, or nothing is left to train.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, _freeze_stages.
    """
    num_stages = len(read_depths(names))
    if freeze_stages > num_stages:
        raise InputError(f"model.freeze_stages={freeze_stages}: the model has {num_stages} stages")
    stages = [f"backbone.layers.{i}." for i in range(freeze_stages)]
    prefixes = ("backbone.patch_embed.", *stages) if freeze_stages else ()
    frozen = {name for name in names if name.startswith(prefixes)}
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            parents = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
            choices = [*names, *sorted(f"{parent}.*" for parent in parents)]
            raise InputError(
                f"model.freeze: {pattern!r} matches no weight; {nearest(pattern, choices)}. Names are the official "
                "ones, as in checkpoints, e.g. 'backbone.layers.0.blocks.0.attn.qkv.weight'"
            )
        frozen |= matches
    if len(frozen) == len(names):
        raise InputError(
            f"model.freeze_stages={freeze_stages} and model.freeze={list(patterns)} freeze every weight: leave at "
            f"least the head ({HEAD_PREFIX}) to train"
        )
    return frozenset(frozen)


def run_frozen_parts_as_tested(draws: Draws, names: Sequence[str], frozen: Collection[str]) -> Draws:
    """Turns off drop path in fully frozen blocks, and dropout before a frozen head, as upstream's frozen stages do.

    `names` are the official names of all weights, in order.
    """
    is_frozen = [all(name in frozen for name in block) for block in _group_by_block(names)]
    head = [name for name in names if name.startswith(HEAD_PREFIX)]
    return Draws(
        tf.where(tf.constant(is_frozen)[:, tf.newaxis], 1.0, draws.drop_path),  # [B, blocks, 2]
        tf.ones_like(draws.dropout) if all(name in frozen for name in head) else draws.dropout,
    )


def count_passed_blocks(names: Sequence[str], frozen: Collection[str]) -> int:
    """Counts the first blocks that no gradient reaches: these blocks and everything before them are frozen.

    `names` are the official names of all weights, in the order of computation.
    """
    passed = set(takewhile(lambda name: name in frozen, names))
    return sum(all(name in passed for name in block) for block in _group_by_block(names))


def _group_by_block(names: Sequence[str]) -> Collection[list[str]]:
    blocks: dict[str, list[str]] = {}
    for name in names:
        if match := _BLOCK.match(name):
            blocks.setdefault(match[0], []).append(name)
    return blocks.values()
