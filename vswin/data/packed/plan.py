"""Which video goes into which file of a packed data set; made anew, it is the same while the videos are."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vswin.data.records import VideoRecord
from vswin.errors import InputError


class Entry(NamedTuple):
    """A video to pack.

    Attributes:
        number: Its place in the list of its split.
        file: Path.
        name: Path from the root of the data set.
        label: Class index.
        num_bytes: Size of the file.
        modified_ns: When it was changed.
    """

    number: int
    file: str
    name: str
    label: int
    num_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Shard:
    """Names the part of a split that one file holds.

    Attributes:
        split: "train" or "val".
        number: Number of the file within the split.
        num_shards: Files of the split.
        entries: The videos, in the order of the list.
    """

    split: str
    number: int
    num_shards: int
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Plan:
    """Says what is packed.

    Attributes:
        entries: The videos of each split that has any.
        shards: All files to write.
    """

    entries: dict[str, list[Entry]]
    shards: list[Shard]

    @property
    def num_videos(self) -> int:
        """Counts the videos of all splits."""
        return sum(map(len, self.entries.values()))

    @property
    def num_bytes(self) -> int:
        """Adds up the sizes of their files."""
        return sum(entry.num_bytes for entries in self.entries.values() for entry in entries)

    def digest(self, options: Sequence[object]) -> str:
        """Hashes the plan and what else decides the result, in values JSON knows."""
        lines = [[shard.split, shard.number, *entry] for shard in self.shards for entry in shard.entries]
        return hashlib.sha256(json.dumps([lines, options]).encode()).hexdigest()


def make_plan(records: dict[str, list[VideoRecord]], root: str, num_shards: int) -> Plan:
    """Looks up all files and divides them.

    Args:
        records: The videos of each split, "train" first.
        root: Folder their names start from.
        num_shards: Files of the training videos; the other split gets as many as makes them of one size.

    Returns:
        The plan.

    Raises:
        InputError: If a video is not a file that can be read, or there are fewer videos than files asked for.
    """
    entries = {split: _look_up(videos, root) for split, videos in records.items() if videos}
    if not entries:
        raise InputError("there are no videos to pack")
    first, *others = entries
    if num_shards > len(entries[first]):
        raise InputError(f"shards={num_shards}, but there are {len(entries[first])} videos to put into them")
    shards = _divide(first, entries[first], num_shards)
    for split in others:
        share = _count_bytes(entries[split]) / max(1, _count_bytes(entries[first]))
        shards += _divide(split, entries[split], min(len(entries[split]), max(1, round(num_shards * share))))
    return Plan(entries, shards)


def _look_up(videos: Sequence[VideoRecord], root: str) -> list[Entry]:
    entries, unusable = [], []
    for number, (path, label) in enumerate(videos):
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK):
                raise OSError
        except (OSError, ValueError):
            unusable.append(path)
            continue
        name = os.path.relpath(path, root)
        entries.append(Entry(number, path, name, label, status.st_size, status.st_mtime_ns))
    if unusable:
        raise InputError(
            f"{len(unusable):,} of the {len(videos):,} videos are no files that can be read, e.g. {unusable[0]}; "
            "`vswin data check` lists them"
        )
    return entries


def _divide(split: str, entries: Sequence[Entry], num_shards: int) -> list[Shard]:
    bounds = [round(len(entries) * number / num_shards) for number in range(num_shards + 1)]
    return [
        Shard(split, number, num_shards, entries[start:end])
        for number, (start, end) in enumerate(itertools.pairwise(bounds))
    ]


def _count_bytes(entries: Sequence[Entry]) -> int:
    return sum(entry.num_bytes for entry in entries)
