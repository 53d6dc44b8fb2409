"""Which runs a command line means, and what they are called."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vswin.errors import InputError
from vswin.runs.folders import list_runs


def find_folders(arguments: Sequence[str]) -> list[Path]:
    """Lists the run folders that arguments stand for, each once, in their order.

    Args:
        arguments: Folders, and patterns such as `outputs/*_ucf101`, of which folders that are no runs are passed over.

    Returns:
        Two at least.

    Raises:
        InputError: If an argument stands for no run, or all of them together for fewer than two.
    """
    folders = list_runs(arguments)
    if len(folders) < 2:
        raise InputError(
            f"{' '.join(arguments)}: this is one run; name another one to compare it with, or a pattern in quotes, "
            "e.g. 'outputs/*'"
        )
    return folders


def name_folders(folders: Sequence[Path]) -> list[str]:
    """Names runs by the ends of their paths, as long as it takes to tell them apart.

    Args:
        folders: Different ones.

    Returns:
        As many names, e.g. `["a/split_1", "b/split_1"]`.
    """
    parts = [folder.resolve().parts for folder in folders]
    names = [""] * len(folders)
    for length in range(1, max(map(len, parts)) + 1):
        ends = [str(Path(*path[-length:])) for path in parts]
        counts = Counter(ends)
        names = [name or (end if counts[end] == 1 else "") for name, end in zip(names, ends, strict=True)]
    return [name or str(folder) for name, folder in zip(names, folders, strict=True)]


def label_runs(count: int) -> list[str]:
    """Gives each of so many runs a letter: a ... z, aa, ab ..."""
    letters = [*string.ascii_lowercase]
    labels = letters
    while len(labels) < count:
        labels = [*labels, *(first + second for first in labels[-26:] for second in letters)]
    return labels[:count]
