"""The annotation files of Kinetics: CSV, `label,youtube_id,time_start,time_end,split` for each video, or JSON."""

import csv
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ROLES, TRAIN, VAL, ListEntry, read_text
from vswin.data.annotations.json_file import is_json, read_json
from vswin.data.annotations.places import explain_missing, first_file, usual_folders
from vswin.data.folder import count_others, list_videos
from vswin.errors import InputError

logger = logging.getLogger("vswin")

_HOW = (
    "From https://github.com/cvdfoundation/kinetics-dataset get the videos, into {root} in any folders, and the "
    "annotations (train.csv, val.csv), into {annotations}."
)
_TRAIN_NAMES = ("train.csv", "{name}_train.csv", "train.json", "{name}_train_list_videos.txt", "train.txt")
_COLUMNS = {
    "label": ("label", "class", "label_name"),
    "id": ("youtube_id", "ytid", "video_id", "youtubeid", "id"),
    "start": ("time_start", "start_time", "start"),
    "end": ("time_end", "end_time", "end"),
    "subset": ("split", "subset"),
}
_SUBSETS = {"train": TRAIN, "training": TRAIN, "val": VAL, "validate": VAL, "validation": VAL, "valid": VAL}
_TRAIN_WORDS = ("train", "training")
_VAL_WORDS = ("val", "validate", "validation")
_LENGTH_SEC = 10
# The header is looked for in so much of a list.
_HEADER_CHARS = 10_000


# What the owners say of a video: label, id, start, end, subset; and the line. Unlike named tuples, plain ones of
# 240,000 videos cost the garbage collector nothing.
_Row = tuple[str, str, str, str, str, int]


def find_lists(name: str, root: Path, classes: ClassLookup) -> tuple[Path | None, Path | None]:
    """Looks for the annotation files, or without them for folders of class folders.

    Args:
        name: "kinetics400" or "kinetics600".
        root: folder of the videos.
        classes: of the data set.

    Returns:
        The lists for training and for validation, or the folders; one of them may not be there.

    Raises:
        NotFoundError: if neither list, or the folder of the videos, is there.
    """
    number = name.removeprefix("kinetics")
    forms = (name, f"kinetics_{number}", f"kinetics-{number}", f"k{number}", "kinetics")
    names = list(dict.fromkeys(file.format(name=form) for file in _TRAIN_NAMES for form in forms))
    folders = usual_folders(root, forms) if root.is_dir() else []
    train_list = first_file(folders, names)
    val_list = first_file(folders, [file.replace("train", word) for file in names for word in _VAL_WORDS])
    if train_list or val_list:
        return train_list, val_list
    train_folder, val_folder = (_find_class_folders(root, words, classes) for words in (_TRAIN_WORDS, _VAL_WORDS))
    if train_folder or val_folder:
        return train_folder, val_folder
    how = _HOW.format(root=root, annotations=root.parent / "annotations")
    raise explain_missing(f"Kinetics-{number}", root, ["train.csv", "val.csv", "..."], how)


def read_annotations(path: Path, subset: str, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads the owners' CSV or JSON.

    Args:
        path: the list, or a folder of class folders, which is read as a list of all videos in it.
        subset: "train" or "val"; of a list that has both, the lines of this one count.
        classes: of the data set.

    Returns:
        An entry per video; its path is `<id>_<start>_<end>` with times of six digits, the usual file name. None if it
        is another list of paths and labels.

    Raises:
        InputError: if the list cannot be read, has no labels, is for the other subset, or names an unknown class.
    """
    if path.is_dir():
        return _read_class_folders(path, classes)
    text = read_text(path)
    if is_json(text):
        rows = list(_rows_of_json(path, text))
    else:
        header, first_line = _find_header(path, text)
        if not header:
            return None
        rows = list(_rows_of_csv(path, text, header, first_line))
    if not rows:
        raise InputError(f"The list {path} names no videos")
    return _make_entries(path, _select(path, rows, subset), classes)


def _find_class_folders(root: Path, names: Sequence[str], classes: ClassLookup) -> Path | None:
    """Finds the folder of a subset, if it holds a class folder."""
    for folder in (root / name for name in names):
        if folder.is_dir() and any(classes.find(name) >= 0 for name in os.listdir(folder)):
            return folder
    return None


def _read_class_folders(folder: Path, classes: ClassLookup) -> list[ListEntry]:
    """Takes all videos in class folders for a list."""
    entries = []
    others: Counter[str] = Counter()
    for inner in sorted(os.listdir(folder)):
        class_folder = folder.absolute() / inner
        if not class_folder.is_dir() or inner.startswith("."):
            continue
        class_name = classes.class_names[classes.expect(inner, str(folder))]
        videos = list_videos(str(class_folder), others)
        entries += [ListEntry(str(folder), 0, path, class_name) for path, _ in videos]
    if not entries:
        raise InputError(f"{folder} holds no videos in class folders")
    if others:
        logger.warning(f"left out of the class folders of {folder}: {count_others(others)}")
    return entries


def _find_header(path: Path, text: str) -> tuple[dict[str, int], int]:
    """Finds the columns.

    Returns:
        Places of the columns, empty if this is no list of ids, and the number of lines before the first video.

    Raises:
        InputError: if there are ids, but no labels.
    """
    reader = csv.reader(io.StringIO(text[:_HEADER_CHARS], newline=""))
    cells = next(([cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)), [])
    names = [cell.lower().lstrip("#").strip() for cell in cells]
    found = {key: names.index(alias) for key, forms in _COLUMNS.items() for alias in reversed(forms) if alias in names}
    if "id" in found and "label" not in found:
        raise InputError(
            f"{path} has no labels (its columns are {', '.join(cells)}), as the list of the test videos; name the "
            "training or the validation list"
        )
    if "id" in found:
        return found, reader.line_num
    # Some copies have no header.
    if len(cells) >= 5 and _is_time(cells[2]) and _is_time(cells[3]):
        return {key: place for place, key in enumerate(("label", "id", "start", "end", "subset"))}, 0
    return {}, 0


def _rows_of_csv(path: Path, text: str, columns: dict[str, int], num_skipped: int) -> Iterator[_Row]:
    """Reads the lines below the header; what is not said is empty."""
    reader = csv.reader(io.StringIO(text, newline=""))
    num_needed = max(columns["label"], columns["id"]) + 1
    num_columns = max(columns.values()) + 1
    # A column that is not there is the empty cell that each row gets at its end.
    pick = itemgetter(*(columns.get(key, -1) for key in _COLUMNS))
    try:
        for row in reader:
            if reader.line_num <= num_skipped or not any(row):
                continue
            if len(row) < num_columns:
                if len(row) < num_needed and any(map(str.strip, row)):
                    found = ",".join(row)
                    raise InputError(f"{path}:{reader.line_num}: {num_columns} columns are expected, found {found!r}")
                row += [""] * (num_columns - len(row))
            row.append("")
            yield *pick(row), reader.line_num
    except csv.Error as error:
        raise InputError(f"The list {path} cannot be read: line {reader.line_num}: {error}") from error


def _rows_of_json(path: Path, text: str) -> Iterator[_Row]:
    """Reads `{"<id>": {"annotations": {"label": ..., "segment": [start, end]}, "subset": ...}}`."""
    content = read_json(path, text)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no annotation file of Kinetics: expected an object with a member for each video")
    for video_id, video in content.items():
        annotations: Any = video.get("annotations") if isinstance(video, dict) else None
        if not isinstance(annotations, dict) or not isinstance(annotations.get("label"), str):
            raise InputError(f"{path}, video {video_id}: no label; name the training or the validation list")
        segment = annotations.get("segment")
        start, end = [*(segment if isinstance(segment, list) else []), "", ""][:2]
        yield annotations["label"], video_id, str(start), str(end), str(video.get("subset", "")), 0


def _select(path: Path, rows: Sequence[_Row], subset: str) -> Sequence[_Row]:
    """Takes the rows of a subset, where the list says which is which."""
    subsets = {written: _SUBSETS.get(written.strip().lower(), "") for written in {row[4] for row in rows}}
    if subset in subsets.values():
        return [row for row in rows if subsets[row[4]] == subset]
    others = [ROLES[other] for other in subsets.values() if other]
    if others:
        raise InputError(
            f"{path} is for {others[0]}, by its column `split`, and dataset.{subset}_list is for {ROLES[subset]}; a "
            ".csv of the columns path,label may hold any videos"
        )
    return rows


def _make_entries(path: Path, rows: Sequence[_Row], classes: ClassLookup) -> list[ListEntry]:
    """Names the files; a video that is listed twice counts once."""
    source = str(path)
    entries: list[ListEntry] = []
    labels: dict[str, int] = {}
    times: dict[str, str] = {}
    num_repeated = 0
    for written, video_id, start, end, _, line in rows:
        video_id, label = video_id.strip(), classes.find(written)
        if label < 0 or not video_id:
            if not video_id and not written.strip():
                continue
            place = ListEntry(source, line, "", "", video_id).place
            raise InputError(f"{place}: {classes.explain(written) if video_id else 'no id'}")
        if start not in times or end not in times:
            _add_times(times, start, end, ListEntry(source, line, "", "", video_id).place)
        stem = video_id + times[start] + (times[end] or _add_length(times[start]))
        if labels.get(stem) == label:
            num_repeated += 1
            continue
        labels[stem] = label
        entries.append(ListEntry(source, line, stem, classes.class_names[label], video_id))
    if num_repeated:
        logger.warning(f"{path}: repeated lines: {num_repeated:,}; each video counts once")
    return entries


def _add_times(times: dict[str, str], start: str, end: str, place: str) -> None:
    """Adds to the seconds that were met their forms in file names: "10" and "10.0" are "_000010"."""
    for written in (start, end):
        try:
            times[written] = f"_{int(float(written)):06d}" if written.strip() else ""
        except (ValueError, OverflowError):
            raise InputError(f"{place}: times {start!r} to {end!r}; seconds are expected") from None


def _add_length(start: str) -> str:
    """Gives the end of a clip that has a start alone; nothing where the list gives no times."""
    return f"_{int(start[1:]) + _LENGTH_SEC:06d}" if start else ""


def _is_time(cell: str) -> bool:
    return cell.replace(".", "", 1).isdecimal()
