"""From entries of a list to labelled files. Called by `vswin.data.catalog`."""

import os
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import normalize

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ListEntry
from vswin.data.annotations.file_index import FileIndex, Folders
from vswin.data.records import VideoRecord
from vswin.errors import InputError


class MissingVideo(NamedTuple):
    """Names a video of a list that is not there, or that is there already.

    Attributes:
        place: file and line of the list.
        path: where it was expected; of a video named by its id, the file name without its ending.
        label: class index.
    """

    place: str
    path: str
    label: int


class Listed(NamedTuple):
    """Holds what a list names: a record of each file that is there, what is missing, and what is named once more."""

    videos: list[VideoRecord]
    missing: list[MissingVideo]
    repeated: list[MissingVideo]


def label_videos(
    entries: Sequence[ListEntry], subset: str, classes: ClassLookup, base: str, files: FileIndex | None = None
) -> Listed:
    """Turns entries into records.

    Args:
        entries: of one list.
        subset: "train" or "val".
        classes: of the data set.
        base: folder that relative paths start from.
        files: where to look for videos that are named by their ids or do not lie where a list says; None: nowhere.

    Returns:
        Records in the order of the entries, and the entries without one. A file that several entries name, however
        they spell its path, has one record, unless the owners name it by its id for several classes.

    Raises:
        InputError: if a label is out of range or unknown, an index contradicts the folder the video lies in, or a
            file has two labels.
    """
    if files and entries and entries[0].video_id:
        return _find_by_id(entries, subset, classes, files)
    folders = Folders(base)
    found = Listed([], [], [])
    first: dict[str, ListEntry] = {}
    for entry in entries:
        label = _label(entry, classes)
        paths = _find_path(entry, label, classes, folders, files)
        if paths is None:
            found.missing.append(MissingVideo(entry.place, os.path.join(base, entry.path), label))
            continue
        path, real = paths
        earlier = first.setdefault(real, entry)
        if earlier is entry:
            found.videos.append(VideoRecord(path, label))
        elif _label(earlier, classes) == label:
            found.repeated.append(MissingVideo(entry.place, path, label))
        else:
            raise InputError(
                f"{earlier.place} and {entry.place} name one file, {path}, with two labels, {earlier.label!r} and "
                f"{entry.label!r}; remove one of the lines"
            )
    return found


def _find_by_id(entries: Sequence[ListEntry], subset: str, classes: ClassLookup, files: FileIndex) -> Listed:
    """Finds videos that a list names by their ids; its labels are class names."""
    found = Listed([], [], [])
    only = files.only
    for entry in entries:
        label = classes.find(entry.label)
        path = only.get(entry.path) or files.find(entry, subset)
        if path is None:
            found.missing.append(MissingVideo(entry.place, entry.path, label))
        else:
            found.videos.append(VideoRecord(path, label))
    return found


def _label(entry: ListEntry, classes: ClassLookup) -> int:
    num_classes = len(classes.class_names)
    if not entry.has_index:
        label = classes.find(entry.label)
        if label < 0:
            raise InputError(
                f"{entry.place}: {classes.explain(entry.label)} (class names that hold spaces need a .csv list, tabs "
                "or quotes)"
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
) -> tuple[str, str] | None:
    """Finds path and real path of a file."""
    paths = folders.find(entry.path)
    if paths:
        return paths
    # Other systems separate folders and compose letters otherwise.
    written = entry.path.replace("\\", "/")
    for spelling in dict.fromkeys((written, normalize("NFC", written), normalize("NFD", written))):
        if spelling != entry.path and (paths := folders.find(spelling)):
            return paths
    path = files and files.find_elsewhere(
        written, lambda found: classes.find_folder(os.path.dirname(found).replace(os.sep, "/")) in (-1, label)
    )
    paths = folders.find(os.path.abspath(path)) if path else None
    return (path, paths[1]) if path and paths else None
