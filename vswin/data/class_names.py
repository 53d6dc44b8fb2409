"""What is known of a data set beforehand: its class names, however they are spelt, and its number of videos."""

import difflib
import json
import re
from collections.abc import Sequence
from unicodedata import normalize

from vswin.config.load import DATA_DIR
from vswin.errors import InputError


def read_class_names(name: str) -> tuple[str, ...]:
    """Reads `data/<name>/classes.txt`: a class name per line, in the order of the class indices."""
    return tuple((DATA_DIR / name / "classes.txt").read_text(encoding="utf-8").splitlines())


def official_counts(name: str, split: int = 1) -> dict[str, int] | None:
    """Reads from `data/<name>/counts.json` how many videos the complete data set has, like {"train": 1, "val": 1}.

    A data set without splits has number 1 alone. None if the counts are not known, as of your own videos.
    """
    path = DATA_DIR / name / "counts.json"
    if not path.is_file():
        return None
    counts: dict[str, int] | None = json.loads(path.read_text(encoding="utf-8")).get(str(split))
    return counts


class ClassLookup:
    """Finds the index of a class by its name, however it is spelt.

    "massaging person's head", `massaging_person's_head` and `Massaging_persons_head` are one class: letters and
    digits tell classes apart. Your own classes (`is_exact`) may differ in anything but the composition of Unicode.
    """

    def __init__(self, class_names: Sequence[str], is_exact: bool = False) -> None:
        self.class_names = tuple(class_names)
        self._is_exact = is_exact
        self._indices = {self._key(name): index for index, name in enumerate(self.class_names)}
        # A folder called 3 says nothing about the class of its videos.
        self._folders = {loosely(name): index for index, name in enumerate(self.class_names) if not name.isdecimal()}
        # Spellings are few, lists are long.
        self._found: dict[str, int] = {}
        self._found_folders: dict[str, int] = {}

    def find(self, name: str) -> int:
        """Gives the index of a class; -1 if there is no such class."""
        index = self._found.get(name)
        if index is None:
            index = self._found[name] = self._indices.get(self._key(name), -1)
        return index

    def find_folder(self, path: str) -> int:
        """Gives the index of the class that the last folder of a path is named after; -1 if it is named after none."""
        index = self._found_folders.get(path)
        if index is None:
            index = self._found_folders[path] = self._folders.get(loosely(path.rpartition("/")[2]), -1)
        return index

    def expect(self, name: str, place: str) -> int:
        """Gives the index of a class; if there is none, an `InputError` names `place` and the nearest classes."""
        index = self.find(name)
        if index < 0:
            raise InputError(f"{place}: {self.explain(name)}")
        return index

    def explain(self, name: str) -> str:
        """Says that there is no such class, and which ones come near."""
        keys = {name.casefold(): name for name in self.class_names}
        close = difflib.get_close_matches(name.casefold().replace("_", " "), keys, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(keys[key]) for key in close)}?" if close else ""
        return f"unknown class {name!r}{hint}"

    def _key(self, name: str) -> str:
        return normalize("NFC", name) if self._is_exact else loosely(name)


def loosely(name: str) -> str:
    """Keeps letters and digits of a name, in small letters; a name without any stays as it is."""
    return re.sub(r"[\W_]+", "", normalize("NFC", name).casefold()) or name
