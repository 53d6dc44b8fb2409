"""Match list entries with video files, wherever the files lie, and label them. Called by `vswin.data.catalog`."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from vswin.data.class_names import ClassLookup, loosely
from vswin.data.folder import is_video, real_path, walk_files
from vswin.data.lists import ListEntry
from vswin.data.records import VideoRecord
from vswin.errors import InputError

# Usual folder names of the subsets of a data set.
_SUBSET_FOLDERS = {"train": ("train", "training"), "val": ("val", "validate", "validation", "valid", "test")}


class MissingVideo(NamedTuple):
    """Names a listed video that does not exist, or that an earlier entry names.

    Attributes:
        place: file and line of the list.
        path: expected path; for a video named by its id, the file name without its ending.
        label: class index.
    """

    place: str
    path: str
    label: int


class Listed(NamedTuple):
    """Holds the contents of a list: a record of each existing file, the missing videos, and the repeated ones."""

    videos: list[VideoRecord]
    missing: list[MissingVideo]
    repeated: list[MissingVideo]


def label_videos(
    entries: Sequence[ListEntry], subset: str, classes: ClassLookup, base: str, files: "FileIndex | None" = None
) -> Listed:
    """Turns the entries of one list into records.

    Relative paths start from the folder `base`. `files` searches for videos that a list names by id or that lie in
    another folder than listed; with None, they are not searched.

    Returns:
        Records in the order of the entries, and the entries without a record. A file that several entries name, in any
        spelling of its path, has one record, unless the owners name it by its id for several classes.

    Raises:
        InputError: if a label is out of range or unknown, an index contradicts the video's folder, or a file has two
            labels.
    """
    found = Listed([], [], [])
    if files and entries and entries[0].video_id:
        for entry in entries:
            label = classes.find(entry.label)
            path = files.find(entry, subset)
            if path is None:
                found.missing.append(MissingVideo(entry.place, entry.path, label))
            else:
                found.videos.append(VideoRecord(path, label))
        return found

    folders = _Folders(base)
    first: dict[str, ListEntry] = {}
    for entry in entries:
        label = _label(entry, classes)
        paths = folders.find(entry.path) or _find_elsewhere(entry, label, classes, folders, files)
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


def _find_elsewhere(
    entry: ListEntry, label: int, classes: ClassLookup, folders: "_Folders", files: "FileIndex | None"
) -> tuple[str, str] | None:
    """Finds path and real path of a file whose spelling or folder differs from the list."""
    # Other systems use other path separators and Unicode forms.
    written = entry.path.replace("\\", "/")
    for spelling in dict.fromkeys((written, normalize("NFC", written), normalize("NFD", written))):
        if spelling != entry.path and (paths := folders.find(spelling)):
            return paths
    # Search all folders, except folders of other classes, for a file of this name.
    named = files.find_named(written) if files else []
    named = [path for path in named if classes.find_folder(os.path.dirname(path).replace(os.sep, "/")) in (-1, label)]
    if not named:
        return None
    path = _nearest(named, {loosely(part) for part in os.path.dirname(written).split("/") if part})
    paths = folders.find(os.path.abspath(path))
    return (path, paths[1]) if paths else None


class _Folders:
    """Looks up files by path and reads each folder once, far faster than 240,000 single file checks."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._folders: dict[str, tuple[str, str, dict[str, bool]]] = {}  # path, real path, name -> is it a link
        self._links: dict[str, str] = {}

    def find(self, path: str) -> tuple[str, str] | None:
        """Returns the path of a file, joined with the base, and its real path; None if it does not exist."""
        folder, slash, name = path.rpartition("/")
        folder += slash
        if folder not in self._folders:
            joined = os.path.join(self._base, folder)
            real, names = os.path.join(os.path.realpath(joined), ""), {}
            if os.path.isdir(real):
                with os.scandir(real) as entries:
                    names = {entry.name: entry.is_symlink() for entry in entries}
            self._folders[folder] = joined, joined if joined == real else real, names
        joined, real, names = self._folders[folder]
        if name in names:
            found = joined + name
            if names[name]:
                return found, real_path(found, self._links)
            return found, found if real is joined else real + name
        # Some file systems ignore case.
        return (joined + name, os.path.realpath(joined + name)) if name and os.path.exists(joined + name) else None


class FileIndex:
    """Finds video files by name anywhere below a folder; reads the folders at the first search.

    `entries` must contain every entry that `find` will search for, so that no two entries get the same file.
    """

    def __init__(self, root: Path, entries: Sequence[ListEntry] = ()) -> None:
        self._root = root
        self._entries = entries

    def find(self, entry: ListEntry, subset: str) -> str | None:
        """Finds the file of a video that a list names by its id; returns its path, or None.

        The name is `<id>_<start>_<end>` with any number of digits, or else `<id>`, unless several entries have this id.
        Among files of the same name, the folders of the subset ("train" or "val") and of the class decide.
        """
        paths = self._by_stem.get(entry.path) or self._by_times.get(entry.path)
        if not paths and self._num_clips[entry.video_id] == 1:
            paths = self._by_stem.get(entry.video_id)
        if paths and "\0" in paths:
            return _nearest(paths.split("\0"), {*_SUBSET_FOLDERS[subset], loosely(entry.label)})
        return paths

    def find_named(self, path: str) -> list[str]:
        """Finds the files with the file name of a path, in upper or lower case, with any video ending."""
        return self._by_name.get(_stem(path.rpartition("/")[2]).casefold(), [])

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        """Maps each stem to its file paths, joined with zero bytes, because lists would double the memory."""
        index: dict[str, str] = {}
        # Unreadable folders count as empty.
        for path, _ in walk_files(str(self._root), on_error=lambda error: None):
            name = os.path.basename(path)
            if is_video(name):
                stem = name[: name.rindex(".")]
                index[stem] = f"{index[stem]}\0{path}" if stem in index else path
        return index

    @cached_property
    def _by_times(self) -> dict[str, str]:
        """Maps names of an id and times, rewritten to six digits, to their file paths."""
        index: dict[str, str] = {}
        for stem, paths in self._by_stem.items():
            times = re.fullmatch(r"(.+)_(\d{1,18})_(\d{1,18})", stem)
            if times:
                usual = f"{times.group(1)}_{int(times.group(2)):06d}_{int(times.group(3)):06d}"
                index[usual] = f"{index[usual]}\0{paths}" if usual in index else paths
        return index

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = defaultdict(list)
        for stem, paths in self._by_stem.items():
            index[stem.casefold()] += paths.split("\0")
        return index

    @cached_property
    def _num_clips(self) -> Counter[str]:
        """Counts the different clips of each id among the entries."""
        return Counter(video_id for _, video_id in {(entry.path, entry.video_id) for entry in self._entries})


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if is_video(name) else name


def _nearest(paths: Iterable[str], wanted: set[str]) -> str:
    """Chooses the path with the most folders named in `wanted`; ties go to the first in sorted order."""

    def rank(path: str) -> tuple[int, str]:
        folders = os.path.dirname(path).replace("\\", "/").split("/")
        return -sum(loosely(folder) in wanted for folder in folders), path

    return min(paths, key=rank)
