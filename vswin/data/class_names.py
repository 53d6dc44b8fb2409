"""Match class names in any spelling, and read what the repository knows about a data set."""

import difflib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from unicodedata import normalize

from vswin.config.load import DATA_DIR
from vswin.console import count_of
from vswin.errors import InputError


def read_class_names(name: str) -> tuple[str, ...]:
    """Reads `data/<name>/classes.txt`: one class name per line, in the order of the class indices."""
    return tuple((DATA_DIR / name / "classes.txt").read_text(encoding="utf-8").splitlines())


def official_counts(name: str, split: int = 1) -> dict[str, int] | None:
    """Reads the number of videos of the complete data set, {"train": 1, "val": 1}; None if unknown.

    A data set without splits only has split 1.
    """
    path = DATA_DIR / name / "counts.json"
    if not path.is_file():
        return None
    counts: dict[str, int] | None = json.loads(path.read_text(encoding="utf-8")).get(str(split))
    return counts


@lru_cache(maxsize=100_000)
def loosely(name: str) -> str:
    """Keeps only the letters and digits of a name, in lower case; a name without any stays unchanged."""
    return re.sub(r"[\W_]+", "", normalize("NFC", name).casefold()) or name


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

    def find(self, name: str) -> int:
        """Returns the index of a class; -1 if there is no such class."""
        return self._indices.get(self._key(name), -1)

    def find_folder(self, path: str) -> int:
        """Returns the index of the class that has the name of a path's last folder; -1 if no class has it."""
        return self._folders.get(loosely(path.rpartition("/")[2]), -1)

    def expect(self, name: str, where: str) -> int:
        """Returns the index of a class; if there is none, an `InputError` says where, and names the nearest classes."""
        index = self.find(name)
        if index < 0:
            raise InputError(f"{where}: {self.explain(name)}")
        return index

    def explain(self, name: str) -> str:
        """Writes the error message for an unknown class, with the nearest classes."""
        keys = {name.casefold(): name for name in self.class_names}
        close = difflib.get_close_matches(name.casefold().replace("_", " "), keys, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(keys[key]) for key in close)}?" if close else ""
        return f"unknown class {name!r}{hint}"

    def _key(self, name: str) -> str:
        return normalize("NFC", name) if self._is_exact else loosely(name)


def note_spellings(names: Iterable[str], notes: list[str]) -> None:
    """Notes which names occur in several Unicode forms (NFC, NFD), as different systems write them."""
    counts = Counter(normalize("NFC", name) for name in names)
    several = sorted(name for name, count in counts.items() if count > 1)
    if several:
        notes.append(f"spelt in two compositions of Unicode, which count as one class: {', '.join(several)}")


def describe_classes(names: Sequence[str], labels_of: Mapping[str, set[int]]) -> list[str]:
    """Describes which classes a subset lacks, and which names may mean the same class.

    `labels_of` has the class indices that occur among the training, validation and test videos.
    """
    notes = []
    for role, labels in labels_of.items():
        absent = [name for label, name in enumerate(names) if label not in labels]
        if labels and absent:
            shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
            notes.append(f"{count_of(len(absent), 'class')} without {role} videos: {shown}")
    if tuple(names) == tuple(map(str, range(len(names)))) and not any(0 in labels for labels in labels_of.values()):
        notes.append("no video has the label 0: if the labels count from 1, subtract 1, or class '0' stays empty")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[" ".join(re.split(r"[\s_-]+", name.casefold().strip()))].append(name)
    return notes + [
        f"WARNING: {' and '.join(map(repr, group))} count as different classes; are they one, misspelt?"
        for group in alike.values()
        if len(group) > 1
    ]
