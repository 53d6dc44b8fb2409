"""The annotation files of Something-Something v2: JSON with templates, and a map from class to number."""

import logging
from pathlib import Path
from typing import Any

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ListEntry, read_text
from vswin.data.annotations.json_file import is_json, read_json
from vswin.data.annotations.places import explain_missing, first_file, usual_folders
from vswin.errors import InputError

logger = logging.getLogger("vswin")

_HOW = (
    "From https://www.qualcomm.com/developer/software/something-something-v-2-dataset get the videos, unpacked to "
    "{root}/<id>.webm, and the labels (train.json, validation.json, labels.json), into {labels}."
)
_PREFIXES = ("something-something-v2-", "")
_LIST_NAMES = ("sthv2_{}_list_videos.txt", "{}.csv", "{}.txt")


def find_lists(root: Path) -> tuple[Path | None, Path | None]:
    """Looks for the annotation files.

    Args:
        root: folder of the videos.

    Returns:
        The lists for training and for validation; one of them may not be there.

    Raises:
        NotFoundError: if neither list, or the folder of the videos, is there.
    """
    folders = usual_folders(root) if root.is_dir() else []
    lists = []
    for words in (("train",), ("validation", "val")):
        json_names = [f"{prefix}{word}.json" for prefix in _PREFIXES for word in words]
        other_names = [name.format(word) for name in _LIST_NAMES for word in words]
        lists.append(first_file(folders, json_names + other_names))
    if lists == [None, None]:
        how = _HOW.format(root=root, labels=root.parent / "labels")
        raise explain_missing(
            "Something-Something v2", root, ["something-something-v2-train.json", "train.json", "..."], how
        )
    return lists[0], lists[1]


def read_annotations(path: Path, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads the owners' JSON.

    The class is the template without its brackets: "Putting [something] onto [something]" is the class "Putting
    something onto something". The map from class to number beside the list is compared with the classes.

    Args:
        path: the list.
        classes: of the data set.

    Returns:
        An entry per video; None if it is another list of paths and labels.

    Raises:
        InputError: if the list cannot be read, has no templates, or names an unknown class, or if the map numbers
            the classes otherwise.
    """
    text = read_text(path)
    if not is_json(text):
        return None
    videos = read_json(path, text)
    if isinstance(videos, dict):
        hint = "which is the map of the labels" if "Closing something" in videos else "it is an object"
        raise InputError(f"{path} is no list of videos, {hint}; name train.json or validation.json")
    check_label_map(path, classes)
    entries: dict[tuple[str, str], ListEntry] = {}
    for video in videos:
        entry = _make_entry(path, video, classes)
        entries.setdefault((entry.video_id, entry.label), entry)
    if not entries:
        raise InputError(f"The list {path} names no videos")
    if len(entries) < len(videos):
        logger.warning(f"{path}: repeated videos: {len(videos) - len(entries):,}; each counts once")
    return list(entries.values())


def check_label_map(path: Path, classes: ClassLookup) -> None:
    """Compares the owners' numbering of the classes, where it lies beside a list, with ours.

    Args:
        path: a list.
        classes: of the data set.

    Raises:
        InputError: if it differs.
    """
    map_path = first_file([path.parent], [f"{prefix}labels.json" for prefix in _PREFIXES])
    if map_path is None:
        return
    numbers = read_json(map_path, read_text(map_path))
    if not isinstance(numbers, dict):
        raise InputError(f"{map_path}: expected an object with the number of each class")
    unknown = next((name for name in numbers if classes.find(name) < 0), None)
    if unknown is not None:
        raise InputError(f"{map_path}: {classes.explain(unknown)}")
    for name, number in numbers.items():
        if str(number) != str(classes.find(name)):
            raise InputError(
                f"{map_path} gives class {name!r} the number {number}, but it is {classes.find(name)} in "
                "data/sthv2/classes.txt, which is the order of the published models; get the official labels anew"
            )
    if len(numbers) < len(classes.class_names):
        raise InputError(f"{map_path} has {len(numbers)} classes of {len(classes.class_names)}; get it anew")


def _make_entry(path: Path, video: Any, classes: ClassLookup) -> ListEntry:
    if not isinstance(video, dict) or "id" not in video:
        raise InputError(f"{path}: expected objects with `id` and `template`, found {str(video)[:80]!r}")
    video_id = str(video["id"]).strip()
    template = video.get("template")
    place = f"{path}, video {video_id}"
    if not isinstance(template, str):
        raise InputError(
            f"{place}: no `template`, as in the list of the test videos; name train.json or validation.json"
        )
    label = classes.expect(template.replace("[", "").replace("]", ""), place)
    return ListEntry(str(path), 0, video_id, classes.class_names[label], video_id)
