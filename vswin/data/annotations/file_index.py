"""The video files below a folder, found by name wherever they lie. Called by `vswin.data.catalog`."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from unicodedata import normalize

from vswin.data.annotations.entries import ListEntry
from vswin.data.folder import is_video, real_path, walk_files

# Folders as people name the parts of a data set.
_SUBSET_FOLDERS = {"train": ("train", "training"), "val": ("val", "validate", "validation", "valid", "test")}

_TIMES = re.compile(r"(.+)_(\d{1,18})_(\d{1,18})")


class FileIndex:
    """Knows all video files below a folder; the folders are read once, when the first file is looked for."""

    def __init__(self, root: Path, entries: Sequence[ListEntry] = ()) -> None:
        """Takes the folder.

        Args:
            root: the folder, walked through links too; if there is none, there are no files.
            entries: all that will be looked for by `find`, so that no two of them get one file.
        """
        self._root = root
        self._entries = entries

    @cached_property
    def only(self) -> dict[str, str]:
        """The file of each stem that only one file has."""
        return self._files[0]

    def find(self, entry: ListEntry, subset: str) -> str | None:
        """Finds the file of a video that a list names by its id.

        Args:
            entry: of the list.
            subset: "train" or "val"; of several files of one name, that in a folder called so is taken, or in one
                called like the class.

        Returns:
            The file with the expected name; without one, the only file whose name begins with the id, provided
            that it is no other entry's; or None.
        """
        only, several = self._files
        stem = entry.path if entry.path in only or entry.path in several else self._find_by_id(entry)
        if stem in several:
            return _nearest(several[stem], {*_SUBSET_FOLDERS[subset], _loosely(entry.label)})
        return only[stem] if stem else None

    def find_elsewhere(self, path: str, is_possible: Callable[[str], bool]) -> str | None:
        """Finds a file that does not lie where a list says.

        Args:
            path: as the list says; its file name counts, with any ending of a video, in capitals or not.
            is_possible: whether it may be a given file.

        Returns:
            The file; of several, the one in folders most like those of the list.
        """
        folder, name = os.path.split(path)
        found = [found for found in self._by_loose_stem.get(_stem(name).casefold(), ()) if is_possible(found)]
        wanted = {_loosely(part) for part in folder.split("/") if part}
        return _nearest(found, wanted) if found else None

    @cached_property
    def _files(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Sorts the files by stem: those whose stem is theirs alone, and the others."""
        only: dict[str, str] = {}
        several: dict[str, list[str]] = {}
        for path, stem in _walk(str(self._root)):
            first = only.setdefault(stem, path)
            if first is not path:
                several.setdefault(stem, [first]).append(path)
        for stem in several:
            del only[stem]
        return only, several

    @cached_property
    def _by_loose_stem(self) -> dict[str, list[str]]:
        only, several = self._files
        index: dict[str, list[str]] = defaultdict(list)
        for stem, paths in chain(several.items(), ((stem, [path]) for stem, path in only.items())):
            index[stem.casefold()] += paths
        return index

    def _find_by_id(self, entry: ListEntry) -> str | None:
        """Finds the stem of a file called `<id>` or `<id>_<start>_<end>`; other times count if there is no choice."""
        stems = self._by_id.get(entry.video_id, [])
        times = _parse_times(entry.path)
        fitting = [stem for stem in stems if times and _parse_times(stem) == times]
        if fitting or self._num_clips[entry.video_id] > 1:
            stems = fitting
        return stems[0] if len(stems) == 1 else None

    @cached_property
    def _num_clips(self) -> Counter[str]:
        """Counts the different clips that are looked for under each id."""
        return Counter(video_id for _, video_id in {(entry.path, entry.video_id) for entry in self._entries})

    @cached_property
    def _by_id(self) -> dict[str, list[str]]:
        """Sorts the files that no entry expects by the ids in their names."""
        expected = {entry.path for entry in self._entries}
        index: dict[str, list[str]] = defaultdict(list)
        for stem in chain(*self._files):
            if stem not in expected:
                times = _TIMES.fullmatch(stem)
                # An id may look like one with times.
                is_id = times is None or stem in self._num_clips
                index[stem if is_id or times is None else times.group(1)].append(stem)
        return index


class Folders:
    """Looks up files by path, reading each folder once: far quicker than asking for 240,000 files one by one."""

    def __init__(self, base: str) -> None:
        """Takes the folder that relative paths start from."""
        self._base = base
        self._folders: dict[str, tuple[str, str, dict[str, bool]]] = {}
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


def _walk(root: str) -> Iterable[tuple[str, str]]:
    """Gives path and stem of every video file; a folder that cannot be read has none."""
    for path, _ in walk_files(root, on_error=lambda error: None):
        name = os.path.basename(path)
        if is_video(name):
            yield path, name[: name.rindex(".")]


def _parse_times(stem: str) -> tuple[int, int] | None:
    times = _TIMES.fullmatch(stem)
    return (int(times.group(2)), int(times.group(3))) if times else None


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if is_video(name) else name


def _nearest(paths: Iterable[str], wanted: set[str]) -> str:
    """Chooses the path with the most folders of the wanted names; among equals the first in sorted order."""

    def rank(path: str) -> tuple[int, str]:
        folders = os.path.dirname(path).replace("\\", "/").split("/")
        return -sum(_loosely(folder) in wanted for folder in folders), path

    return min(paths, key=rank)


def _loosely(name: str) -> str:
    return re.sub(r"[\W_]+", "", normalize("NFC", name).casefold())
