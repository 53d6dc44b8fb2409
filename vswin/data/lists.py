"""Read lists of labelled videos in all formats, and choose the held-out videos. Called by `vswin.data.catalog`."""

import codecs
import csv
import hashlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from vswin.console import count_of
from vswin.data.folder import is_video
from vswin.data.records import VideoRecord
from vswin.errors import InputError

TRAIN, VAL, TEST = "train", "val", "test"
ROLES = {TRAIN: "training", VAL: "validation", TEST: "test"}

# Column names in headers, the best first.
_PATHS = (
    *("path", "video_path", "file_path", "filepath", "clip_path", "file_name", "filename", "video_name", "file"),
    *("video", "clip_name", "clip", "name"),
)
_FRAMES = ("frames", "num_frames", "total_frames", "frame_count")
_LABELS = ("label", "class", "class_name", "label_name", "category", "action", "target", "label_id", "class_id")
# A number with more digits is a name.
_MAX_DIGITS = 18
# The format and header are detected from at most this many characters of a line.
_LONGEST_LINE = 10_000


class ListEntry(NamedTuple):
    """Holds one line of a list as written.

    Attributes:
        source: the list file.
        line: line number from 1; 0 if the file has no lines.
        path: path of the video; for a video named by its id, the usual file name without its ending.
        label: class index from 0, or class name.
        video_id: the id, if the list names videos by id; otherwise empty.
    """

    source: str
    line: int
    path: str
    label: str
    video_id: str = ""

    @property
    def place(self) -> str:
        """File and line for messages, e.g. "train.txt:3"."""
        return f"{self.source}:{self.line}" if self.line else f"{self.source}, video {self.video_id or self.path}"

    @property
    def has_index(self) -> bool:
        """Tells whether the label is a class index."""
        return is_number(self.label.removeprefix("-"))


def is_number(text: str) -> bool:
    """Tells whether a text is a decimal number of at most 18 digits."""
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def read_text(path: Path) -> str:
    """Reads a whole list: UTF-8 with or without a byte order mark, or UTF-16 with one, as spreadsheets write it."""
    try:
        content = path.read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        if "\0" in text:
            raise UnicodeError("it holds zeros")
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"The list {path} cannot be read: {error}; lists are UTF-8, or UTF-16 with a byte order mark"
        ) from error
    return text


class _Form(NamedTuple):
    """The format of a line: how it splits into cells, their number, and the indices of path and label."""

    name: str
    separator: str  # " " is any white space before the last cells, or a tab
    num_cells: int
    path: int
    label: int


_FORMS = (
    _Form("path label", " ", 2, 0, 1),
    _Form("path frames label", " ", 3, 0, 2),
    _Form("path,label", ",", 2, 0, 1),
    _Form("path;label", ";", 2, 0, 1),
)
ACCEPTED = (
    "a list has lines `path label`, `path,label`, `path;label`, `path<tab>label` or `path frames label`, or a header "
    f"with one of the columns {', '.join(_PATHS)} and one of {', '.join(_LABELS)}"
)


def read_list(path: Path, base: str, notes: list[str]) -> list[ListEntry]:
    """Reads a list in any of the formats that data/README.md describes.

    A header determines the format. Without a header, the first line does: the format in which it names a file wins.
    Relative paths start from the folder `base`. `notes` gets a sentence about unused columns and comments.

    Returns:
        The entries in the order of the file, at least one.

    Raises:
        InputError: if the file cannot be read, a line is malformed, or indices and names are mixed.
    """
    text, source = read_text(path), str(path)
    form, header = _find_form(path, text, base)
    entries: list[ListEntry] = []
    num_comments = 0
    for number, cells in _split(path, text, form):
        if cells == header:
            continue
        is_whole = len(cells) == form.num_cells
        video, label = (cells[form.path].strip(), cells[form.label].strip()) if is_whole else (cells[0].strip(), "")
        if _is_comment(cells[0]) and not os.path.exists(os.path.join(base, video)):
            num_comments += 1
        elif video and label and "\n" not in label:  # an unclosed quote would put line breaks into the label
            entries.append(ListEntry(source, number, video, label))
        else:
            raise InputError(
                f"{path}:{number}: expected `{form.name}`, found {form.separator.join(cells)!r:.200}; {ACCEPTED}"
            )
    if not entries:
        raise InputError(f"The list {path} names no videos")
    _check_entries(entries, base, bool(header))

    columns = header or form.name.split(form.separator)
    unused = [name.strip() or "(no name)" for index, name in enumerate(columns) if index not in (form.path, form.label)]
    parts = [f"the column{'s' if len(unused) > 1 else ''} {', '.join(unused)}"] if unused else []
    parts += [count_of(num_comments, "line") + " of comments"] if num_comments else []
    if parts:
        notes.append(f"not used of {path}: {' and '.join(parts)}")
    return entries


def _find_form(path: Path, text: str, base: str) -> tuple[_Form, list[str]]:
    """Detects the format from the first line that is no comment; returns it with the header's cells, if any."""
    first = ""
    for line in filter(str.strip, io.StringIO(text, newline="")):
        first = line.rstrip("\r\n")[:_LONGEST_LINE]
        for form in (_read_header(first, separator) for separator in "\t,; "):
            if form:
                return form, _cells(first, form)
        if not _is_comment(first):
            break

    def rank(form: _Form) -> int:
        cells = [cell.strip() for cell in _cells(first, form)]
        if len(cells) != form.num_cells or not all(cells) or (form.num_cells == 3 and not cells[1].isdecimal()):
            return -1
        is_there = os.path.exists(os.path.join(base, cells[0]))
        return 4 * is_there + 2 * is_video(os.path.basename(cells[0])) + (form.num_cells == len(first.split()) == 3)

    is_csv = path.suffix.lower() == ".csv"
    return max(sorted(_FORMS, key=lambda form: (form.separator == " ") == is_csv), key=rank), []


def _read_header(line: str, separator: str) -> _Form | None:
    """Finds the path and label columns in a line; None if it is no header."""
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=separator == " "))
    names = [re.sub(r"[\s-]+", "_", cell.lower().strip(" #")) for cell in cells]
    columns = [next((names.index(name) for name in known if name in names), -1) for known in (_PATHS, _LABELS)]
    if -1 in columns:
        return None
    if separator not in " \t":
        return _Form(line, separator, len(names), *columns)
    # In these formats, white space may separate the cells of the other lines.
    if columns == [0, len(names) - 1] and all(name in _FRAMES for name in names[1:-1]) and len(names) < 4:
        return _FORMS[len(names) - 2]
    return _Form(line, separator, len(names), *columns) if separator == "\t" else None


def _split(path: Path, text: str, form: _Form) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number, from 1, and the cells of each non-empty line."""
    lines, number = io.StringIO(text, newline=""), 0
    try:
        if form.separator == " ":
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, _cells(line, form)
            return
        reader = csv.reader(lines, delimiter=form.separator)
        for cells in reader:
            number = reader.line_num
            if any(map(str.strip, cells)):
                yield number, cells
    except csv.Error as error:
        raise InputError(f"The list {path} cannot be read: line {number + 1}: {error}") from error


def _cells(line: str, form: _Form) -> list[str]:
    if form.separator != " ":
        return next(csv.reader([line], delimiter=form.separator))
    line = line.strip()
    if "\t" in line:
        return [cell for cell in next(csv.reader([line], delimiter="\t")) if cell.strip()]
    if '"' in line or line.startswith("'"):
        quote = "'" if line.startswith("'") else '"'
        cells = next(csv.reader([line], delimiter=" ", quotechar=quote, skipinitialspace=True))
        if len(cells) >= form.num_cells:
            return [" ".join(cells[: 1 - form.num_cells]), *cells[1 - form.num_cells :]]
    return line.rsplit(maxsplit=form.num_cells - 1)


def _is_comment(line: str) -> bool:
    return line.startswith("# ") or line.strip() == "#"


def _check_entries(entries: Sequence[ListEntry], base: str, has_header: bool) -> None:
    """Refuses folders of frames, unknown headers, and indices mixed with names."""
    first = entries[0]
    path = os.path.join(base, first.path)
    if os.path.isdir(path):
        raise InputError(
            f"{first.place}: {first.path} is a folder; lists name video files, so make a video of each folder of frames"
        )
    # One entry per label is enough: lists are long, labels are few.
    first_of_label = {entry.label: entry for entry in reversed(entries)}
    is_like_header = first.path.isidentifier() and first.label.isidentifier() and not os.path.exists(path)
    if is_like_header and not has_header and all(entry.label != first.label for entry in entries[1:]):
        raise InputError(
            f"{first.place}: {first.path!r} is read as a path and {first.label!r} as a label, but both look like "
            f"names of columns; {ACCEPTED}"
        )
    for entry in first_of_label.values():
        if entry.has_index != first.has_index:
            raise InputError(
                f"{entry.place}: the label {entry.label!r}, but {first.label!r} at {first.place}; labels are "
                "all class indices or all class names"
            )


def find_class_names(entries: Sequence[ListEntry], num_classes: int | None) -> tuple[str, ...]:
    """Derives the class names from the labels of all lists, for a data set that has no list of classes.

    Returns:
        For name labels, the sorted names in Unicode form NFC. For index labels, "0", "1" and so on: `num_classes`
        names, or as many as the largest index requires.

    Raises:
        InputError: if one list has indices and another names, or an index exceeds the number of videos.
    """
    labels = {entry.label for entry in entries}
    if len({entry.has_index for entry in entries}) > 1:
        raise InputError("One list labels with class indices and the other with class names; use one kind in both")
    if not entries[0].has_index:
        return tuple(sorted({normalize("NFC", label) for label in labels}))
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
    """Holds out a fraction of each class for validation, independent of the data set's folder and order.

    Files whose names agree up to a `_g01_`, as in UCF101, come from one recording and stay together; folder names do
    not mark a recording. Every other file is its own group. A class with one group is only used for training.

    `val_fraction`, above 0 and below 1, is the fraction of a class's groups to hold out, rounded, at least one group.
    `base` is the folder of the data set, which is removed from group names.
    """
    groups = []
    by_class: dict[int, set[str]] = defaultdict(set)
    prefixes: dict[str, str] = {}
    for record in records:
        folder, name = os.path.split(record.path)
        if folder not in prefixes:
            prefix = Path(os.path.relpath(folder, base)).as_posix()
            prefixes[folder] = "" if prefix == "." else f"{prefix}/"
        recording = re.match(r".*_g\d+_", name)
        groups.append((record.label, prefixes[folder] + (recording.group() if recording else name)))
        by_class[record.label].add(groups[-1][1])
    held_out: set[tuple[int, str]] = set()
    for label, names in by_class.items():
        num_val = max(1, round(val_fraction * len(names)))
        ordered = sorted(names, key=lambda name: hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest())
        held_out.update((label, name) for name in ordered[: min(num_val, len(names) - 1)])
    train = [record for record, group in zip(records, groups, strict=True) if group not in held_out]
    val = [record for record, group in zip(records, groups, strict=True) if group in held_out]
    return train, val
