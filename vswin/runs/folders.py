"""Which run folders a command line means."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from vswin.errors import InputError

# Any of them makes a folder a run: one that was only evaluated has no configuration of a training.
_FILES = ("config.yaml", "history.csv", "metrics.json", "predictions.csv")


def list_runs(arguments: Sequence[str]) -> list[Path]:
    """Lists the run folders that arguments stand for, each once, in their order.

    Args:
        arguments: Folders, and patterns such as `outputs/*_ucf101`, of which folders that are no runs are passed over.

    Raises:
        InputError: If an argument stands for no run.
    """
    # The same folder by another name is the same run: `outputs/best 'outputs/*'` puts the best one first.
    found: dict[Path, Path] = {}
    for argument in arguments:
        for folder in _expand(argument):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _expand(argument: str) -> list[Path]:
    if Path(argument).is_dir():
        check_is_run(Path(argument))
        return [Path(argument)]
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    runs = [match for match in matches if _is_run(match)]
    if not runs:
        what = "no run matches this pattern; mind quotes" if glob.has_magic(argument) else "there is no such folder"
        raise InputError(f"{argument}: {what}; runs lie in outputs/ unless output_dir said otherwise")
    return runs


def check_is_run(folder: Path) -> None:
    """Checks that there is something to read in a folder.

    Raises:
        InputError: If there is not.
    """
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
