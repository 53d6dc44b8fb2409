"""Annotation lists: which file has which label, and which videos are held out. Called by `vswin.data.catalog`.

A `.csv` list has the columns path,label; any other list has `path label` in each line, where the label follows
the last white space. A label is a class index from 0 or a class name, the same kind throughout.
"""

import csv
import difflib
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vswin.data.records import VideoRecord
from vswin.errors import InputError


class ListEntry(NamedTuple):
    """Holds a line of a list as it is written there.

    Attributes:
        place: file and line for messages, "train.txt:3".
        path: of the video.
        label: class index or class name.
    """

    place: str
    path: str
    label: str

    @property
    def has_index(self) -> bool:
        """Tells whether the label is a number."""
        return self.label.removeprefix("-").isdecimal()


def read_list(path: Path) -> list[ListEntry]:
    """Reads a list in either form; blank lines, comments (#) and a CSV header are passed over.

    Args:
        path: UTF-8 text, with or without a byte order mark.

    Returns:
        The entries in the order of the file, at least one.

    Raises:
        InputError: if the file cannot be read, a line is malformed, or indices and names are mixed.
    """
    read_rows = _read_csv if path.suffix.lower() == ".csv" else _read_text
    try:
        entries = list(read_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The list {path} cannot be read: {error}") from error
    if not entries:
        raise InputError(f"The list {path} names no videos")
    for entry in entries:
        if entry.has_index != entries[0].has_index:
            raise InputError(
                f"{entry.place}: the label {entry.label!r}, but {entries[0].label!r} at {entries[0].place}; labels are "
                "all class indices or all class names"
            )
    return entries


def _read_text(path: Path) -> Iterator[ListEntry]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            cells = line.strip().rsplit(maxsplit=1)
            if len(cells) != 2:
                raise InputError(f"{path}:{number}: expected `path label`, found {line.strip()!r}")
            yield ListEntry(f"{path}:{number}", *cells)


def _read_csv(path: Path) -> Iterator[ListEntry]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#") or [cell.lower() for cell in cells] == ["path", "label"]:
                continue
            if len(cells) != 2 or not all(cells):
                raise InputError(f"{path}:{reader.line_num}: expected `path,label`, found {','.join(row)!r}")
            yield ListEntry(f"{path}:{reader.line_num}", *cells)


def read_ucf101_list(path: Path, class_names: Sequence[str], is_flat: bool) -> list[ListEntry]:
    """Reads an official list of UCF101: `Class/v_Class_g01_c01.avi`, in training lists with a label from 1.

    Args:
        path: a `trainlist0N.txt` or `testlist0N.txt`.
        class_names: the classes in their official order.
        is_flat: whether the videos lie in one folder, without class folders.

    Returns:
        An entry per video, labelled with its class name.

    Raises:
        InputError: if the file cannot be read, or a label contradicts the order of the classes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {path} cannot be read: {error}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        video, *labels = line.split()
        class_name, _, name = video.partition("/")
        if not name or len(labels) > 1:
            raise InputError(f"{place}: expected `Class/video.avi` or `Class/video.avi label`, found {line!r}")
        if labels and labels != [str(class_names.index(class_name) + 1) if class_name in class_names else ""]:
            raise InputError(f"{place}: label {labels[0]} for {class_name!r}; the official labels count from 1")
        entries.append(ListEntry(place, name if is_flat else video, class_name))
    return entries


def find_class_names(entries: Sequence[ListEntry], num_classes: int | None) -> tuple[str, ...]:
    """Takes the class names from the labels themselves, for a data set that has no list of classes.

    Args:
        entries: of all lists of the data set.
        num_classes: how many there are; None where the labels tell.

    Returns:
        The sorted names, or "0", "1" and so on up to the largest index.

    Raises:
        InputError: if one list has indices and another names, or an index exceeds the number of videos.
    """
    if len({entry.has_index for entry in entries}) > 1:
        raise InputError("One list labels with class indices and the other with class names; use one kind in both")
    if not entries[0].has_index:
        return tuple(sorted({entry.label for entry in entries}))
    if num_classes is None:
        largest = max(entries, key=lambda entry: int(entry.label))
        num_classes = int(largest.label) + 1
        if num_classes > len(entries):
            raise InputError(
                f"{largest.place}: label {largest.label}, in a data set of {len(entries)} videos; class indices "
                "count from 0 (if there are that many classes, set dataset.num_classes)"
            )
    return tuple(str(index) for index in range(num_classes))


def label_videos(entries: Sequence[ListEntry], class_names: Sequence[str], base: str) -> list[VideoRecord]:
    """Turns entries into records.

    Args:
        entries: of one list.
        class_names: name of each class index.
        base: folder that relative paths start from.

    Returns:
        A record per entry, in their order.

    Raises:
        InputError: if a label is out of range or unknown, an index contradicts the folder the video lies in, or
            files are absent.
    """
    indices = {name: index for index, name in enumerate(class_names)}
    folders = {name.replace("_", " "): index for name, index in indices.items() if not name.isdecimal()}
    records = []
    for entry in entries:
        label = int(entry.label) if entry.has_index else indices.get(entry.label, -1)
        if not 0 <= label < len(class_names):
            raise InputError(f"{entry.place}: {_explain_label(entry, class_names)}")
        folder = os.path.basename(os.path.dirname(entry.path))
        if entry.has_index and folders.get(folder.replace("_", " "), label) != label:
            raise InputError(
                f"{entry.place}: the video lies in {folder!r}, but class {label} is {class_names[label]!r}; the "
                "list counts the classes in another order"
            )
        records.append(VideoRecord(os.path.join(base, entry.path), label))
    _check_present(entries, records)
    return records


def _explain_label(entry: ListEntry, class_names: Sequence[str]) -> str:
    if entry.has_index:
        return f"label {entry.label} is out of range, the {len(class_names)} classes count from 0"
    close = difflib.get_close_matches(entry.label, class_names)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"unknown class {entry.label!r}{hint} (class names that hold spaces need a .csv list)"


def _check_present(entries: Sequence[ListEntry], records: Sequence[VideoRecord]) -> None:
    """Looks up every file, reading each folder once: far quicker than asking for 240,000 files one by one."""
    names: dict[str, set[str]] = {}
    absent = []
    for entry, record in zip(entries, records, strict=True):
        folder, name = os.path.split(record.path)
        if folder not in names:
            names[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        # A file system may take names for equal that differ in case.
        if name not in names[folder] and not os.path.exists(record.path):
            absent.append(f"{entry.place}: {record.path}")
    if absent:
        raise InputError(
            f"{len(absent):,} of the {len(records):,} videos of a list are not there; set dataset.root to the folder "
            "its paths start from, or remove their lines. The first are:\n  " + "\n  ".join(absent[:5])
        )


def split_train_val(
    records: Sequence[VideoRecord], val_fraction: float, base: str
) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """Holds out a share of each class, the same videos wherever the data set lies and however it is ordered.

    Files called alike up to a `_g01_`, as in UCF101, are cut from one recording and stay together; any other
    file is a group of its own. A class of one group is not divided: all of it is for training.

    Args:
        records: videos of all classes.
        val_fraction: share of the groups of a class to hold out, above 0 and below 1; rounded, at least one group.
        base: folder of the data set, no part of a group's name.

    Returns:
        Training and validation records, each in the order given.
    """
    groups = [_group_name(record.path, base) for record in records]
    by_class: dict[int, set[str]] = defaultdict(set)
    for record, group in zip(records, groups, strict=True):
        by_class[record.label].add(group)
    held_out: set[tuple[int, str]] = set()
    for label, names in by_class.items():
        num_val = max(1, round(val_fraction * len(names)))
        ordered = sorted(names, key=lambda name: hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest())
        held_out.update((label, name) for name in ordered[: min(num_val, len(names) - 1)])
    is_val = [(record.label, group) in held_out for record, group in zip(records, groups, strict=True)]
    train = [record for record, held in zip(records, is_val, strict=True) if not held]
    val = [record for record, held in zip(records, is_val, strict=True) if held]
    return train, val


def _group_name(path: str, base: str) -> str:
    name = Path(os.path.relpath(path, base)).as_posix()
    recording = re.match(r".*_g\d+_", name)
    return recording.group() if recording else name
