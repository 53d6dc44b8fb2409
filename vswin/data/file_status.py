"""Tell, before it is opened, whether a path is a file at all."""

from __future__ import annotations

import os
import stat

from vswin.data.decode_error import DecodeError


def check_file(path: str, content: bytes | None = None) -> None:
    """Refuses what is not a regular file with something in it.

    Args:
        path: The file.
        content: Its bytes, where it lies in memory.

    Raises:
        DecodeError: If it is missing, empty, not readable, or something other than a file.
    """
    try:
        path.encode()
    except UnicodeEncodeError:  # OpenCV would crash
        raise DecodeError(path, "unusable name", "not UTF-8; rename the file") from None
    if content is not None:
        _check_not_empty(path, len(content))
        return
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name with a zero byte
        raise DecodeError(path, "missing") from None
    except OSError as error:
        raise DecodeError(path, "not readable", error.strerror or "") from None
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(path, "not a video", "a folder")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise DecodeError(path, "not a video", "a pipe or device")
    _check_not_empty(path, status.st_size)


def _check_not_empty(path: str, num_bytes: int) -> None:
    if num_bytes == 0:
        raise DecodeError(path, "empty", "0 bytes")
