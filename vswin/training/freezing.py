"""Frozen weights: which they are, and what they spare a training step.

A frozen weight gets no gradient, hence neither moments nor decay. Parts all of whose weights are frozen run as in
evaluation, as upstream's frozen stages do: their blocks drop no paths, a frozen head no features.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

import tensorflow as tf

from vswin.errors import InputError, nearest
from vswin.models.draws import Draws
from vswin.weights.names import HEAD_PREFIX, read_depths

_BLOCK = re.compile(r"backbone\.layers\.\d+\.blocks\.\d+\.")


def find_frozen(names: Collection[str], freeze_stages: int, patterns: Sequence[str]) -> frozenset[str]:
    """Finds the weights that training leaves as they are.

    Args:
        names: official names of all weights.
        freeze_stages: 0, or how many stages are frozen together with the patch embedding before them; upstream's
            `frozen_stages`, but for its 0, the patch embedding alone.
        patterns: shell patterns of official names, e.g. `backbone.*`; `*` matches dots as well.

    Returns:
        Their official names.

    Raises:
        InputError: if there are fewer stages, a pattern matches nothing, or nothing is left to train.
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
            raise InputError(
                f"model.freeze: {pattern!r} matches no weight; {nearest(pattern, _possible_patterns(names))}. Names "
                "are the official ones, as in checkpoints, e.g. 'backbone.layers.0.blocks.0.attn.qkv.weight'"
            )
        frozen |= matches
    if len(frozen) == len(names):
        raise InputError(
            f"model.freeze_stages={freeze_stages} and model.freeze={list(patterns)} freeze every weight: leave at "
            f"least the head ({HEAD_PREFIX}) to train"
        )
    return frozenset(frozen)


def run_frozen_parts_as_tested(draws: Draws, names: Sequence[str], frozen: Collection[str]) -> Draws:
    """Takes back what is dropped in blocks, and before a head, that are wholly frozen.

    Args:
        draws: multipliers of a training step.
        names: official names of all weights, in their order.
        frozen: those of the frozen ones.
    """
    blocks = _group_by_block(names)
    is_frozen = [all(name in frozen for name in block) for block in blocks.values()]
    head = [name for name in names if name.startswith(HEAD_PREFIX)]
    return Draws(
        tf.where(tf.constant(is_frozen)[:, tf.newaxis], 1.0, draws.drop_path),  # [B, blocks, 2]
        tf.ones_like(draws.dropout) if all(name in frozen for name in head) else draws.dropout,
    )


def count_passed_blocks(names: Sequence[str], frozen: Collection[str]) -> int:
    """Counts the first blocks that no gradient reaches, since neither they nor anything before them is trained.

    Args:
        names: official names of all weights, in their order, which is that of the computation.
        frozen: those of the frozen ones.
    """
    passed = set(takewhile(lambda name: name in frozen, names))
    return sum(all(name in passed for name in block) for block in _group_by_block(names).values())


def _group_by_block(names: Sequence[str]) -> Mapping[str, list[str]]:
    blocks: dict[str, list[str]] = {}
    for name in names:
        if match := _BLOCK.match(name):
            blocks.setdefault(match[0], []).append(name)
    return blocks


def _possible_patterns(names: Collection[str]) -> list[str]:
    """Lists the names, and for each of their parts the pattern of everything below it."""
    parents = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
    return [*names, *sorted(f"{parent}.*" for parent in parents)]
