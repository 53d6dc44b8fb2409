"""The annotation files of HMDB51: `<class>_test_split<N>.txt` with a use for each video, 51 files a split."""

import re
from pathlib import Path

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ROLES, TRAIN, VAL, ListEntry, read_lines
from vswin.data.annotations.places import explain_missing, usual_folders
from vswin.errors import InputError

_FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits", "test_train_splits/testTrainMulti_7030_splits")
_HOW = (
    "From https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database get hmdb51_org.rar, the videos "
    "(an archive for each class), and test_train_splits.rar, the lists. Unpack the videos, so that {root}/brush_hair "
    "and the other 50 class folders are there, and the lists (*.txt) into {splits}."
)
_LIST_NAME = re.compile(r"(.+)_test_split([123])\.txt", re.IGNORECASE)
_USES = {"0": "", "1": TRAIN, "2": VAL}


def find_lists(root: Path, split: int) -> tuple[Path | None, Path | None]:
    """Looks for the folder of the lists.

    Args:
        root: folder of the videos.
        split: 1, 2 or 3.

    Returns:
        That folder twice: each list tells training and test videos apart.

    Raises:
        InputError: if there is no such split.
        NotFoundError: if the lists or the folder of the videos are not there.
    """
    if split not in (1, 2, 3):
        raise InputError(f"dataset.split={split}: HMDB51 has the splits 1, 2 and 3")
    if root.is_dir():
        for folder in usual_folders(root, _FOLDERS):
            if _split_files(folder, split):
                return folder, folder
    pattern = f"<class>_test_split{split}.txt"
    raise explain_missing("HMDB51", root, [pattern], _HOW.format(root=root, splits=root.parent / "splits"))


def read_annotations(path: Path, subset: str, split: int, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads the official lists of a split.

    Args:
        path: folder of the official lists, or a single one of them, or another list.
        subset: "train" or "val", which is the official test.
        split: 1, 2 or 3; a single list has to be of this split.
        classes: of the data set.

    Returns:
        An entry per video; None if it is another list of paths and labels.

    Raises:
        InputError: if a list cannot be read, is of another split, has an unknown class or use, or names no videos.
    """
    if not path.is_dir() and not _LIST_NAME.fullmatch(path.name):
        return None
    files = _split_files(path, split) if path.is_dir() else [path]
    entries = [entry for file in files for entry in _read_file(file, subset, split, classes)]
    if not entries:
        raise InputError(f"{path} names no {ROLES[subset]} videos of split {split}; set dataset.split, or get it anew")
    return entries


def _split_files(folder: Path, split: int) -> list[Path]:
    """Lists the files of a split, those of the 51 classes."""
    named = [(path, _LIST_NAME.fullmatch(path.name)) for path in folder.iterdir()]
    return sorted(path for path, match in named if match and match.group(2) == str(split))


def _read_file(path: Path, subset: str, split: int, classes: ClassLookup) -> list[ListEntry]:
    match = _LIST_NAME.fullmatch(path.name)
    assert match is not None
    if match.group(2) != str(split):
        raise InputError(f"{path} is of split {match.group(2)}, but dataset.split={split}")
    class_name = classes.class_names[classes.expect(match.group(1), str(path))]
    entries = []
    for number, line in read_lines(path):
        # Names hold # & ; ( and, in re-packed copies, spaces.
        video, use = [*line.rsplit(maxsplit=1), ""][:2]
        if use not in _USES:
            raise InputError(
                f"{path}:{number}: expected `video.avi 1` (training), 2 (test) or 0 (unused), found {line!r}"
            )
        if _USES[use] == subset:
            name = video.replace("\\", "/").rpartition("/")[2]
            entries.append(ListEntry(str(path), number, f"{class_name}/{name}", class_name))
    return entries
