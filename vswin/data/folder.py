"""Data sets that are folders of video files, a folder per class. Called by `vswin.data.catalog`."""

import os
from pathlib import Path

from vswin.data.records import VideoRecord
from vswin.errors import InputError

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_LAYOUT = "expected <root>/<class>/<video>, or <root>/train/<class>/<video> with <root>/val/<class>/<video>"


def load_folder(root: Path) -> tuple[tuple[str, ...], list[VideoRecord], list[VideoRecord]]:
    """Lists the videos below a folder; their classes are the names of the folders they lie in.

    Args:
        root: holds a folder per class, or the folders `train` and `val` with the folders of the classes.

    Returns:
        Class names in sorted order, the records of `train` and those of `val`, sorted by class and name. Without
        these two folders all records are in the first list and the second is empty.

    Raises:
        InputError: if folders or videos are missing or not where they are expected.
    """
    train_root, val_root = root / "train", root / "val"
    if not (train_root.is_dir() and val_root.is_dir()):
        class_names = _find_classes(root)
        return class_names, _list_videos(root, class_names), []
    class_names = _find_classes(train_root)
    differing = sorted(set(_find_classes(val_root)) ^ set(class_names))
    if differing:
        raise InputError(f"{train_root} and {val_root} must have the same classes; one lacks {', '.join(differing)}")
    return class_names, _list_videos(train_root, class_names), _list_videos(val_root, class_names)


def is_video(name: str) -> bool:
    """Tells by its ending whether a file name is that of a video; the case of letters does not matter."""
    return name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")


def _find_classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; set dataset.root ({_LAYOUT})")
    names = _list_names(root)
    folders = {name for name in names if os.path.isdir(root / name)}
    stray = [name for name in names if is_video(name) and name not in folders]
    if stray:
        raise InputError(f"{root} holds videos outside of class folders, e.g. {stray[0]}; {_LAYOUT}")
    class_names = tuple(name for name in names if name in folders and not name.startswith("."))
    if not class_names:
        raise InputError(f"{root} holds no class folders; {_LAYOUT}")
    if len(class_names) == 1:
        raise InputError(f"{root} holds one class only, {class_names[0]!r}; there must be two or more ({_LAYOUT})")
    return class_names


def _list_videos(root: Path, class_names: tuple[str, ...]) -> list[VideoRecord]:
    records = []
    for label, class_name in enumerate(class_names):
        folder = root / class_name
        videos = [os.path.join(folder, name) for name in _list_names(folder) if is_video(name)]
        if not videos:
            raise InputError(
                f"There are no videos of the class {class_name!r} in {folder} (files ending in "
                f"{', '.join(VIDEO_SUFFIXES)}); add some or remove the class folder. {_LAYOUT.capitalize()}"
            )
        records += [VideoRecord(video, label) for video in videos]
    return records


def _list_names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read ({error.strerror})") from None
