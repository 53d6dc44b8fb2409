"""Look up what the repository knows about a data set: its class names, in any spelling, and its number of videos."""

import difflib
import json
import re
from collections.abc import Sequence
from unicodedata import normalize

from vswin.config.load import DATA_DIR
from vswin.errors import InputError


def read_class_names(name: str) -> tuple[str, ...]:
    """Reads `data/<name>/classes.txt`: one class name per line, in the order of the class indices."""
    return tuple((DATA_DIR / name / "classes.txt").read_text(encoding="utf-8").splitlines())


def official_counts(name: str, split: int = 1) -> dict[str, int] | None:
    """Reads the number of videos of the complete data set from `data/<name>/counts.json`: {"train": 1, "val": 1}.

    A data set without splits only has split 1. None if the counts are unknown, as for your own videos.
    """
    path = DATA_DIR / name / "counts.json"
    if not path.is_file():
        return None
    counts: dict[str, int] | None = json.loads(path.read_text(encoding="utf-8")).get(str(split))
    return counts


class ClassLookup:
    """Finds the index of a class by its name in any spelling.

    "massaging person's head", `massaging_person's_head` and `Massaging_persons_head` are one class: only letters and
    digits count. With `is_exact`, for your own classes, all characters count and only Unicode forms (NFC) are unified.
    """

    def __init__(self, class_names: Sequence[str], is_exact: bool = False) -> None:
        self.class_names = tuple(class_names)
        self._is_exact = is_exact
        self._indices = {self._key(name): index for index, name in enumerate(self.class_names)}
        # A folder named 3 says nothing about the class of its videos.
        self._folders = {loosely(name): index for index, name in enumerate(self.class_names) if not name.isdecimal()}
        # Results are remembered, because lists are long and spellings are few.
        self._found: dict[str, int] = {}
        self._found_folders: dict[str, int] = {}

    def find(self, name: str) -> int:
        """Returns the index of a class; -1 if there is no such class."""
        index = self._found.get(name)
        if index is None:
            index = self._found[name] = self._indices.get(self._key(name), -1)
        return index

    def find_folder(self, path: str) -> int:
        """Returns the index of the class that has the name of a path's last folder; -1 if no class has it."""
        index = self._found_folders.get(path)
        if index is None:
            index = self._found_folders[path] = self._folders.get(loosely(path.rpartition("/")[2]), -1)
        return index

    def expect(self, name: str, place: str) -> int:
        """Returns the index of a class; if there is none, an `InputError` names `place` and the nearest classes."""
        index = self.find(name)
        if index < 0:
            raise InputError(f"{place}: {self.explain(name)}")
        return index

    def explain(self, name: str) -> str:
        """Writes the error message for an unknown class, with the nearest classes."""
        keys = {name.casefold(): name for name in self.class_names}
        close = difflib.get_close_matches(name.casefold().replace("_", " "), keys, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(keys[key]) for key in close)}?" if close else ""
        return f"unknown class {name!r}{hint}"

    def _key(self, name: str) -> str:
        return normalize("NFC", name) if self._is_exact else loosely(name)


def loosely(name: str) -> str:
    """Keeps only the letters and digits of a name, in lower case; a name without any stays unchanged."""
    return re.sub(r"[\W_]+", "", normalize("NFC", name).casefold()) or name
