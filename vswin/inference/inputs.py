"""Find the videos that a command line names (files, folders, patterns and cameras), and name the copies of them."""

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

from vswin.atomic import check_outputs
from vswin.console import printable
from vswin.data.decode import list_pictures
from vswin.data.folder import ENDINGS, are_numbered, count_others, list_videos, walk_files
from vswin.data.samples import split_name
from vswin.errors import InputError

logger = logging.getLogger("vswin")

_CAMERA = re.compile(r"camera(?::(\d+))?")


class Input(NamedTuple):
    """A video: its file, or the name of a part of it, and its name below the given folder or the pattern's fixed part.

    `label` is the name of the folder that holds the video, if that is a class folder by the usual layout, or empty.
    """

    path: str
    name: str
    label: str = ""


def find_videos(arguments: Sequence[str]) -> list[Input]:
    """Lists the videos that the arguments name, each real file once, in order; logs what else the folders hold.

    Arguments are files, folders of numbered pictures, other folders (all videos below them, by their endings) and
    patterns such as `videos/**/*.mp4`; a part of a file or folder is named as in `match.mp4#t=10,12.5&box=0,0,0.5,1`.
    The videos are not opened yet. An `InputError` if an argument matches no video.
    """
    found: dict[str, Input] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir() and not are_numbered(list_pictures(argument)):
            entries = _find_in_folder(path, path)
        elif os.path.lexists(path):
            # A named file is tried, whatever its ending, and so is a folder of numbered pictures.
            entries = iter([Input(argument, path.name)])
        elif os.path.lexists(split_name(argument)[0]):
            entries = iter([Input(argument, Path(split_name(argument)[0]).name)])
        elif glob.has_magic(argument):
            entries = _find_matches(argument)
        else:
            raise InputError(
                f"{argument}: there is no such file or folder; give videos, folders of them, patterns in quotes, or "
                "camera"
            )
        for entry in entries:
            found.setdefault(os.path.realpath(entry.path), entry)
    return list(found.values())


def find_camera(arguments: Sequence[str]) -> int | None:
    """Gives the number of the camera that the arguments name; None if they name no camera.

    An `InputError` if they name anything besides a camera.
    """
    matches = [_CAMERA.fullmatch(argument) for argument in arguments if not Path(argument).exists()]
    cameras = [int(match[1] or 0) for match in matches if match]
    if cameras and len(arguments) > 1:
        raise InputError(f"{' '.join(arguments)}: a camera goes alone; predict the files in a call of their own")
    return cameras[0] if cameras else None


def name_outputs(
    inputs: Sequence[Input], folder: Path, is_overwriting: bool, option: str = "--save"
) -> dict[str, Path]:
    """Names the film of each video: `folder` and the name of the video, with the ending `.mp4`; video path -> film.

    If two films would have the same name, the later one keeps its own ending as well, and gets a number if needed.
    `option` is the option that named the folder, for errors.

    Raises:
        InputError: if a film would replace one of the videos, or a file although not `is_overwriting`.
    """
    videos: dict[Path, str] = {}  # by film
    for entry in inputs:
        name = folder / entry.name
        film = name.with_suffix(".mp4")
        number = 1
        while film in videos:
            film = name.with_name(f"{name.name}{f'_{number}' if number > 1 else ''}.mp4")
            number += 1
        videos[film] = entry.path
    sources = {Path(path).resolve() for path in videos.values()}
    for film in videos:
        if film.resolve() in sources:
            raise InputError(f"{option} {folder}: {film} is one of the videos to read; name another folder")
    check_outputs(sorted(videos), is_overwriting)
    return {path: film for film, path in videos.items()}


def _find_matches(pattern: str) -> Iterator[Input]:
    """Lists the videos that match a pattern; their names start below its last folder without wildcards."""
    parts = Path(pattern).parts
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    if "**" in parts:
        files = [path for path, _ in walk_files(str(root))] if root.is_dir() else []
        matches = sorted(path for path in files if _fits(Path(path).relative_to(root).parts, parts[len(root.parts) :]))
    else:
        matches = sorted(glob.glob(pattern))
    if not matches:
        raise InputError(f"{pattern}: no file matches this pattern; mind quotes and the folder it starts from")
    for match in matches:
        if os.path.isdir(match):
            yield from _find_in_folder(Path(match), root)
        else:
            yield _name(Path(match), root)


def _find_in_folder(folder: Path, root: Path) -> Iterator[Input]:
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
