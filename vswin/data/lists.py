"""Lists of videos with labels, and which videos are held out. Called by `vswin.data.catalog`.

A list has `path label` in each line, where the label follows the last white space, or the columns path,label of a
CSV. A label is a class index from 0 or a class name, the same kind throughout.
"""

import csv
import hashlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from vswin.data.annotations.entries import ListEntry, read_lines, read_text
from vswin.data.records import VideoRecord
from vswin.errors import InputError

_HEADERS = (["path", "label"], ["video", "label"], ["filename", "label"])


def read_list(path: Path) -> list[ListEntry]:
    """Reads a list in either form; blank lines, comments (#) and a CSV header are passed over.

    Its first line tells the form: `path,label` or `path label`; where it could be both, the ending of the file.

    Args:
        path: UTF-8 text, with or without a byte order mark.

    Returns:
        The entries in the order of the file, at least one.

    Raises:
        InputError: if the file cannot be read, a line is malformed, or indices and names are mixed.
    """
    lines = [(number, line) for number, line in read_lines(path) if not line.startswith("#")]
    if not lines:
        raise InputError(f"The list {path} names no videos")
    entries = list(_read_csv(path) if _is_csv(path, lines[0][1]) else _read_text(path, lines))
    if not entries:
        raise InputError(f"The list {path} names no videos")
    # Labels are few, lists are long.
    first_of_label = {entry.label: entry for entry in reversed(entries)}
    for entry in first_of_label.values():
        if entry.has_index != entries[0].has_index:
            raise InputError(
                f"{entry.place}: the label {entry.label!r}, but {entries[0].label!r} at {entries[0].place}; labels are "
                "all class indices or all class names"
            )
    return entries


def _is_csv(path: Path, line: str) -> bool:
    """Tells by the first line that holds something."""
    can_be_csv = "," in line and not line.endswith(",")
    can_be_text = len(line.rsplit(maxsplit=1)) == 2
    return can_be_csv if can_be_csv != can_be_text else path.suffix.lower() == ".csv"


def _read_text(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[ListEntry]:
    source = str(path)
    for number, line in lines:
        cells = line.rsplit(maxsplit=1)
        if len(cells) != 2:
            raise InputError(f"{path}:{number}: expected `path label`, found {line!r}")
        if [cell.lower() for cell in cells] not in _HEADERS:
            yield ListEntry(source, number, *cells)


def _read_csv(path: Path) -> Iterator[ListEntry]:
    source = str(path)
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#") or [cell.lower() for cell in cells] in _HEADERS:
                continue
            if len(cells) != 2 or not all(cells):
                raise InputError(f"{path}:{reader.line_num}: expected `path,label`, found {','.join(row)!r}")
            yield ListEntry(source, reader.line_num, *cells)
    except csv.Error as error:
        raise InputError(f"The list {path} cannot be read: line {reader.line_num}: {error}") from error


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
