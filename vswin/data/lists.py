"""Lists of videos with labels, and which videos are held out. Called by `vswin.data.catalog`."""

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

from vswin.data.annotations.entries import ListEntry, read_text
from vswin.data.folder import is_video
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.wording import count_of

# Names of columns in headers, the best first.
_PATHS = (
    *("path", "video_path", "file_path", "filepath", "clip_path", "file_name", "filename", "video_name", "file"),
    *("video", "clip_name", "clip", "name"),
)
_FRAMES = ("frames", "num_frames", "total_frames", "frame_count")
_LABELS = ("label", "class", "class_name", "label_name", "category", "action", "target", "label_id", "class_id")
# More is no header and no form.
_LONGEST_LINE = 10_000


class _Form(NamedTuple):
    """Says how a line is cut into cells, how many there are, and which are path and label.

    The separator " " is any white space before the last cells, or a tab.
    """

    name: str
    separator: str
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
    """Reads a list in any of its forms; data/README.md describes them.

    A header tells the form; without one, the first line does, by naming a file in one form and none in the others.

    Args:
        path: the list.
        base: folder that relative paths start from.
        notes: gets a sentence on what is not used.

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
        is_whole = len(cells) == form.num_cells
        video, label = (cells[form.path].strip(), cells[form.label].strip()) if is_whole else (cells[0].strip(), "")
        if cells == header:
            continue
        if _is_comment(cells[0]) and not os.path.exists(os.path.join(base, video)):
            num_comments += 1
        elif video and label and "\n" not in label:  # which a quote that is never closed would bring
            entries.append(ListEntry(source, number, video, label))
        else:
            raise InputError(
                f"{path}:{number}: expected `{form.name}`, found {form.separator.join(cells)!r:.200}; {ACCEPTED}"
            )
    if not entries:
        raise InputError(f"The list {path} names no videos")
    _check_first(entries, base, bool(header))
    _check_kinds(entries)
    columns = header or form.name.split(form.separator)
    unused = [name.strip() or "(no name)" for place, name in enumerate(columns) if place not in (form.path, form.label)]
    parts = [f"the column{'s' if len(unused) > 1 else ''} {', '.join(unused)}"] if unused else []
    parts += [count_of(num_comments, "line") + " of comments"] if num_comments else []
    if parts:
        notes.append(f"not used of {path}: {' and '.join(parts)}")
    return entries


def _find_form(path: Path, text: str, base: str) -> tuple[_Form, list[str]]:
    """Tells the form of a list by its first line, comments aside; gives the cells of the header, if there is one."""
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
    """Finds the columns of path and label in a line; None if it is no header."""
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=separator == " "))
    names = [re.sub(r"[\s-]+", "_", cell.lower().strip(" #")) for cell in cells]
    places = [next((names.index(name) for name in known if name in names), -1) for known in (_PATHS, _LABELS)]
    if -1 in places:
        return None
    if separator not in " \t":
        return _Form(line, separator, len(names), *places)
    # In these, white space may separate the cells of other lines.
    if places == [0, len(names) - 1] and all(name in _FRAMES for name in names[1:-1]) and len(names) < 4:
        return _FORMS[len(names) - 2]
    return _Form(line, separator, len(names), *places) if separator == "\t" else None


def _split(path: Path, text: str, form: _Form) -> Iterator[tuple[int, list[str]]]:
    """Gives the cells of each line that holds something, with its number from 1."""
    lines, number = io.StringIO(text, newline=""), 0
    try:
        if form.separator == " ":
            for number, line in enumerate(lines):
                if not line.isspace():
                    yield number + 1, _cells(line, form)
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


def _check_first(entries: Sequence[ListEntry], base: str, has_header: bool) -> None:
    """Refuses folders of frames, and a header that is none of ours."""
    first = entries[0]
    path = os.path.join(base, first.path)
    if os.path.isdir(path):
        raise InputError(
            f"{first.place}: {first.path} is a folder; lists name video files, so make a video of each folder of frames"
        )
    is_like_header = first.path.isidentifier() and first.label.isidentifier() and not os.path.exists(path)
    if is_like_header and not has_header and all(entry.label != first.label for entry in entries[1:]):
        raise InputError(
            f"{first.place}: {first.path!r} is read as a path and {first.label!r} as a label, but both look like "
            f"names of columns; {ACCEPTED}"
        )


def _check_kinds(entries: Sequence[ListEntry]) -> None:
    # Labels are few, lists are long.
    first_of_label = {entry.label: entry for entry in reversed(entries)}
    for entry in first_of_label.values():
        if entry.has_index != entries[0].has_index:
            raise InputError(
                f"{entry.place}: the label {entry.label!r}, but {entries[0].label!r} at {entries[0].place}; labels are "
                "all class indices or all class names"
            )


def find_class_names(entries: Sequence[ListEntry], num_classes: int | None) -> tuple[str, ...]:
    """Takes the class names from the labels themselves, for a data set that has no list of classes.

    Args:
        entries: of all lists of the data set.
        num_classes: how many there are; None where the labels tell.

    Returns:
        The sorted names, each in one composition of Unicode (NFC), or "0", "1" and so on up to the largest index.

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
    """Holds out a share of each class, the same videos wherever the data set lies and however it is ordered.

    Files called alike up to a `_g01_`, as in UCF101, are cut from one recording and stay together; names of folders do
    not count. Any other file is a group of its own. A class of one group is not divided: all of it is for training.

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
    recording = re.match(r".*_g\d+_(?=[^/]*$)", name)
    return recording.group() if recording else name
