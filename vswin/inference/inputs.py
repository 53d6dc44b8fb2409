"""Find the videos that a command line names: files, folders, patterns and cameras."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vswin.console import printable
from vswin.data.folder import ENDINGS, count_others, list_videos, walk_files
from vswin.errors import InputError

logger = logging.getLogger("vswin")

_CAMERA = re.compile(r"camera(?::(\d+))?")


class Input(NamedTuple):
    """A video: its file, and its name, the path below the given folder or below the fixed part of the pattern.

    `label` is the class by the usual layout: the name of the folder that holds the video, or empty.
    """

    path: str
    name: str
    label: str = ""


def find_videos(arguments: Sequence[str]) -> list[Input]:
    """Lists the videos that the arguments name, each real file once, in order; logs what else the folders hold.

    Arguments are files, folders (all videos below them, by their endings) and patterns such as `videos/**/*.mp4`. The
    videos are not opened yet.

    Raises:
        InputError: if an argument matches no video.
    """
    found: dict[str, Input] = {}
    for argument in arguments:
        for entry in _expand(argument):
            found.setdefault(os.path.realpath(entry.path), entry)
    return list(found.values())


def find_camera(arguments: Sequence[str]) -> int | None:
    """Gives the number of the camera that the arguments name; None if they name no camera.

    Raises:
        InputError: if they name something else besides a camera.
    """
    found = [_CAMERA.fullmatch(argument) for argument in arguments if not Path(argument).exists()]
    cameras = [camera for camera in found if camera is not None]
    if not cameras:
        return None
    if len(arguments) > 1:
        raise InputError(f"{' '.join(arguments)}: a camera goes alone; predict the files in a call of their own")
    return int(cameras[0][1] or 0)


def _expand(argument: str) -> Iterator[Input]:
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path, path)
    elif os.path.lexists(path):
        # A file that is named is tried, whatever its ending.
        yield Input(argument, path.name)
    elif glob.has_magic(argument):
        yield from _matches(argument)
    else:
        raise InputError(
            f"{argument}: there is no such file or folder; give videos, folders of them, patterns in quotes, or camera"
        )


def _matches(pattern: str) -> Iterator[Input]:
    """Lists the videos that match a pattern; their names start below its last folder without wildcards."""
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    if "**" in Path(pattern).parts:
        parts = Path(pattern).parts[len(root.parts) :]
        found = [path for path, _ in walk_files(str(root))] if root.is_dir() else []
        matches = sorted(path for path in found if _fits(Path(path).relative_to(root).parts, parts))
    else:
        matches = sorted(glob.glob(pattern))
    for match in matches:
        if os.path.isdir(match):
            yield from _in_folder(Path(match), root)
        else:
            yield _name(Path(match), root)
    if not matches:
        raise InputError(f"{pattern}: no file matches this pattern; mind quotes and the folder it starts from")


def _in_folder(folder: Path, root: Path) -> Iterator[Input]:
    others: Counter[str] = Counter()
    videos = list_videos(str(folder), others)
    if not videos:
        raise InputError(f"{folder}: there are no videos in this folder ({ENDINGS})")
    if others:
        logger.info(f"{printable(str(folder))}: {count_others(others)} left out")
    for path, _ in videos:
        yield _name(Path(path), root)


def _name(path: Path, root: Path) -> Input:
    return Input(str(path), str(path.relative_to(root)), "" if path.parent == root else path.parent.name)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tells whether a path matches a pattern with `**`; `glob` would follow symbolic links in circles."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
