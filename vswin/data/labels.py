"""From entries of a list to labelled files, wherever the files lie. Called by `vswin.data.catalog`."""

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

# Folders as people name the parts of a data set.
_SUBSET_FOLDERS = {"train": ("train", "training"), "val": ("val", "validate", "validation", "valid", "test")}


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
    entries: Sequence[ListEntry], subset: str, classes: ClassLookup, base: str, files: "FileIndex | None" = None
) -> Listed:
    """Turns the entries of one list into records.

    Args:
        entries: of the list.
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
    """Finds path and real path of a file that is spelt otherwise or does not lie where the list says."""
    # Other systems separate folders and compose letters otherwise.
    written = entry.path.replace("\\", "/")
    for spelling in dict.fromkeys((written, normalize("NFC", written), normalize("NFD", written))):
        if spelling != entry.path and (paths := folders.find(spelling)):
            return paths
    # A file of that name in any folder but that of another class.
    named = files.find_named(written) if files else []
    named = [path for path in named if classes.find_folder(os.path.dirname(path).replace(os.sep, "/")) in (-1, label)]
    if not named:
        return None
    path = _nearest(named, {loosely(part) for part in os.path.dirname(written).split("/") if part})
    paths = folders.find(os.path.abspath(path))
    return (path, paths[1]) if paths else None


class _Folders:
    """Looks up files by path, reading each folder once: far quicker than asking for 240,000 files one by one."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._folders: dict[str, tuple[str, str, dict[str, bool]]] = {}  # path, real path, name -> whether it is a link
        self._links: dict[str, str] = {}

    def find(self, path: str) -> tuple[str, str] | None:
        """Gives the path from here of a file, and its real path; None if there is none."""
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
        # A file system may take names for equal that differ in case.
        return (joined + name, os.path.realpath(joined + name)) if name and os.path.exists(joined + name) else None


class FileIndex:
    """Finds video files below a folder by name, wherever they lie; reads the folders when the first is looked for.

    `entries` are all that will be looked for by `find`, so that no two of them get one file.
    """

    def __init__(self, root: Path, entries: Sequence[ListEntry] = ()) -> None:
        self._root = root
        self._entries = entries

    def find(self, entry: ListEntry, subset: str) -> str | None:
        """Finds the file of a video that a list names by its id.

        Returns:
            `<id>_<start>_<end>` with any number of digits; without one, `<id>`, unless several entries have this id;
            or None. Of several files of one name, the one in the folder of the subset ("train" or "val") and class.
        """
        paths = self._by_stem.get(entry.path) or self._by_times.get(entry.path)
        if not paths and self._num_clips[entry.video_id] == 1:
            paths = self._by_stem.get(entry.video_id)
        if paths and "\0" in paths:
            return _nearest(paths.split("\0"), {*_SUBSET_FOLDERS[subset], loosely(entry.label)})
        return paths

    def find_named(self, path: str) -> list[str]:
        """Finds the files that are called as in a path, with any ending of a video, in capitals or not."""
        return self._by_name.get(_stem(path.rpartition("/")[2]).casefold(), [])

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        """The paths of the files of each stem, which a zero separates: a list for each would double the memory."""
        index: dict[str, str] = {}
        # A folder that cannot be read has no files.
        for path, _ in walk_files(str(self._root), on_error=lambda error: None):
            name = os.path.basename(path)
            if is_video(name):
                stem = name[: name.rindex(".")]
                index[stem] = f"{index[stem]}\0{path}" if stem in index else path
        return index

    @cached_property
    def _by_times(self) -> dict[str, str]:
        """The paths of the files that are named by id and times, as if these had six digits."""
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
        """Counts the different clips that are looked for under each id."""
        return Counter(video_id for _, video_id in {(entry.path, entry.video_id) for entry in self._entries})


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if is_video(name) else name


def _nearest(paths: Iterable[str], wanted: set[str]) -> str:
    """Chooses the path with the most folders of the wanted names; among equals the first in sorted order."""

    def rank(path: str) -> tuple[int, str]:
        folders = os.path.dirname(path).replace("\\", "/").split("/")
        return -sum(loosely(folder) in wanted for folder in folders), path

    return min(paths, key=rank)
