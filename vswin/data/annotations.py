"""Read annotation files as the data set owners publish them. Called by `vswin.data.catalog`.

`find_annotations` looks for the files in the usual folders. `read_annotations` reads a file if its content has the
owners' format: text for UCF101 and HMDB51, CSV or JSON for Kinetics, JSON for Something-Something v2.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from vswin.config.schema import DatasetConfig
from vswin.data.class_names import ClassLookup
from vswin.data.folder import count_others, is_video, list_videos
from vswin.data.lists import ROLES, TRAIN, VAL, ListEntry, is_number, read_text
from vswin.errors import InputError

# Usual folders of annotation files, beside and below the video folder.
_FOLDERS = ("splits", "annotations", "labels", "lists")
_SUBSETS = {"train": TRAIN, "training": TRAIN, "val": VAL, "validate": VAL, "validation": VAL, "valid": VAL}


class NotFoundError(InputError):
    """The videos or the lists of a data set were not found in any of the searched folders."""


class _Owner(NamedTuple):
    """The source of a data set's files, and their names."""

    title: str  # as people write it
    how: str  # where to get the files and where to put them; `root` is the video folder, `parent` its parent
    lists: tuple[str, ...]  # names of the training list, best first; a pattern selects the folder of matching files
    val_words: tuple[str, ...]  # words that replace "train" in the name of the validation list
    folders: tuple[str, ...] = ()  # more folders that may hold the lists, besides `_FOLDERS`


def _kinetics(number: int) -> _Owner:
    return _Owner(
        f"Kinetics-{number}",
        "From https://github.com/cvdfoundation/kinetics-dataset get the videos, into {root} in any folders, and the "
        "annotations (train.csv, val.csv), into {parent}/annotations.",
        (
            *("train.csv", f"kinetics{number}_train.csv", "kinetics_train.csv", "train.json"),
            *(f"kinetics{number}_train_list_videos.txt", "train.txt"),
        ),
        ("val", "validate", "validation"),
        (f"kinetics{number}", f"k{number}"),
    )


_OWNERS = {
    "ucf101": _Owner(
        "UCF101",
        "From https://www.crcv.ucf.edu/data/UCF101.php get UCF101.rar, the videos, and "
        "UCF101TrainTestSplits-RecognitionTask.zip, the lists. Unpack the videos, so that {root}/Archery and the other "
        "100 class folders are there, and the lists (*.txt) into {parent}/splits; or set dataset.root to the folder of "
        "the class folders, with the lists in `splits` or `ucfTrainTestlist` beside it.",
        ("trainlist0{split}.txt",),
        ("test",),
        ("ucfTrainTestlist",),
    ),
    "hmdb51": _Owner(
        "HMDB51",
        "From https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database get hmdb51_org.rar, the "
        "videos (an archive for each class), and test_train_splits.rar, the lists. Unpack the videos, so that "
        "{root}/brush_hair and the other 50 class folders are there, and the lists (*.txt) into {parent}/splits.",
        ("*_test_split{split}.txt",),  # each list marks its training and test videos
        ("train",),
        ("testTrainMulti_7030_splits", "test_train_splits", "test_train_splits/testTrainMulti_7030_splits"),
    ),
    "kinetics400": _kinetics(400),
    "kinetics600": _kinetics(600),
    "sthv2": _Owner(
        "Something-Something v2",
        "From https://www.qualcomm.com/developer/software/something-something-v-2-dataset get the videos, unpacked to "
        "{root}/<id>.webm, and the labels (train.json, validation.json, labels.json), into {parent}/labels.",
        ("something-something-v2-train.json", "train.json", "sthv2_train_list_videos.txt", "train.csv", "train.txt"),
        ("validation", "val"),
    ),
}
ANNOTATED = tuple(_OWNERS)


def find_annotations(dataset: DatasetConfig, classes: ClassLookup) -> list[Path | None]:
    """Looks for annotation files in their usual folders; Kinetics may also consist of class folders without lists.

    Returns:
        The training list and the validation list, or folders in their place. The training list may be None.

    Raises:
        NotFoundError: if the video folder is missing, or both lists are.
        InputError: if the split does not exist, or only the training list does.
    """
    owner, root = _OWNERS[dataset.name], Path(dataset.root)
    if "{split}" in owner.lists[0] and dataset.split not in (1, 2, 3):
        raise InputError(f"dataset.split={dataset.split}: {owner.title} has the splits 1, 2 and 3")
    train_names = [name.format(split=dataset.split) for name in owner.lists]
    val_names = [name.replace("train", word) for name in train_names for word in owner.val_words]
    found: list[Path | None] = [None, None]
    if root.is_dir():
        bases = (root.absolute().parent, root)
        folders = [base / name for base in bases for name in (*_FOLDERS, *owner.folders, ".")]
        found = [_first(folders, names) for names in (train_names, val_names)]
        if found == [None, None] and owner.title.startswith("Kinetics"):
            found = [_find_class_folders(root, subset, classes) for subset in (TRAIN, VAL)]
    if found == [None, None]:
        missing = f"the lists ({', '.join(train_names[:2])})" if root.is_dir() else f"the folder {root}"
        how = owner.how.format(root=root, parent=root.parent)
        raise NotFoundError(
            f"{owner.title}: {missing} cannot be found. {how} The lists are looked for in `splits`, `annotations`, "
            f"`labels` and `lists` beside and inside dataset.root={root}; dataset.train_list and dataset.val_list may "
            "name them."
        )
    if found[1] is None:
        raise InputError(
            f"{found[0]} is there, but no list of the validation videos; name one with dataset.val_list, or set "
            f"dataset.train_list={found[0]} to hold out dataset.val_fraction of the training videos"
        )
    return found


def _first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Finds the first of these files, by folder first and name second; for a pattern, returns the folder."""
    for folder in folders:
        for name in names:
            if "*" in name and next(folder.glob(name), None):
                return folder
            if (folder / name).is_file():
                return folder / name
    return None


def read_annotations(
    dataset: DatasetConfig, path: Path, subset: str, classes: ClassLookup, notes: list[str]
) -> list[ListEntry] | None:
    """Reads an annotation file, or a folder that holds the owners' lists or class folders.

    Returns:
        An entry per video of the subset, "train" or "val"; None if the file does not have the owners' format. `notes`
        gets a sentence about skipped videos.

    Raises:
        InputError: if the file is unreadable, names an unknown class, or belongs to another data set, split or subset.
    """
    match dataset.name:
        case "ucf101":
            return _read_ucf101(path, classes)
        case "hmdb51":
            return _read_hmdb51(path, subset, dataset.split, classes)
        case "sthv2":
            return _read_sthv2(path, classes, notes)
        case _:
            return _read_kinetics(path, subset, classes, notes)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Reads the non-empty lines of a list, stripped, with their line numbers from 1."""
    # str.splitlines would also split a name at U+2028, for example.
    lines = [(number, line.strip()) for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1)]
    kept = [(number, line) for number, line in lines if line]
    if not kept:
        raise InputError(f"The list {path} names no videos")
    return kept


def _read_ucf101(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads lines `Class/v_Class_g01_c01.avi`, which training lists extend by a label from 1."""
    lines = _read_lines(path)
    # The list is official if its first line has no label, or a label that counts from 1.
    video, *labels = lines[0][1].replace("\\", "/").rsplit(maxsplit=1)
    is_plain = not labels and is_video(video.rpartition("/")[2])
    is_numbered = bool(labels) and is_number(labels[0]) and classes.find(_class_of(video)) + 1 == int(labels[0]) > 0
    if not (is_plain or is_numbered):
        return None
    numbering = path.with_name("classInd.txt")
    if numbering.is_file():
        numbered = [tuple(line.split()) for _, line in _read_lines(numbering)]
        if numbered != [(str(number), name) for number, name in enumerate(classes.class_names, start=1)]:
            raise InputError(
                f"{numbering} numbers the classes otherwise than the data set does; get the official lists anew"
            )
    entries = []
    for number, line in lines:
        video, *labels = line.replace("\\", "/").split()
        if len(labels) > 1 or not is_video(video.rpartition("/")[2]):
            raise InputError(f"{path}:{number}: expected `Class/video.avi` or `Class/video.avi label`, found {line!r}")
        label = classes.expect(_class_of(video), f"{path}:{number}")
        name = classes.class_names[label]
        if labels and labels != [str(label + 1)]:
            raise InputError(
                f"{path}:{number}: label {labels[0]} for {name!r}, which is {label + 1}; the official labels count "
                "from 1"
            )
        entries.append(ListEntry(str(path), number, video, name))
    return entries


def _class_of(video: str) -> str:
    """Takes the class from the folder, or from the file name if there is no folder."""
    folder, _, name = video.rpartition("/")
    listed = re.fullmatch(r"v_(.+)_g\d+_c\d+\.\w+", name)
    return folder.rpartition("/")[2] or (listed.group(1) if listed else name)


def _read_hmdb51(path: Path, subset: str, split: int, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads `<class>_test_split<N>.txt`, which assigns each video to a subset, or all such files of a folder."""
    list_name = re.compile(r"(.+)_test_split([123])\.txt")
    paths = sorted(path.glob(f"*_test_split{split}.txt")) if path.is_dir() else [path]
    entries = []
    for file in paths:
        match = list_name.fullmatch(file.name)
        if match is None:
            return None
        if match.group(2) != str(split):
            raise InputError(f"{file} is of split {match.group(2)}, but dataset.split={split}")
        class_name = classes.class_names[classes.expect(match.group(1), str(file))]
        for number, line in _read_lines(file):
            # Names contain # & ; ( and, in re-packed copies, spaces.
            video, use = [*line.rsplit(maxsplit=1), ""][:2]
            if use not in ("0", "1", "2"):
                raise InputError(
                    f"{file}:{number}: expected `video.avi 1` (training), 2 (test) or 0 (unused), found {line!r}"
                )
            if use == {TRAIN: "1", VAL: "2"}[subset]:
                name = video.replace("\\", "/").rpartition("/")[2]
                entries.append(ListEntry(str(file), number, f"{class_name}/{name}", class_name))
    if not entries:
        raise InputError(f"{path} names no {ROLES[subset]} videos of split {split}; set dataset.split, or get it anew")
    return entries


def _is_json(text: str) -> bool:
    """Recognises a JSON object or array by its first characters; a path in a list may also start with a bracket."""
    return re.match(r"\s*(\{\s*[\"}]|\[\s*[{\]])", text) is not None


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise InputError(f"The list {path} cannot be read: it is no whole JSON file ({error})") from error


def _read_sthv2(path: Path, classes: ClassLookup, notes: list[str]) -> list[ListEntry] | None:
    """Reads objects with `id` and `template`; the template "Putting [something]" is the class "Putting something"."""
    text = read_text(path)
    if not _is_json(text):
        return None
    videos = _parse_json(path, text)
    if isinstance(videos, dict):
        hint = "which is the map of the labels" if "Closing something" in videos else "it is an object"
        raise InputError(f"{path} is no list of videos, {hint}; name train.json or validation.json")
    _check_label_map(path, classes)
    entries: dict[tuple[str, str], ListEntry] = {}
    for video in videos:
        if not isinstance(video, dict) or "id" not in video:
            raise InputError(f"{path}: expected objects with `id` and `template`, found {str(video)[:80]!r}")
        video_id, template = str(video["id"]).strip(), video.get("template")
        place = f"{path}, video {video_id}"
        if not isinstance(template, str):
            raise InputError(
                f"{place}: no `template`, as in the list of the test videos; name train.json or validation.json"
            )
        class_name = classes.class_names[classes.expect(template.replace("[", "").replace("]", ""), place)]
        entries.setdefault((video_id, class_name), ListEntry(str(path), 0, video_id, class_name, video_id))
    if not entries:
        raise InputError(f"The list {path} names no videos")
    if len(entries) < len(videos):
        notes.append(f"repeated in {path}: {len(videos) - len(entries):,}; each video counts once")
    return list(entries.values())


def _check_label_map(path: Path, classes: ClassLookup) -> None:
    """Compares the owners' class numbers with ours, if their label map lies beside the list."""
    map_path = _first([path.parent], ["something-something-v2-labels.json", "labels.json"])
    if map_path is None:
        return
    numbers = _parse_json(map_path, read_text(map_path))
    if not isinstance(numbers, dict):
        raise InputError(f"{map_path}: expected an object with the number of each class")
    labels = {name: classes.expect(name, str(map_path)) for name in numbers}
    for name, label in labels.items():
        if str(numbers[name]) != str(label):
            raise InputError(
                f"{map_path} gives class {name!r} the number {numbers[name]}, but it is {label} in "
                "data/sthv2/classes.txt, which is the order of the published models; get the official labels anew"
            )
    if len(numbers) < len(classes.class_names):
        raise InputError(f"{map_path} has {len(numbers)} classes of {len(classes.class_names)}; get it anew")


# A Kinetics video: label, id, start, end and subset as written, and the line number. Lists are long, so plain tuples.
_Row = tuple[str, str, str, str, str, int]


def _read_kinetics(path: Path, subset: str, classes: ClassLookup, notes: list[str]) -> list[ListEntry] | None:
    """Reads the entries of one subset from CSV or JSON, with the path `<id>_<start>_<end>` and six-digit times."""
    if path.is_dir():
        return _read_class_folders(path, classes, notes)
    text = read_text(path)
    rows = _kinetics_json(path, text) if _is_json(text) else _kinetics_csv(path, text)
    if rows is None:
        return None
    subsets = {written: _SUBSETS.get(written.strip().lower(), "") for written in {row[4] for row in rows}}
    if subset in subsets.values():
        rows = [row for row in rows if subsets[row[4]] == subset]
    elif others := [ROLES[other] for other in subsets.values() if other]:
        raise InputError(
            f"{path} is for {others[0]}, by its column `split`, and dataset.{subset}_list is for {ROLES[subset]}; a "
            ".csv of the columns path,label may hold any videos"
        )

    source, num_repeated = str(path), 0
    entries: list[ListEntry] = []
    seen: dict[str, int] = {}
    times: dict[tuple[str, str], str] = {}  # start and end as written -> as in file names
    for written, video_id, start, end, _, line in rows:
        video_id, label = video_id.strip(), classes.find(written)
        if label < 0 or not video_id:
            place = ListEntry(source, line, "", "", video_id).place
            raise InputError(f"{place}: {classes.explain(written) if video_id else 'no id'}")
        if (start, end) not in times:
            try:
                seconds = [float(time) for time in (start, end) if time.strip()]
                times[start, end] = "".join(f"_{int(time):06d}" for time in seconds) if len(seconds) == 2 else ""
            except (ValueError, OverflowError):
                place = ListEntry(source, line, "", "", video_id).place
                raise InputError(f"{place}: times {start!r} to {end!r}; seconds are expected") from None
        stem = video_id + times[start, end]
        if seen.get(stem) == label:
            num_repeated += 1
            continue
        seen[stem] = label
        entries.append(ListEntry(source, line, stem, classes.class_names[label], video_id))
    if not entries:
        raise InputError(f"The list {path} names no videos")
    if num_repeated:
        notes.append(f"repeated in {path}: {num_repeated:,}; each video counts once")
    return entries


def _kinetics_csv(path: Path, text: str) -> list[_Row] | None:
    """Reads columns `label,youtube_id,time_start,time_end,split` in any order, and others; None without ids."""
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[_Row] = []
    try:
        header = next((row for row in reader if any(map(str.strip, row))), [])
        names = [cell.lower().strip(" #") for cell in header]
        if "youtube_id" not in names:
            return None
        if "label" not in names:
            raise InputError(
                f"{path} has no labels (its columns are {', '.join(header)}), as the list of the test videos; name the "
                "training or the validation list"
            )
        # Each row gets an empty cell at its end, which stands for missing columns.
        columns = ("label", "youtube_id", "time_start", "time_end", "split")
        pick = itemgetter(*(names.index(name) if name in names else -1 for name in columns))
        num_needed = max(names.index(name) for name in columns[:2]) + 1
        for row in reader:
            if not any(row) or (len(row) < num_needed and not any(map(str.strip, row))):
                continue
            if len(row) < num_needed:
                raise InputError(f"{path}:{reader.line_num}: expected {','.join(header)}, found {','.join(row)!r}")
            row += [""] * (len(names) - len(row))
            row.append("")
            rows.append((*pick(row), reader.line_num))
    except csv.Error as error:
        raise InputError(f"The list {path} cannot be read: line {reader.line_num}: {error}") from error
    return rows


def _kinetics_json(path: Path, text: str) -> list[_Row]:
    """Reads `{"<id>": {"annotations": {"label": ..., "segment": [start, end]}, "subset": ...}}`."""
    content = _parse_json(path, text)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no annotation file of Kinetics: expected an object with a member for each video")
    rows = []
    for video_id, video in content.items():
        annotations: Any = video.get("annotations") if isinstance(video, dict) else None
        if not isinstance(annotations, dict) or not isinstance(annotations.get("label"), str):
            raise InputError(f"{path}, video {video_id}: no label; name the training or the validation list")
        segment = annotations.get("segment")
        start, end = [*(segment if isinstance(segment, list) else []), "", ""][:2]
        rows.append((annotations["label"], video_id, str(start), str(end), str(video.get("subset", "")), 0))
    return rows


def _find_class_folders(root: Path, subset: str, classes: ClassLookup) -> Path | None:
    """Finds the folder of a subset, if it contains a class folder."""
    for name, role in _SUBSETS.items():
        folder = root / name
        if role == subset and folder.is_dir() and any(classes.find(inner) >= 0 for inner in os.listdir(folder)):
            return folder
    return None


def _read_class_folders(folder: Path, classes: ClassLookup, notes: list[str]) -> list[ListEntry]:
    """Lists all videos in class folders."""
    entries = []
    others: Counter[str] = Counter()
    for class_folder in sorted(folder.absolute().glob("[!.]*")):
        if class_folder.is_dir():
            class_name = classes.class_names[classes.expect(class_folder.name, str(folder))]
            videos = list_videos(str(class_folder), others)
            entries += [ListEntry(str(folder), 0, path, class_name) for path, _ in videos]
    if not entries:
        raise InputError(f"{folder} holds no videos in class folders")
    if others:
        notes.append(f"left out of the class folders of {folder}: {count_others(others)}")
    return entries
