"""From entries of a list to labelled files. Called by `vswin.data.catalog`."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ListEntry
from vswin.data.annotations.file_index import FileIndex, Folders
from vswin.data.records import VideoRecord
from vswin.errors import InputError


class MissingVideo(NamedTuple):
    """Names a video of a list that is not there.

    Attributes:
        place: file and line of the list.
        path: where it was expected; of a video named by its id, the file name without its ending.
        label: class index.
    """

    place: str
    path: str
    label: int


def label_videos(
    entries: Sequence[ListEntry], subset: str, classes: ClassLookup, base: str, files: FileIndex | None = None
) -> tuple[list[VideoRecord], list[MissingVideo]]:
    """Turns entries into records.

    Args:
        entries: of one list.
        subset: "train" or "val".
        classes: of the data set.
        base: folder that relative paths start from.
        files: where to look for videos that are named by their ids or do not lie where a list says; None: nowhere.

    Returns:
        A record for each entry whose file is there, in their order, and the others.

    Raises:
        InputError: if a label is out of range or unknown, or an index contradicts the folder the video lies in.
    """
    if files and entries and entries[0].video_id:
        return _find_by_id(entries, subset, classes, files)
    folders = Folders(base)
    records, missing = [], []
    for entry in entries:
        label = _label(entry, classes)
        path = _find_path(entry, label, classes, folders, files)
        if path is None:
            missing.append(MissingVideo(entry.place, os.path.join(base, entry.path), label))
        else:
            records.append(VideoRecord(path, label))
    return records, missing


def _find_by_id(
    entries: Sequence[ListEntry], subset: str, classes: ClassLookup, files: FileIndex
) -> tuple[list[VideoRecord], list[MissingVideo]]:
    """Finds videos that a list names by their ids; its labels are class names."""
    records, missing = [], []
    only = files.only
    for entry in entries:
        label = classes.find(entry.label)
        path = only.get(entry.path) or files.find(entry, subset)
        if path is None:
            missing.append(MissingVideo(entry.place, entry.path, label))
        else:
            records.append(VideoRecord(path, label))
    return records, missing


def _label(entry: ListEntry, classes: ClassLookup) -> int:
    num_classes = len(classes.class_names)
    if not entry.has_index:
        label = classes.find(entry.label)
        if label < 0:
            raise InputError(
                f"{entry.place}: {classes.explain(entry.label)} (class names that hold spaces need a .csv list)"
            )
        return label
    label = int(entry.label)
    if not 0 <= label < num_classes:
        raise InputError(f"{entry.place}: label {label} is out of range, the {num_classes} classes count from 0")
    folder = entry.path.replace("\\", "/").rpartition("/")[0]
    if classes.find_folder(folder) not in (-1, label):
        raise InputError(
            f"{entry.place}: the video lies in {folder.rpartition('/')[2]!r}, but class {label} is "
            f"{classes.class_names[label]!r}; the list counts the classes in another order"
        )
    return label


def _find_path(
    entry: ListEntry, label: int, classes: ClassLookup, folders: Folders, files: FileIndex | None
) -> str | None:
    path = folders.find(entry.path)
    if path or (files is None and "\\" not in entry.path):
        return path
    written = entry.path.replace("\\", "/")
    path = folders.find(written)
    if path or files is None:
        return path
    return files.find_elsewhere(
        written, lambda found: classes.find_folder(os.path.dirname(found).replace(os.sep, "/")) in (-1, label)
    )
