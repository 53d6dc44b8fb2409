"""Define labelled videos, the names of the subsets they form, and which videos are held out for validation."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TRAIN, VAL, TEST = "train", "val", "test"
ROLES = {TRAIN: "training", VAL: "validation", TEST: "test"}


class VideoRecord(NamedTuple):
    """One labelled video: its file, or its name in a packed data set, and its class index, 0 .. K-1."""

    path: str
    label: int


def split_train_val(
    records: Sequence[VideoRecord], val_fraction: float, base: str
) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """Holds out a fraction of each class for validation, independent of the data set's folder and order.

    Files whose names agree up to a `_g01_`, as in UCF101, come from one recording and stay together; folder names do
    not mark a recording. Every other file is its own group. A class with one group is only used for training.

    `val_fraction`, above 0 and below 1, is the fraction of a class's groups to hold out, rounded, at least one group.
    `base` is the folder of the data set, which is removed from group names.
    """
    groups = []
    by_class: dict[int, set[str]] = defaultdict(set)
    prefixes: dict[str, str] = {}
    for record in records:
        folder, name = os.path.split(record.path)
        if folder not in prefixes:
            prefix = Path(os.path.relpath(folder, base)).as_posix()
            prefixes[folder] = "" if prefix == "." else f"{prefix}/"
        recording = re.match(r".*_g\d+_", name)
        groups.append((record.label, prefixes[folder] + (recording.group() if recording else name)))
        by_class[record.label].add(groups[-1][1])
    held_out: set[tuple[int, str]] = set()
    for label, names in by_class.items():
        num_val = max(1, round(val_fraction * len(names)))
        ordered = sorted(names, key=lambda name: hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest())
        held_out.update((label, name) for name in ordered[: min(num_val, len(names) - 1)])
    train = [record for record, group in zip(records, groups, strict=True) if group not in held_out]
    val = [record for record, group in zip(records, groups, strict=True) if group in held_out]
    return train, val
