"""Read annotation files as the data set owners publish them.

`find_annotations` looks for the files in the usual folders. `read_annotations` reads a file if its content has the
owners' format: text for UCF101 and HMDB51, CSV or JSON for Kinetics, JSON for Something-Something v2 and Diving48, CSV
for Jester and Charades.
"""

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
from vswin.data.lists import SUBSETS, ListEntry, is_number, read_text, split_cells
from vswin.data.samples import ROLES, TEST, TRAIN, VAL, WHOLE, Part, Segment
from vswin.errors import InputError

# Usual folders of annotation files, beside and below the video folder.
_FOLDERS = ("splits", "annotations", "labels", "lists")
_SUBSETS = {name: role for name, role in SUBSETS.items() if role != TEST}


class NotFoundError(InputError):
    """The videos or the lists of a data set were not found in any of the searched folders."""


class _Owner(NamedTuple):
    """Where a data set's files come from, and how they are named."""

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
        (f"kinetics{number}", f"k{number}", f"kinetics{number}_2020", f"k{number}-2020"),
    )


_OWNERS = {
    "ucf101": _Owner(
        "UCF101",
        "From https://www.crcv.ucf.edu/data/UCF101.php get UCF101.rar, the videos, and "
        "UCF101TrainTestSplits-RecognitionTask.zip, the lists. Unpack the videos, so that {root}/Archery and the other "
        "100 class folders are there, and the lists (*.txt) into {parent}/splits.",
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
    "kinetics700": _kinetics(700),
    "sthv2": _Owner(
        "Something-Something v2",
        "From https://www.qualcomm.com/developer/software/something-something-v-2-dataset get the videos, unpacked to "
        "{root}/<id>.webm, and the labels (train.json, validation.json, labels.json), into {parent}/labels.",
        ("something-something-v2-train.json", "train.json", "sthv2_train_list_videos.txt", "train.csv", "train.txt"),
        ("validation", "val"),
    ),
    "diving48": _Owner(
        "Diving48",
        "From http://www.svcl.ucsd.edu/projects/resound/dataset.html get Diving48_rgb.tar.gz, the videos, unpacked to "
        "{root}/<name>.mp4, and the lists (Diving48_V2_train.json, Diving48_V2_test.json), into {parent}/annotations.",
        ("Diving48_V2_train.json", "diving48_train_list_videos.txt", "train.csv", "train.txt"),
        ("test", "val"),
    ),
    "jester": _Owner(
        "Jester",
        "From https://www.qualcomm.com/developer/software/jester-dataset get the pictures, unpacked to {root}/<id>, "
        "and the labels (jester-v1-train.csv, jester-v1-validation.csv), into {parent}/annotations.",
        ("jester-v1-train.csv", "train.csv", "jester_train_list_videos.txt", "train.txt"),
        ("validation", "val"),
    ),
    "charades": _Owner(
        "Charades",
        "From https://prior.allenai.org/projects/charades get the videos, unpacked to {root}/<id>.mp4, and the "
        "annotations (Charades_v1_train.csv, Charades_v1_test.csv), into {parent}/annotations.",
        ("Charades_v1_train.csv", "train.csv", "train.txt"),
        ("test", "val"),
        ("Charades",),
    ),
}
ANNOTATED = tuple(_OWNERS)


def find_annotations(dataset: DatasetConfig, classes: ClassLookup) -> list[Path | None]:
    """Finds the training list, which may be None, and the validation list, or folders in their place.

    Kinetics may also consist of class folders without lists.

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
            for name, subset in _SUBSETS.items():
                folder = root / name
                if folder.is_dir() and any(classes.find(inner) >= 0 for inner in os.listdir(folder)):
                    found[subset == VAL] = found[subset == VAL] or folder
    if found == [None, None]:
        missing = f"the lists ({', '.join(train_names[:2])})" if root.is_dir() else f"the folder {root}"
        how = owner.how.format(root=root, parent=root.parent)
        raise NotFoundError(
            f"{owner.title}: {missing} cannot be found. {how} The lists are looked for in `splits`, `annotations`, "
            f"`labels` and `lists` beside and inside dataset.root={root}. If the videos are elsewhere, set "
            "dataset.root to their folder; dataset.train_list and dataset.val_list may name lists."
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

    Returns an entry per video of the subset, "train" or "val"; None if the file does not have the owners' format.
    `notes` gets a sentence about skipped files. An `InputError` refuses a file that is unreadable, names an unknown
    class, or belongs to another data set, split or subset.
    """
    if dataset.name == "ucf101":
        entries = _read_ucf101(path, classes)
    elif dataset.name == "hmdb51":
        entries = _read_hmdb51(path, subset, dataset.split, classes)
    elif dataset.name == "sthv2":
        entries = _read_sthv2(path, classes)
    elif dataset.name == "diving48":
        entries = _read_diving48(path, classes)
    elif dataset.name == "jester":
        entries = _read_jester(path, classes)
    elif dataset.name == "charades":
        entries = _read_charades(path, classes)
    elif path.is_dir():
        entries = _read_class_folders(path, classes, notes)
    else:
        entries = _read_kinetics(path, subset, classes)
    if entries is not None and not entries:
        raise InputError(f"The list {path} names no videos")
    return entries


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
    return folder.rpartition("/")[2] or (listed[1] if listed else name)


def _read_hmdb51(path: Path, subset: str, split: int, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads `<class>_test_split<N>.txt`, which assigns each video to a subset, or all such files of a folder."""
    paths = sorted(path.glob(f"*_test_split{split}.txt")) if path.is_dir() else [path]
    entries = []
    for file in paths:
        match = re.fullmatch(r"(.+)_test_split([123])\.txt", file.name)
        if match is None:
            return None
        if match[2] != str(split):
            raise InputError(f"{file} is of split {match[2]}, but dataset.split={split}")
        class_name = classes.class_names[classes.expect(match[1], str(file))]
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


def is_json(text: str) -> bool:
    """Recognises a JSON object or array by its first characters; a path in a list may also start with a bracket."""
    return re.match(r"\s*(\{\s*[\"}]|\[\s*[{\]])", text) is not None


def parse_json(path: Path, text: str) -> Any:
    """Reads the text of a JSON file; an `InputError` says what is wrong with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise InputError(f"The list {path} cannot be read: it is no whole JSON file ({error})") from error


def _read_sthv2(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads objects with `id` and `template`; the template "Putting [something]" is the class "Putting something"."""
    text = read_text(path)
    if not is_json(text):
        return None
    videos = parse_json(path, text)
    if isinstance(videos, dict):
        raise InputError(f"{path} is an object, as labels.json is, and no list of videos; name train.json")
    entries = []
    for video in videos:
        if not isinstance(video, dict) or "id" not in video:
            raise InputError(f"{path}: expected objects with `id` and `template`, found {str(video)[:80]!r}")
        video_id, template = str(video["id"]).strip(), video.get("template")
        where = f"{path}, video {video_id}"
        if not isinstance(template, str):
            raise InputError(
                f"{where}: no `template`, as in the list of the test videos; name train.json or validation.json"
            )
        class_name = classes.class_names[classes.expect(template.replace("[", "").replace("]", ""), where)]
        entries.append(ListEntry(str(path), 0, video_id, class_name, video_id))
    return entries


def _read_diving48(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads objects with `vid_name`, `label`, a class index, and possibly `start_frame` and `end_frame`, exclusive."""
    text = read_text(path)
    if not is_json(text):
        return None
    videos, names, entries = parse_json(path, text), classes.class_names, []
    for video in videos:
        if not isinstance(video, dict) or "vid_name" not in video:
            raise InputError(
                f"{path}: expected objects with `vid_name` and `label`, found {str(video)[:80]!r}; name "
                "Diving48_V2_train.json or Diving48_V2_test.json"
            )
        video_id, label = str(video["vid_name"]).strip(), video.get("label")
        where = f"{path}, video {video_id}"
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise InputError(f"{where}: the label is {str(label)[:80]!r}; the {len(names)} classes count from 0")
        # The published files are cut to the dives, so that their lists start at frame 0.
        part = WHOLE
        if start := video.get("start_frame"):
            end = video.get("end_frame")
            if not (isinstance(start, int) and isinstance(end, int) and 0 < start < end):
                raise InputError(f"{where}: the frames {str(start)[:80]!r} to {str(end)[:80]!r} are no segment")
            part = Part(Segment(start, end, in_frames=True))
        entries.append(ListEntry(str(path), 0, video_id, names[label], video_id, part))
    return entries


def _read_jester(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads lines `id;class`, where the id is the name of a folder of pictures or of a video."""
    lines = [(number, *line.partition(";")[::2]) for number, line in _read_lines(path)]
    if not lines[0][1].isdecimal():
        return None
    entries = []
    for number, video_id, name in lines:
        where = f"{path}:{number}"
        if not video_id.isdecimal() or not name:
            raise InputError(
                f"{where}: expected `id;class`, found {f'{video_id};{name}'[:80]!r}; the list of the test videos has "
                "no classes: name jester-v1-train.csv or jester-v1-validation.csv"
            )
        class_name = classes.class_names[classes.expect(name, where)]
        entries.append(ListEntry(str(path), number, video_id, class_name, video_id))
    return entries


def _read_charades(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads the columns `id` and `actions`, such as `c092 11.90 21.20;c147 0.00 12.60`; the times are not used."""
    lines = split_cells(path, read_text(path), ",")
    _, header = next(lines, (0, []))
    if "id" not in header or "script" not in header:
        return None
    if "actions" not in header:
        raise InputError(f"{path} has no column `actions`; name Charades_v1_train.csv or Charades_v1_test.csv")
    entries, names = [], classes.class_names
    for line, cells in lines:
        if len(cells) != len(header):
            raise InputError(f"{path}:{line}: {len(cells)} columns, {len(header)} in the header; get the list anew")
        row = dict(zip(header, cells, strict=True))
        labels: dict[str, None] = {}
        for action in filter(str.strip, row["actions"].split(";")):
            found = re.fullmatch(r"\s*c(\d{3})(\s+[\d.]+){2}\s*", action)
            if found is None or int(found[1]) >= len(names):
                raise InputError(
                    f"{path}:{line}, video {row['id']}: the action {action[:80]!r}; expected `c000 0.0 1.5`, with c000 "
                    f"to c{len(names) - 1:03d}"
                )
            labels[names[int(found[1])]] = None
        entries.append(ListEntry(str(path), line, row["id"].strip(), ";".join(labels), row["id"].strip()))
    return entries


# Columns of a Kinetics list, of which the first two are required; a row has its line number and their cells.
_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_Row = tuple[int, tuple[str, ...]]


def _read_kinetics(path: Path, subset: str, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads the entries of one subset from CSV or JSON, with the path `<id>_<start>_<end>` and six-digit times."""
    text = read_text(path)
    rows = _kinetics_json(path, text) if is_json(text) else _kinetics_csv(path, text)
    if rows is None:
        return None
    roles = {written: _SUBSETS.get(written.strip().lower()) for written in {cells[-1] for _, cells in rows}}
    if subset in roles.values():
        rows = [row for row in rows if roles[row[1][-1]] == subset]
    elif others := [ROLES[role] for role in roles.values() if role]:
        raise InputError(
            f"{path} is for {others[0]}, by its column `split`, and dataset.{subset}_list is for {ROLES[subset]}; a "
            ".csv of the columns path,label may hold any videos"
        )
    entries, source = [], str(path)
    suffixes: dict[tuple[str, str], str] = {}  # start and end as written -> end of the file name
    for line, (written, video_id, start, end, _) in rows:
        entry = ListEntry(source, line, "", written, video_id.strip())
        if not entry.video_id:
            raise InputError(f"{entry.where}: no id")
        label = classes.find(written)
        if label < 0:
            raise InputError(f"{entry.where}: {classes.explain(written)}")
        if (start, end) not in suffixes:
            try:
                times = [f"_{int(float(time)):06d}" for time in (start, end) if time.strip()]
            except (ValueError, OverflowError):
                raise InputError(f"{entry.where}: times {start!r} to {end!r}; seconds are expected") from None
            suffixes[start, end] = "".join(times) if len(times) == 2 else ""
        stem = entry.video_id + suffixes[start, end]
        entries.append(ListEntry(source, line, stem, classes.class_names[label], entry.video_id))
    return entries


def _kinetics_csv(path: Path, text: str) -> list[_Row] | None:
    """Reads columns `label,youtube_id,time_start,time_end,split` in any order, and others; None without ids."""
    lines = split_cells(path, text, ",")
    _, header = next(lines, (0, []))
    names = [cell.lower().strip(" #") for cell in header]
    if "youtube_id" not in names:
        return None
    if "label" not in names:
        raise InputError(
            f"{path} has no labels (its columns are {', '.join(header)}), as the list of the test videos; name the "
            "training or the validation list"
        )
    # Each row gets an empty cell at its end, which stands for missing columns.
    pick = itemgetter(*(names.index(name) if name in names else -1 for name in _COLUMNS))
    num_needed = max(names.index(name) for name in _COLUMNS[:2]) + 1
    rows = []
    for line, cells in lines:
        if len(cells) < num_needed:
            raise InputError(f"{path}:{line}: expected {','.join(header)}, found {','.join(cells)!r}")
        cells += [""] * max(1, len(names) + 1 - len(cells))
        rows.append((line, pick(cells)))
    return rows


def _kinetics_json(path: Path, text: str) -> list[_Row]:
    """Reads `{"<id>": {"annotations": {"label": ..., "segment": [start, end]}, "subset": ...}}`."""
    content = parse_json(path, text)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no annotation file of Kinetics: expected an object with a member for each video")
    rows: list[_Row] = []
    for video_id, video in content.items():
        annotations: Any = video.get("annotations") if isinstance(video, dict) else None
        if not isinstance(annotations, dict) or not isinstance(annotations.get("label"), str):
            raise InputError(f"{path}, video {video_id}: no label; name the training or the validation list")
        segment = annotations.get("segment")
        start, end = [*(segment if isinstance(segment, list) else []), "", ""][:2]
        rows.append((0, (annotations["label"], video_id, str(start), str(end), str(video.get("subset", "")))))
    return rows


def _read_class_folders(folder: Path, classes: ClassLookup, notes: list[str]) -> list[ListEntry]:
    """Lists all videos in class folders."""
    entries = []
    others: Counter[str] = Counter()
    for class_folder in sorted(folder.absolute().glob("[!.]*")):
        if class_folder.is_dir():
            class_name = classes.class_names[classes.expect(class_folder.name, str(folder))]
            videos = list_videos(str(class_folder), others)
            entries += [ListEntry(str(folder), 0, path, class_name) for path, _ in videos]
    if others:
        notes.append(f"left out of the class folders of {folder}: {count_others(others)}")
    return entries
