"""Where annotation files usually lie, seen from the folder of the videos."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vswin.data.annotations.entries import NotFoundError

_FOLDERS = ("splits", "annotations", "labels", "lists")


def usual_folders(root: Path, names: Sequence[str] = ()) -> list[Path]:
    """Lists the folders in which annotation files are looked for, best first.

    Args:
        root: folder of the videos.
        names: of folders that the data set itself brings.

    Returns:
        Those that exist: beside the videos, then among them.
    """
    folders = [base / name for base in (root.absolute().parent, root) for name in (*_FOLDERS, *names, ".")]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def first_file(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """Finds a file by several names in several folders; the folder decides before the name."""
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def explain_missing(title: str, root: Path, names: Sequence[str], how: str) -> NotFoundError:
    """Says that the annotation files of a data set cannot be found.

    Args:
        title: name of the data set as people write it.
        root: folder of the videos.
        names: what was looked for.
        how: where to get them, and other ways out.
    """
    missing = f"the lists ({', '.join(names)})" if root.is_dir() else f"the folder {root}"
    return NotFoundError(
        f"{title}: {missing} cannot be found. {how} The lists are looked for in `splits`, `annotations`, `labels` and "
        f"`lists` beside and inside dataset.root={root}; dataset.train_list and dataset.val_list may name them."
    )
