"""Read lists of labelled videos in the forms that data/README.md describes."""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from vswin.console import count_of
from vswin.data.folder import is_video
from vswin.data.samples import WHOLE, Part
from vswin.errors import InputError

# Columns of paths and of labels, the best first.
_PATHS = (
    *("path", "video_path", "file_path", "filepath", "clip_path", "file_name", "filename", "video_name", "file"),
    *("video", "clip_name", "clip", "name"),
)
_LABELS = ("label", "class", "class_name", "label_name", "category", "action", "target", "label_id", "class_id")
_FRAMES = ("frames", "num_frames", "total_frames", "frame_count")
ACCEPTED = (
    "a list has lines `path label`, `path,label`, `path;label`, `path<tab>label` or `path frames label`, or a header "
    f"with one of the columns {', '.join(_PATHS)} and one of {', '.join(_LABELS)}"
)
# The form is detected from at most this many characters of a line.
_LONGEST_LINE = 10_000


class ListEntry(NamedTuple):
    """One line of a list as written.

    Attributes:
        source: the list file.
        line: line number from 1; 0 if the file has no lines.
        path: path of the video; for a video named by its id, the usual file name without its ending.
        label: class index from 0, or class name.
        video_id: the id, if the list names videos by id; otherwise empty.
        part: the part of the video.
        group: the samples that belong into one subset, e.g. the name of a person; "" for none.
        subset: "train", "val" or "test", if the list has a column for it; otherwise empty.
        rate: frames per second, if the list states them; only needed for folders of pictures.
    """

    source: str
    line: int
    path: str
    label: str
    video_id: str = ""
    part: Part = WHOLE
    group: str = ""
    subset: str = ""
    rate: float | None = None

    @property
    def where(self) -> str:
        """File and line for messages, e.g. "train.txt:3"."""
        return f"{self.source}:{self.line}" if self.line else f"{self.source}, video {self.video_id or self.path}"

    @property
    def has_index(self) -> bool:
        """Tells whether the label is a class index."""
        return is_number(self.label.removeprefix("-"))


def is_number(text: str) -> bool:
    """Tells whether a text is a decimal number; with more than 18 digits it is a name."""
    return text.isdecimal() and len(text) <= 18


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


def split_cells(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number, from 1, and the cells of each line of a table that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    line = 0
    try:
        for cells in reader:
            line = reader.line_num
            if any(map(str.strip, cells)):
                yield line, cells
    except csv.Error as error:
        raise InputError(f"The list {path} cannot be read: line {line + 1}: {error}") from error


class _Form(NamedTuple):
    """The columns of a list, and the indices of path and label; the separator " " is any white space."""

    separator: str
    columns: list[str]
    path: int
    label: int

    def __str__(self) -> str:
        return self.separator.join(self.columns)


_FORMS = (
    _Form(" ", ["path", "label"], 0, 1),
    _Form(" ", ["path", "frames", "label"], 0, 2),
    _Form(",", ["path", "label"], 0, 1),
    _Form(";", ["path", "label"], 0, 1),
)


def read_list(path: Path, base: str, notes: list[str]) -> list[ListEntry]:
    """Reads a list; a header or else the first line determines its form.

    Relative paths start from the folder `base`. `notes` gets a sentence about unused columns and comments. An
    `InputError` refuses a file without entries, a malformed line, and indices mixed with names.
    """
    text = read_text(path)
    form, has_header = _find_form(path, text, base)
    rows: Iterator[tuple[int, list[str]]]
    if form.separator == " ":
        lines = enumerate(io.StringIO(text, newline=""), start=1)
        rows = ((number, _split_words(line, form)) for number, line in lines if not line.isspace())
    else:
        rows = split_cells(path, text, form.separator)

    source = str(path)
    entries: list[ListEntry] = []
    num_comments = 0
    for number, cells in rows:
        if has_header and [cell.strip() for cell in cells] == form.columns:
            continue
        is_whole = len(cells) == len(form.columns)
        video, label = (cells[form.path].strip(), cells[form.label].strip()) if is_whole else (cells[0].strip(), "")
        if _is_comment(cells[0]) and not os.path.exists(os.path.join(base, video)):
            num_comments += 1
        elif video and label and "\n" not in label:  # an unclosed quote would put line breaks into the label
            entries.append(ListEntry(source, number, video, label))
        else:
            found = form.separator.join(cells)
            raise InputError(f"{path}:{number}: expected `{form}`, found {found!r:.200}; {ACCEPTED}")
    if not entries:
        raise InputError(f"The list {path} names no videos")
    _check_entries(entries, base, has_header)

    unused = [name or "(no name)" for i, name in enumerate(form.columns) if i not in (form.path, form.label)]
    parts = [f"the column{'s' if len(unused) > 1 else ''} {', '.join(unused)}"] if unused else []
    parts += [count_of(num_comments, "line") + " of comments"] if num_comments else []
    if parts:
        notes.append(f"not used of {path}: {' and '.join(parts)}")
    return entries


def _find_form(path: Path, text: str, base: str) -> tuple[_Form, bool]:
    """Detects the form from the first line that is no comment, and whether that line is a header."""
    first = ""
    for line in filter(str.strip, io.StringIO(text, newline="")):
        first = line.rstrip("\r\n")[:_LONGEST_LINE]
        for separator in "\t,; ":
            if form := _read_header(first, separator):
                return form, True
        if not _is_comment(first):
            break

    def fit(form: _Form) -> int:
        """Prefers forms whose path is a file, then those whose path ends like a video."""
        split = _split_words(first, form) if form.separator == " " else _split_line(first, form.separator)
        cells = [cell.strip() for cell in split]
        num_columns = len(form.columns)
        if len(cells) != num_columns or not all(cells) or (num_columns == 3 and not cells[1].isdecimal()):
            return -1
        is_there = os.path.exists(os.path.join(base, cells[0]))
        return 4 * is_there + 2 * is_video(os.path.basename(cells[0])) + (num_columns == len(first.split()) == 3)

    is_csv = path.suffix.lower() == ".csv"
    return max(sorted(_FORMS, key=lambda form: (form.separator == " ") == is_csv), key=fit), False


def _read_header(line: str, separator: str) -> _Form | None:
    """Finds the path and label columns in a line; None if it is no header."""
    cells = [cell.strip() for cell in _split_line(line, separator)]
    names = [re.sub(r"[\s-]+", "_", cell.lower().strip(" #")) for cell in cells]
    path, label = (next((names.index(name) for name in known if name in names), -1) for known in (_PATHS, _LABELS))
    if -1 in (path, label):
        return None
    # White space in paths and labels is ambiguous but for two forms, where it may also separate the lines below tabs.
    if separator in " \t" and path == 0 and label == len(names) - 1 and all(name in _FRAMES for name in names[1:-1]):
        return _Form(" ", cells, path, label)
    return None if separator == " " else _Form(separator, cells, path, label)


def _split_line(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=separator == " "))


def _split_words(line: str, form: _Form) -> list[str]:
    """Splits a line at its tabs, or else at the last white spaces; the path may hold spaces, or cells be quoted."""
    line, num_columns = line.strip(), len(form.columns)
    if "\t" in line:
        return [cell for cell in _split_line(line, "\t") if cell.strip()]
    if '"' in line or line.startswith("'"):
        quote = "'" if line.startswith("'") else '"'
        cells = next(csv.reader([line], delimiter=" ", quotechar=quote, skipinitialspace=True))
        if len(cells) >= num_columns:
            return [" ".join(cells[: 1 - num_columns]), *cells[1 - num_columns :]]
    return line.rsplit(maxsplit=num_columns - 1)


def _is_comment(line: str) -> bool:
    return line.startswith("# ") or line.strip() == "#"


def _check_entries(entries: Sequence[ListEntry], base: str, has_header: bool) -> None:
    """Refuses folders of frames, unknown headers, and indices mixed with names."""
    first = entries[0]
    path = os.path.join(base, first.path)
    if os.path.isdir(path):
        raise InputError(
            f"{first.where}: {first.path} is a folder; lists name video files, so make a video of each folder of frames"
        )
    is_like_header = first.path.isidentifier() and first.label.isidentifier() and not os.path.exists(path)
    if is_like_header and not has_header and all(entry.label != first.label for entry in entries[1:]):
        raise InputError(
            f"{first.where}: {first.path!r} is read as a path and {first.label!r} as a label, but both look like "
            f"names of columns; {ACCEPTED}"
        )
    for entry in entries:
        if entry.has_index != first.has_index:
            raise InputError(
                f"{entry.where}: the label {entry.label!r}, but {first.label!r} at {first.where}; labels are "
                "all class indices or all class names"
            )


def find_class_names(entries: Sequence[ListEntry], num_classes: int | None) -> tuple[str, ...]:
    """Derives the class names from the labels of all lists, for a data set that has no list of classes.

    Name labels give the sorted names in Unicode form NFC; indices give "0", "1" and so on, `num_classes` names or as
    many as the largest index requires.
    """
    if len({entry.has_index for entry in entries}) > 1:
        raise InputError("One list labels with class indices and the other with class names; use one kind in both")
    if not entries[0].has_index:
        return tuple(sorted({normalize("NFC", entry.label) for entry in entries}))
    if num_classes is None:
        largest = max(entries, key=lambda entry: int(entry.label))
        num_classes = int(largest.label) + 1
        if num_classes > len(entries):
            raise InputError(
                f"{largest.where}: label {largest.label}, in a data set of {len(entries)} videos; class indices "
                "count from 0 (if there are that many classes, set dataset.num_classes)"
            )
    return tuple(str(index) for index in range(num_classes))
