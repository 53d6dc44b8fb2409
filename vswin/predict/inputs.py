"""Which videos a command line means: files, folders, patterns and cameras."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vswin.data.folder import VIDEO_SUFFIXES, is_video
from vswin.errors import InputError

_CAMERA = re.compile(r"camera(?::(\d+))?")


class Input(NamedTuple):
    """Name one video.

    Attributes:
        path: The file.
        name: Its path below the folder that was given, or below the part of a pattern without wildcards.
        label: The folder below that one which it lies in, and which names its class by the usual layout; empty where
            there is none.
    """

    path: str
    name: str
    label: str = ""


def find_videos(arguments: Sequence[str]) -> list[Input]:
    """Lists the videos that arguments stand for, each file once, in their order.

    Args:
        arguments: files, folders (the videos anywhere below them, by their endings) and patterns such as
            `videos/**/*.mp4`.

    Returns:
        One video at least; whether they can be decoded is not known yet.

    Raises:
        InputError: if an argument stands for nothing.
    """
    found = {entry.path: entry for argument in arguments for entry in _expand(argument)}
    return list(found.values())


def find_camera(arguments: Sequence[str]) -> int | None:
    """Gives the number of the camera that arguments ask for; None if they ask for none.

    Raises:
        InputError: if they ask for something else as well.
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
        # Whatever its ending: a file that was named is tried.
        yield Input(argument, path.name)
    elif glob.has_magic(argument):
        yield from _matches(argument)
    else:
        raise InputError(
            f"{argument}: there is no such file or folder; give videos, folders of them, patterns in quotes, or camera"
        )


def _matches(pattern: str) -> Iterator[Input]:
    """Lists what a pattern matches; files are named from its last folder without wildcards on."""
    matches = sorted(glob.glob(pattern, recursive=True))
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    for match in matches:
        if not os.path.isdir(match):
            yield _name(Path(match), root)
        elif "**" not in pattern:  # which matches folders as well as all that is in them
            yield from _in_folder(Path(match), root)
    if not matches:
        raise InputError(f"{pattern}: no file matches this pattern; mind quotes and the folder it starts from")


def _in_folder(folder: Path, root: Path) -> Iterator[Input]:
    is_empty = True
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        # In place, which is how `os.walk` is told the order; hidden folders hold thumbnails and the like.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(filter(is_video, files)):
            is_empty = False
            yield _name(Path(place, name), root)
    if is_empty:
        raise InputError(f"{folder}: there are no videos in this folder (files ending in {', '.join(VIDEO_SUFFIXES)})")


def _name(path: Path, root: Path) -> Input:
    return Input(str(path), str(path.relative_to(root)), "" if path.parent == root else path.parent.name)


def _refuse(error: OSError) -> None:
    raise InputError(f"the folder {error.filename} cannot be read ({error.strerror})") from error
