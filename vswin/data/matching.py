"""Match list entries with video files, wherever the files lie, and with class indices."""

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple
from unicodedata import normalize

from vswin.data.class_names import ClassLookup, loosely
from vswin.data.decode import PICTURE_SUFFIXES, USUAL_RATE
from vswin.data.folder import is_video, real_path, walk_files
from vswin.data.lists import ListEntry, is_index
from vswin.data.samples import TRAIN, VAL, WHOLE, Sample, Segment
from vswin.data.seeking import ROUNDING_SEC
from vswin.errors import InputError

# Usual folder names of the subsets of a data set.
_SUBSET_FOLDERS = {TRAIN: {"train", "training"}, VAL: {"val", "validate", "validation", "valid", "test"}}


class UnusedEntry(NamedTuple):
    """A list entry whose video does not exist, or that repeats an earlier entry: file and line, path, class indices."""

    where: str
    path: str
    labels: tuple[int, ...]


class Listed(NamedTuple):
    """The contents of a list: a record of each existing file, the missing videos, and the repeated ones."""

    videos: list[Sample]
    missing: list[UnusedEntry]
    repeated: list[UnusedEntry]


def label_videos(
    entries: Sequence[ListEntry],
    subset: str,
    classes: ClassLookup,
    base: str,
    files: "FileIndex | None" = None,
    several: bool = False,
) -> Listed:
    """Turns the entries of one list into records, in the same order.

    Relative paths start from the folder `base`. `files` finds videos that a list names by id or that lie in another
    folder than listed; with None, they are not searched. Entries that name the same part of one file, in any
    spelling of its path, are one sample; but a video that the list names by its id may have several classes. With
    `several`, a sample has the labels of all its entries. An `InputError` refuses unknown labels, an index that
    contradicts the video's folder, and without `several` a part of a file with two labels.
    """
    found = Listed([], [], [])
    folders = _Folders(base)
    first: dict[object, ListEntry] = {}
    indices: dict[object, int] = {}  # of the samples, by file and part
    for entry in entries:
        labels = _find_labels(entry, classes, several)
        path: str | None
        key: str | tuple[str, tuple[int, ...]]
        if entry.video_id:
            path, key = files.find_id(entry, subset) if files else None, (entry.path, () if several else labels)
        else:
            path, key = folders.find(entry.path) or _find_elsewhere(entry, labels, classes, folders, files, several)
        part = entry.part
        if part.segment and not part.segment.in_frames and path is not None and os.path.isdir(path):
            part = part._replace(segment=_in_pictures(part.segment, entry.rate or float(USUAL_RATE)))
        whole_key = (key, part) if part != WHOLE else key
        earlier = first.setdefault(whole_key, entry)
        if earlier is entry and path is not None:
            if several:
                indices[whole_key] = len(found.videos)
            found.videos.append(Sample(path, labels, part, entry.group))
            continue
        unused = UnusedEntry(entry.where, f"{path or (entry.path if entry.video_id else key)}{part}", labels)
        if several and whole_key in indices:
            sample = found.videos[indices[whole_key]]
            found.videos[indices[whole_key]] = sample._replace(labels=tuple(sorted({*sample.labels, *labels})))
        elif _find_labels(earlier, classes, several) != labels and not several:
            raise InputError(
                f"{earlier.where} and {entry.where} name one file, {unused.path}, with two labels, "
                f"{earlier.label!r} and {entry.label!r}; remove one of the lines"
            )
        (found.missing if earlier is entry else found.repeated).append(unused)
    return found


def _in_pictures(segment: Segment, rate: float) -> Segment:
    """Converts seconds to numbers of pictures."""
    first = max(math.ceil((segment.start - ROUNDING_SEC) * rate), 0)
    end = math.inf if segment.end == math.inf else math.ceil((segment.end - ROUNDING_SEC) * rate)
    return Segment(first, max(end, first + 1), in_frames=True)


def _find_labels(entry: ListEntry, classes: ClassLookup, several: bool) -> tuple[int, ...]:
    if not several:
        return (_find_label(entry.label, entry, classes),)
    return tuple(sorted({_find_label(label, entry, classes, has_folder=False) for label in entry.labels(several)}))


def _find_label(written: str, entry: ListEntry, classes: ClassLookup, has_folder: bool = True) -> int:
    """Finds the index of a class; `has_folder` tells whether the video may lie in the folder of its class."""
    num_classes = len(classes.class_names)
    if not is_index(written):
        label = classes.find(written)
        if label < 0:
            hint = "class names that hold spaces need a .csv list, tabs or quotes"
            raise InputError(f"{entry.where}: {classes.explain(written)} ({hint})")
        return label
    label = int(written)
    if not 0 <= label < num_classes:
        raise InputError(f"{entry.where}: label {label} is out of range, the {num_classes} classes count from 0")
    folder = entry.path.replace("\\", "/").rpartition("/")[0]
    if has_folder and classes.find_folder(folder) not in (-1, label):
        raise InputError(
            f"{entry.where}: the video lies in {folder.rpartition('/')[2]!r}, but class {label} is "
            f"{classes.class_names[label]!r}; the list counts the classes in another order"
        )
    return label


def _find_elsewhere(
    entry: ListEntry,
    labels: tuple[int, ...],
    classes: ClassLookup,
    folders: "_Folders",
    files: "FileIndex | None",
    several: bool,
) -> tuple[str | None, str]:
    """Finds path and real path of a file whose spelling or folder differs from the list; or None and its path."""
    # Other systems use other path separators and Unicode forms.
    written = entry.path.replace("\\", "/")
    for spelling in (written, normalize("NFC", written), normalize("NFD", written)):
        if spelling != entry.path and (paths := folders.find(spelling)):
            return paths
    # Search all folders, except folders of other classes, for a file of this name.
    folder, _, name = written.rpartition("/")
    named = files.find_named(name) if files else []
    if not several:
        allowed = (-1, *labels)
        named = [path for path in named if classes.find_folder(os.path.dirname(path).replace(os.sep, "/")) in allowed]
    if named:
        path = _nearest(named, {loosely(part) for part in folder.split("/") if part})
        if paths := folders.find(os.path.abspath(path)):
            return path, paths[1]
    return None, folders.join(entry.path)


class _Folders:
    """Looks up files by path and reads each folder once, far faster than 240,000 single file checks."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._folders: dict[str, tuple[str, str, dict[str, bool]]] = {}  # path, real path, name -> is it a link
        self._links: dict[str, str] = {}

    def join(self, path: str) -> str:
        return os.path.join(self._base, path)

    def find(self, path: str) -> tuple[str, str] | None:
        """Returns the path of a file, joined with the base, and its real path; None if it does not exist."""
        folder, slash, name = path.rpartition("/")
        folder += slash
        if folder not in self._folders:
            joined = self.join(folder)
            real, names = os.path.join(os.path.realpath(joined), ""), {}
            if os.path.isdir(real):
                with os.scandir(real) as entries:
                    names = {entry.name: entry.is_symlink() for entry in entries}
            self._folders[folder] = joined, joined if joined == real else real, names
        joined, real, names = self._folders[folder]
        found = joined + name
        if name in names:
            return found, real_path(found, self._links) if names[name] else found if real is joined else real + name
        # Some file systems ignore case.
        return (found, os.path.realpath(found)) if name and os.path.exists(found) else None


class FileIndex:
    """Finds video files by name anywhere below a folder; reads the folders at the first search.

    `entries` must contain every entry that `find_id` will search for, so that no two entries get the same file.
    """

    def __init__(self, root: str, entries: Sequence[ListEntry] = ()) -> None:
        self._root = root
        self._entries = entries

    def find_id(self, entry: ListEntry, subset: str) -> str | None:
        """Finds the file of a video that a list names by its id; returns its path, or None.

        The name is `<id>_<start>_<end>` with any number of digits, or else `<id>`, unless several entries have this id.
        Among files of the same name, the folders of the subset ("train" or "val") and of the class decide.
        """
        paths = self._by_stem.get(entry.path) or self._find_similar(entry.path, entry.video_id)
        if not paths and self._num_clips[entry.video_id] == 1:
            paths = self._find_similar(entry.video_id, entry.video_id)
        if len(paths) > 1:
            return _nearest(paths, _SUBSET_FOLDERS[subset] | {loosely(entry.label)})
        return paths[0] if paths else None

    def _find_similar(self, stem: str, video_id: str) -> list[str]:
        """Finds names that `_key` makes equal; ids that differ in upper and lower case stay different."""
        return [path for path in self._by_key.get(_key(stem), []) if os.path.basename(path).startswith(video_id)]

    def find_named(self, name: str) -> list[str]:
        """Finds the files of this name, in upper or lower case, with any video ending."""
        return self._by_key.get(_key(name.rpartition(".")[0] if is_video(name) else name), [])

    @cached_property
    def _num_clips(self) -> Counter[str]:
        return Counter(video_id for _, video_id in {(entry.path, entry.video_id) for entry in self._entries})

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        seen = {self._root}  # folders of pictures, which are videos
        # Unreadable folders count as empty.
        for path, _ in walk_files(self._root, on_error=lambda error: None):
            folder, _, name = path.rpartition(os.sep)
            if is_video(name):
                files.setdefault(name[: name.rfind(".")], []).append(path)
            elif folder not in seen and name[name.rfind(".") :].lower() in PICTURE_SUFFIXES:
                seen.add(folder)
                files.setdefault(os.path.basename(folder), []).append(folder)
        return files

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        """The same files by comparable names, made only if an exact name is not found."""
        files: dict[str, list[str]] = defaultdict(list)
        for stem, paths in self._by_stem.items():
            files[_key(stem)] += paths
        return files


def _key(stem: str) -> str:
    """Makes a file's name without its ending comparable: in lower case, and with times of six digits."""
    stem = stem.casefold()
    times = re.fullmatch(r"(.+)_(\d{1,18})_(\d{1,18})", stem)
    return f"{times[1]}_{int(times[2]):06d}_{int(times[3]):06d}" if times else stem


def _nearest(paths: Sequence[str], wanted: set[str]) -> str:
    """Chooses the path with the most folders named in `wanted`; ties go to the first in sorted order."""

    def rank(path: str) -> tuple[int, str]:
        folders = os.path.dirname(path).replace("\\", "/").split("/")
        return -sum(loosely(folder) in wanted for folder in folders), path

    return min(paths, key=rank)
