"""The one line of an annotation file that all formats come down to, and the reading of such files as text."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from vswin.errors import InputError

TRAIN, VAL, TEST = "train", "val", "test"
ROLES = {TRAIN: "training", VAL: "validation", TEST: "test"}

# Of a number that counts anything.
MAX_DIGITS = 18

# Only these end a line: str.splitlines would also cut a name at, say, U+2028.
_LINE_END = re.compile(r"\r\n|\n|\r")


class ListEntry(NamedTuple):
    """Holds a line of a list as it is written there.

    Attributes:
        source: the file.
        line: its number from 1; 0 where the file has no lines.
        path: of the video; of one that is named by its id, the usual file name without its ending.
        label: class index from 0, or class name.
        video_id: the id alone, where the list names videos so; otherwise empty.
    """

    source: str
    line: int
    path: str
    label: str
    video_id: str = ""

    @property
    def place(self) -> str:
        """File and line for messages, "train.txt:3"."""
        return f"{self.source}:{self.line}" if self.line else f"{self.source}, video {self.video_id or self.path}"

    @property
    def has_index(self) -> bool:
        """Tells whether the label is a number; one beyond all counts is a name."""
        digits = self.label.removeprefix("-")
        return digits.isdecimal() and len(digits) <= MAX_DIGITS


class NotFoundError(InputError):
    """The videos or the lists of a data set are in none of the places where they were looked for."""


def read_text(path: Path) -> str:
    """Reads a list whole.

    Args:
        path: UTF-8 text, with or without a byte order mark, or UTF-16 with one, as spreadsheets write it.

    Returns:
        Its text.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        content = path.read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        if "\0" in text:
            raise UnicodeError("it holds zeros")
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"The list {path} cannot be read: {error}; lists are UTF-8, or UTF-16 with a byte order mark"
        ) from error
    return text


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Reads the lines of a list that hold something, stripped, with their numbers from 1.

    Raises:
        InputError: if the file cannot be read or is empty.
    """
    lines = [(number, line.strip()) for number, line in enumerate(_LINE_END.split(read_text(path)), start=1)]
    kept = [(number, line) for number, line in lines if line]
    if not kept:
        raise InputError(f"The list {path} names no videos")
    return kept
