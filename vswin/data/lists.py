"""Read lists of labelled videos in the forms that data/README.md describes."""

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from unicodedata import normalize

from vswin.console import count_of
from vswin.data.decode import PICTURE_SUFFIXES, list_pictures
from vswin.data.folder import is_video
from vswin.data.samples import TEST, TRAIN, VAL, WHOLE, Part, Region, Segment
from vswin.errors import InputError

# Columns of paths and of labels, the best first.
_PATHS = (
    *("path", "video_path", "file_path", "filepath", "clip_path", "file_name", "filename", "video_name", "file"),
    *("video", "clip_name", "clip", "name"),
)
_LABELS = (
    *("label", "labels", "class", "classes", "tags", "actions", "class_name", "label_name", "category", "action"),
    *("target", "label_id", "class_id"),
)
_FRAMES = ("frames", "num_frames", "total_frames", "frame_count")
_SIDES = ("x1", "y1", "x2", "y2")
# What a column of a class may hold.
_MARKS = {**dict.fromkeys(("0", "0.0", "false"), False), **dict.fromkeys(("1", "1.0", "true"), True)}
# Optional columns, by their field.
_MORE = {
    "start": ("start", "start_sec", "start_time", "t_start", "begin"),
    "end": ("end", "end_sec", "end_time", "t_end", "stop"),
    "start_frame": ("start_frame", "frame_start", "first_frame"),
    "end_frame": ("end_frame", "frame_end"),
    **{side: (side,) for side in _SIDES},
    "group": ("group", "subject", "person", "recording"),
    "split": ("split", "subset"),
    "fps": ("fps", "frame_rate"),
}
SUBSETS = {
    **{"train": TRAIN, "training": TRAIN, "val": VAL, "validate": VAL, "validation": VAL, "valid": VAL},
    **{"test": TEST, "testing": TEST},
}
ACCEPTED = (
    "a list has lines `path label`, `path,label`, `path;label`, `path<tab>label` or `path frames label`, or a header "
    f"with one of the columns {', '.join(_PATHS)} and one of {', '.join(_LABELS)}; a header may also have "
    f"{', '.join(_MORE)}; with dataset.task=multi_label, several labels are separated by `;` or `|`, or each class has "
    "a column of 0 and 1"
)
# The form is detected from at most this many characters of a line.
_LONGEST_LINE = 10_000


class ListEntry(NamedTuple):
    """One line of a list as written.

    Attributes:
        source: the list file.
        line: line number from 1; 0 if the file has no lines.
        path: path of the video; for a video named by its id, the usual file name without its ending.
        label: class index from 0, or class name; several are separated by `;` or `|`.
        video_id: the id, if the list names videos by id; otherwise empty.
        part: the part of the video.
        group: the samples that belong into one subset, e.g. the name of a person; "" for none.
        subset: "train", "val" or "test", if the list has a column for it; otherwise empty.
        rate: frames per second, if the list states them; only needed for folders of pictures.
        columns: names of all classes, if the list has a column for each.
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
    columns: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """File and line for messages, e.g. "train.txt:3"."""
        return f"{self.source}:{self.line}" if self.line else f"{self.source}, video {self.video_id or self.path}"

    def labels(self, several: bool) -> list[str]:
        """Lists the labels; with `several` there may be any number of them."""
        return list(filter(None, map(str.strip, re.split("[;|]", self.label)))) if several else [self.label]


def is_index(label: str) -> bool:
    """Tells whether a label is a class index."""
    return is_number(label.removeprefix("-"))


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
    """The columns of a list, and the indices of path, label and others; the separator " " is any white space."""

    separator: str
    columns: list[str]
    path: int
    label: int
    more: Mapping[str, int] = MappingProxyType({})

    def __str__(self) -> str:
        return self.separator.join(self.columns)


_FORMS = (
    _Form(" ", ["path", "label"], 0, 1),
    _Form(" ", ["path", "frames", "label"], 0, 2),
    _Form(",", ["path", "label"], 0, 1),
    _Form(";", ["path", "label"], 0, 1),
)


def read_list(path: Path, base: str, notes: list[str], several: bool = False) -> list[ListEntry]:
    """Reads a list; a header or else the first line determines its form.

    Relative paths start from the folder `base`. `notes` gets a sentence about unused columns and comments. With
    `several`, a sample may have several labels or none. An `InputError` refuses a file without entries, a malformed
    line, and indices mixed with names.
    """
    text = read_text(path)
    form, has_header = _find_form(path, text, base, several)
    rows: Iterator[tuple[int, list[str]]]
    if form.separator == " ":
        lines = enumerate(io.StringIO(text, newline=""), start=1)
        rows = ((number, _split_words(line, form, base, several)) for number, line in lines if not line.isspace())
    else:
        rows = split_cells(path, text, form.separator)

    if has_header:
        rows = (row for row in rows if [cell.strip() for cell in row[1]] != form.columns)
    classes: list[int] = []
    if form.label < 0:
        rows, classes = _join_columns(path, form, list(rows))
        form = form._replace(columns=[*form.columns, "label"], label=len(form.columns))
    columns = tuple(form.columns[index] for index in classes)

    source = str(path)
    entries: list[ListEntry] = []
    num_comments = 0
    for number, cells in rows:
        is_whole = len(cells) == len(form.columns)
        video, label = (cells[form.path].strip(), cells[form.label].strip()) if is_whole else (cells[0].strip(), "")
        if _is_comment(cells[0]) and not os.path.exists(os.path.join(base, video)):
            num_comments += 1
        elif video and (label or (several and is_whole)) and "\n" not in label:  # as an unclosed quote would put there
            entries.append(_add_more(ListEntry(source, number, video, label, columns=columns), cells, form.more))
        else:
            found = form.separator.join(cells)
            raise InputError(f"{path}:{number}: expected `{form}`, found {found!r:.200}; {ACCEPTED}")
    if not entries:
        raise InputError(f"The list {path} names no videos")
    _check_entries(entries, base, has_header, several)

    used = (form.path, form.label, *form.more.values(), *classes)
    unused = [name or "(no name)" for i, name in enumerate(form.columns) if i not in used]
    parts = [f"the column{'s' if len(unused) > 1 else ''} {', '.join(unused)}"] if unused else []
    parts += [count_of(num_comments, "line") + " of comments"] if num_comments else []
    if parts:
        notes.append(f"not used of {path}: {' and '.join(parts)}")
    return entries


def _join_columns(
    path: Path, form: _Form, rows: Sequence[tuple[int, list[str]]]
) -> tuple[Iterator[tuple[int, list[str]]], list[int]]:
    """Adds a column of labels, made of the columns of 0 and 1; also returns the indices of these columns."""
    whole = [(line, cells) for line, cells in rows if len(cells) == len(form.columns)]
    used = {form.path, *form.more.values(), *(i for i, name in enumerate(form.columns) if not name or name in _FRAMES)}
    classes = [
        index
        for index in range(len(form.columns))
        if index not in used and any(cells[index].strip().lower() in _MARKS for _, cells in whole)
    ]
    if not classes:
        raise InputError(f"{path} has no column of labels, and no columns of 0 and 1; {ACCEPTED}")
    for index in classes:
        name = form.columns[index]
        if re.search("[;|]", name):
            raise InputError(f"{path}: the class {name!r} has `;` or `|` in its name, which separate labels; rename it")
        for line, cells in whole:
            if cells[index].strip().lower() not in _MARKS:
                raise InputError(
                    f"{path}:{line}: the column {name!r} is read as a class, and is {cells[index]!r:.80}; write 0 or "
                    "1, or remove the column"
                )
    for _, cells in whole:
        cells.append(";".join(form.columns[index] for index in classes if _MARKS[cells[index].strip().lower()]))
    return iter(rows), classes


def _find_form(path: Path, text: str, base: str, several: bool) -> tuple[_Form, bool]:
    """Detects the form from the first line that is no comment, and whether that line is a header."""
    first = ""
    for line in filter(str.strip, io.StringIO(text, newline="")):
        first = line.rstrip("\r\n")[:_LONGEST_LINE]
        for separator in "\t,; ":
            if form := _read_header(first, separator, several):
                return form, True
        if not _is_comment(first):
            break

    def fit(form: _Form) -> int:
        """Prefers forms whose path is a file, then those whose path ends like a video."""
        is_text = form.separator == " "
        split = _split_words(first, form, base, several) if is_text else _split_line(first, form.separator)
        cells = [cell.strip() for cell in split]
        num_columns = len(form.columns)
        is_filled = all(cells) or (several and cells[0])
        if len(cells) != num_columns or not is_filled or (num_columns == 3 and not cells[1].isdecimal()):
            return -1
        is_there = os.path.exists(os.path.join(base, cells[0]))
        return 4 * is_there + 2 * is_video(os.path.basename(cells[0])) + (num_columns == len(first.split()) == 3)

    is_csv = path.suffix.lower() == ".csv"
    forms = [form for form in _FORMS if not several or len(form.columns) == 2]
    return max(sorted(forms, key=lambda form: (form.separator == " ") == is_csv), key=fit), False


def _read_header(line: str, separator: str, several: bool) -> _Form | None:
    """Finds the path and label columns in a line; None if it is no header. With columns of 0 and 1, the label is -1."""
    cells = [cell.strip() for cell in _split_line(line, separator)]
    names = [re.sub(r"[\s-]+", "_", cell.lower().strip(" #")) for cell in cells]
    path, label = (next((names.index(name) for name in known if name in names), -1) for known in (_PATHS, _LABELS))
    if path < 0 or (label < 0 and not (several and len(names) > 1)):
        return None
    # White space in paths and labels is ambiguous but for two forms, where it may also separate the lines below tabs.
    if (
        separator in " \t"
        and path == 0
        and 0 < label == len(names) - 1
        and all(name in _FRAMES for name in names[1:-1])
    ):
        return _Form(" ", cells, path, label)
    if separator == " ":
        return None
    first = {name: names.index(name) for name in names}
    found = {key: next((first[name] for name in known if name in first), -1) for key, known in _MORE.items()}
    return _Form(separator, cells, path, label, {key: index for key, index in found.items() if index >= 0})


def _add_more(entry: ListEntry, cells: Sequence[str], more: Mapping[str, int]) -> ListEntry:
    """Reads the optional columns of a row; empty cells count as missing ones."""
    given = {key: cells[index].strip() for key, index in more.items() if cells[index].strip()}
    if not given:
        return entry
    subset, group = given.pop("split", ""), given.pop("group", "")
    if subset and subset.lower() not in SUBSETS:
        raise InputError(f"{entry.where}: the split {subset!r}; {', '.join(SUBSETS)} are known")
    values = {key: _parse_number(key, text, f"{entry.where}: {key}") for key, text in given.items()}
    segment = region = None
    if values.keys() & {"start", "end"} and values.keys() & {"start_frame", "end_frame"}:
        raise InputError(f"{entry.where}: seconds and frame numbers at once; leave one of them empty")
    if values.keys() & {"start", "end"}:
        segment = Segment(values.get("start", 0.0), values.get("end", math.inf))
    elif values.keys() & {"start_frame", "end_frame"}:
        segment = Segment(values.get("start_frame", 0.0), values.get("end_frame", math.inf), in_frames=True)
    if sides := [values[side] for side in _SIDES if side in values]:
        region = Region._make([*sides, max(sides) > 1] if len(sides) == 4 else [0, 0, 0, 0, True])
    if segment is not None and not segment.start < segment.end:
        raise InputError(f"{entry.where}: the segment {str(Part(segment))[1:]} ends before it starts, or has no length")
    if region is not None and not (region.left < region.right and region.top < region.bottom):
        found = ", ".join(f"{side}={given.get(side, '')}" for side in _SIDES)
        raise InputError(f"{entry.where}: the box {found}; all four are needed, with x1 < x2 and y1 < y2")
    return entry._replace(
        part=Part(segment, region), group=group, subset=SUBSETS.get(subset.lower(), ""), rate=values.get("fps")
    )


def make_table(entries: Sequence[ListEntry]) -> list[list[str]]:
    """Makes the rows of a list, with a header, that `read_list` reads as these entries; only needed columns appear."""
    rows = []
    for entry in entries:
        (segment, region), row = entry.part, {"path": entry.path, "label": entry.label}
        if segment is not None:
            kind = "_frame" if segment.in_frames else ""
            row[f"start{kind}"] = f"{segment.start:.10g}"
            row[f"end{kind}"] = "" if segment.end == math.inf else f"{segment.end:.10g}"
        row |= dict(zip(_SIDES, (f"{side:.10g}" for side in (region or ())[:4]), strict=False))
        row |= {"group": entry.group, "split": entry.subset, "fps": "" if entry.rate is None else f"{entry.rate:.10g}"}
        rows.append(row)
    columns = [key for key in ("path", "label", *_MORE) if any(row.get(key) for row in rows)]
    return [columns, *([row.get(key, "") for key in columns] for row in rows)]


def _parse_number(key: str, text: str, where: str) -> float:
    """Reads the number in an optional column; a time such as 1:02:03.5 becomes seconds."""
    is_time, parts = key in ("start", "end"), text.replace(",", ".").split(":")
    is_number = all(re.fullmatch(r"-?(\d{1,15}\.?\d*|\.\d+)", part) for part in parts)
    value = math.nan
    if is_number and len(parts) <= (3 if is_time else 1):
        value = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    expected, is_right = "a number", value == value  # a side of a box may lie outside the picture
    if is_time:
        expected, is_right = "seconds from 0, or a time such as 1:02:03.5", value >= 0 and "-" not in text
    elif key in ("start_frame", "end_frame"):
        expected, is_right = "a frame number, which is a whole number from 0", value >= 0 and value % 1 == 0
    elif key == "fps":
        expected, is_right = "frames per second, above 0", value > 0
    if not is_right:
        raise InputError(f"{where} is {text!r:.100}; expected {expected}")
    return value


def _split_line(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=separator == " "))


def _split_words(line: str, form: _Form, base: str, several: bool) -> list[str]:
    """Splits a line at its tabs, or else at the last white spaces; the path may hold spaces, or cells be quoted.

    With `several`, any number of class indices may end the line, in lists of folders after their number of frames.
    """
    line, num_columns = line.strip(), len(form.columns)
    if "\t" in line:
        return [cell for cell in _split_line(line, "\t") if cell.strip()]
    if '"' in line or line.startswith("'"):
        quote = "'" if line.startswith("'") else '"'
        cells = next(csv.reader([line], delimiter=" ", quotechar=quote, skipinitialspace=True))
        if len(cells) >= num_columns:
            return [" ".join(cells[: 1 - num_columns]), *cells[1 - num_columns :]]
    if several and num_columns == 2 and (found := re.fullmatch(r"(.*?\S)((?:\s+\d+){2,})", line)):
        numbers = found[2].split()
        return [found[1], ";".join(numbers[os.path.isdir(os.path.join(base, found[1])) :])]
    return line.rsplit(maxsplit=num_columns - 1)


def _is_comment(line: str) -> bool:
    return line.startswith("# ") or line.strip() == "#"


def _check_entries(entries: Sequence[ListEntry], base: str, has_header: bool, several: bool) -> None:
    """Refuses folders of frames, unknown headers, and indices mixed with names."""
    first = entries[0]
    path = os.path.join(base, first.path)
    if os.path.isdir(path) and not list_pictures(path):
        raise InputError(
            f"{first.where}: {first.path} is a folder without pictures; lists name video files, or folders of pictures "
            f"({', '.join(sorted(PICTURE_SUFFIXES))})"
        )
    is_like_header = first.path.isidentifier() and first.label.isidentifier() and not os.path.exists(path)
    if is_like_header and not has_header and all(entry.label != first.label for entry in entries[1:]):
        raise InputError(
            f"{first.where}: {first.path!r} is read as a path and {first.label!r} as a label, but both look like "
            f"names of columns; {ACCEPTED}"
        )
    usual: dict[bool, tuple[ListEntry, str]] = {}
    for entry in entries:
        for label in entry.labels(several):
            usual.setdefault(is_index(label), (entry, label))
            if len(usual) > 1:
                first, known = usual[not is_index(label)]
                raise InputError(
                    f"{entry.where}: the label {label!r}, but {known!r} at {first.where}; labels are all class indices "
                    "or all class names"
                )


def find_class_names(entries: Sequence[ListEntry], num_classes: int | None, several: bool = False) -> tuple[str, ...]:
    """Derives the class names from the labels of all lists, for a data set that has no list of classes.

    Name labels give the sorted names in Unicode form NFC, columns of 0 and 1 the names of the columns in their order;
    indices give "0", "1" and so on, `num_classes` names or as many as the largest index requires.
    """
    columns = dict.fromkeys(name for names in dict.fromkeys(entry.columns for entry in entries) for name in names)
    labels = {label: entry for entry in reversed(entries) for label in entry.labels(several)}
    if len(set(map(is_index, labels))) > 1:
        raise InputError("One list labels with class indices and the other with class names; use one kind in both")
    if columns:
        return tuple(normalize("NFC", name) for name in columns)
    if not labels:
        raise InputError(f"{entries[0].source} gives no video a label")
    if not is_index(next(iter(labels))):
        return tuple(sorted({normalize("NFC", label) for label in labels}))
    if num_classes is None:
        largest = max(labels, key=int)
        num_classes = int(largest) + 1
        if num_classes > len(entries) and not several:
            raise InputError(
                f"{labels[largest].where}: label {largest}, in a data set of {len(entries)} videos; class indices "
                "count from 0 (if there are that many classes, set dataset.num_classes)"
            )
    return tuple(str(index) for index in range(num_classes))
