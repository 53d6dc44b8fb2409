"""Which runs a command line means, and what they are called."""

from __future__ import annotations

import glob
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vswin.errors import InputError

# Any of them makes a folder a run: one that was only evaluated has no configuration of a training.
_FILES = ("config.yaml", "history.csv", "metrics.json", "predictions.csv")


def find_folders(arguments: Sequence[str]) -> list[Path]:
    """Lists the run folders that arguments stand for, each once, in their order.

    Args:
        arguments: Folders, and patterns such as `outputs/*_ucf101`, of which folders that are no runs are passed over.

    Returns:
        Two at least.

    Raises:
        InputError: If an argument stands for no run, or all of them together for fewer than two.
    """
    # The same folder by another name is the same run: `outputs/best 'outputs/*'` puts the best one first.
    found: dict[Path, Path] = {}
    for argument in arguments:
        for folder in _expand(argument):
            found.setdefault(folder.resolve(), folder)
    folders = list(found.values())
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


def _expand(argument: str) -> list[Path]:
    if Path(argument).is_dir():
        _check_is_run(Path(argument))
        return [Path(argument)]
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    runs = [match for match in matches if _is_run(match)]
    if not runs:
        what = "no run matches this pattern; mind quotes" if glob.has_magic(argument) else "there is no such folder"
        raise InputError(f"{argument}: {what}; runs lie in outputs/ unless output_dir said otherwise")
    return runs


def _check_is_run(folder: Path) -> None:
    if _is_run(folder):
        return
    inside = any(_is_run(path) for path in _subfolders(folder))
    way_out = f"there are runs in it: '{folder}/*'" if inside else "name a folder that vswin train has written"
    raise InputError(f"{folder} is not the folder of a run: it has none of {', '.join(_FILES)}; {way_out}")


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in _FILES)


def _subfolders(folder: Path) -> Iterable[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({error.strerror})") from error
