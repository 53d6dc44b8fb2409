"""The annotation files of UCF101: `classInd.txt`, `trainlist01.txt`, `testlist01.txt` and those of splits 2 and 3."""

import re
from pathlib import Path

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import MAX_DIGITS, ListEntry, read_lines
from vswin.data.annotations.places import explain_missing, first_file, usual_folders
from vswin.data.folder import is_video
from vswin.errors import InputError

_HOW = (
    "From https://www.crcv.ucf.edu/data/UCF101.php get UCF101.rar, the videos, and "
    "UCF101TrainTestSplits-RecognitionTask.zip, the lists. Unpack the videos, so that {root}/Archery and the other 100 "
    "class folders are there, and the lists (*.txt) into {splits}; or set dataset.root to the folder of the class "
    "folders, with the lists in `splits` or `ucfTrainTestlist` beside it."
)
_LISTED_NAME = re.compile(r"v_(.+)_g\d+_c\d+\.\w+")


def find_lists(root: Path, split: int) -> tuple[Path | None, Path | None]:
    """Looks for the lists of a split.

    Args:
        root: folder of the videos.
        split: 1, 2 or 3.

    Returns:
        The lists for training and for the test.

    Raises:
        InputError: if there is no such split.
        NotFoundError: if the training list or the folder of the videos is not there.
    """
    if split not in (1, 2, 3):
        raise InputError(f"dataset.split={split}: UCF101 has the splits 1, 2 and 3")
    name = f"trainlist0{split}.txt"
    train_list = first_file(usual_folders(root, ["ucfTrainTestlist"]), [name])
    if not root.is_dir() or train_list is None:
        raise explain_missing("UCF101", root, [name], _HOW.format(root=root, splits=root.parent / "splits"))
    return train_list, train_list.with_name(f"testlist0{split}.txt")


def read_annotations(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads an official list.

    Official are lines `Class/v_Class_g01_c01.avi`, in training lists with a label from 1. The first line tells: a
    label that counts from 0 makes it another list.

    Args:
        path: the list.
        classes: of the data set.

    Returns:
        An entry per video; None if it is another list of paths and labels.

    Raises:
        InputError: if the list cannot be read, or contradicts the order of the classes.
    """
    lines = read_lines(path)
    if not _is_official(lines[0][1], classes):
        return None
    _check_numbering(path.with_name("classInd.txt"), classes)
    return [_read_line(path, number, line, classes) for number, line in lines]


def _is_official(line: str, classes: ClassLookup) -> bool:
    """Tells a line without a label, or with one that counts from 1, from others."""
    video, *labels = line.rsplit(maxsplit=1)
    if not labels:
        return is_video(video.replace("\\", "/").rpartition("/")[2])
    is_number = labels[0].isdecimal() and len(labels[0]) <= MAX_DIGITS
    return is_number and classes.find(_class_of(video)) + 1 == int(labels[0]) > 0


def _read_line(path: Path, number: int, line: str, classes: ClassLookup) -> ListEntry:
    place = f"{path}:{number}"
    video, *labels = line.replace("\\", "/").split()
    if len(labels) > 1 or not is_video(video.rpartition("/")[2]):
        raise InputError(f"{place}: expected `Class/video.avi` or `Class/video.avi label`, found {line!r}")
    label = classes.expect(_class_of(video), place)
    if labels and labels != [str(label + 1)]:
        raise InputError(
            f"{place}: label {labels[0]} for {classes.class_names[label]!r}, which is {label + 1}; the official labels "
            "count from 1"
        )
    return ListEntry(str(path), number, video, classes.class_names[label])


def _class_of(video: str) -> str:
    """Takes the class from the folder, or from the file name where there is no folder."""
    folder, _, name = video.replace("\\", "/").rpartition("/")
    listed = _LISTED_NAME.fullmatch(name)
    return folder.rpartition("/")[2] or (listed.group(1) if listed else name)


def _check_numbering(path: Path, classes: ClassLookup) -> None:
    """Compares the archive's own numbering, where it is there, with ours."""
    if not path.is_file():
        return
    numbered = [tuple(line.split()) for _, line in read_lines(path)]
    expected = [(str(number), class_name) for number, class_name in enumerate(classes.class_names, start=1)]
    if numbered != expected:
        raise InputError(f"{path} numbers the classes otherwise than the data set does; get the official lists anew")
