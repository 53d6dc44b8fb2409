"""Tell a file that was cut off from a whole one, by the length that its container states."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from vswin.data.decode_error import DecodeError

MAX_MISSING_SHARE = 0.05

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def open_content(path: str, content: bytes | None) -> BinaryIO:
    """Opens a video file for reading, whether it lies on the disk or in memory.

    Args:
        path: Its name.
        content: Its bytes; None where it is a file.
    """
    return open(path, "rb") if content is None else io.BytesIO(content)


def check_whole(path: str, content: bytes | None = None) -> None:
    """Refuses an AVI, Matroska or WebM file of which much is missing.

    Their readers take what is there for the whole video. Containers that state no length (MPEG, FLV, fragmented
    MP4, live recordings) cannot be told from shorter videos; MP4 and MOV files are recognised by their index.

    Args:
        path: A file.
        content: Its bytes, where it lies in memory.

    Raises:
        DecodeError: If more than 5 % of the bytes are missing.
    """
    with open_content(path, content) as file:
        stated = _stated_bytes(file)
        found = file.seek(0, os.SEEK_END)
    if stated - found > MAX_MISSING_SHARE * stated:
        raise DecodeError(path, "truncated", f"{found:,} of {stated:,} bytes are there")


def _stated_bytes(file: BinaryIO) -> int:
    """Reads how long the file should be; 0 if it does not say."""
    start = file.read(12)
    if start[:4] == b"RIFF" and start[8:] == b"AVI ":
        length = int.from_bytes(start[4:8], "little")
        return 8 + length if length < 2**32 - 1 else 0
    if start[:4] == _EBML:
        file.seek(4)
        file.seek(_read_length(file) or 0, os.SEEK_CUR)
        if file.read(4) == _SEGMENT:
            length = _read_length(file)
            return file.tell() + length if length else 0
    return 0


def _read_length(file: BinaryIO) -> int:
    """Reads an EBML length: its first set bit says how many bytes it has; 0 if unknown, which is all ones."""
    first = file.read(1)
    num_bytes = 9 - first[0].bit_length() if first else 9
    rest = file.read(max(num_bytes - 1, 0))
    if num_bytes > 8 or len(rest) < num_bytes - 1:
        return 0
    mask = 2 ** (7 * num_bytes) - 1
    length = int.from_bytes(first + rest, "big") & mask
    return 0 if length == mask else length
