"""Errors that a user can mend, and how they reach the terminal."""

import difflib
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_LOST = (errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)


class InputError(ValueError):
    """An error the user can mend; it names the thing, the value and the way out."""


@contextmanager
def clean_errors() -> Iterator[None]:
    """Ends the program on Ctrl-C, and on an `InputError` or a full disk with the text alone.

    Other errors keep their traceback.
    """
    try:
        yield
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        # As shells report it: 128 + SIGINT.
        raise SystemExit(130) from None
    except Exception as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        raise SystemExit(f"error: {error}; {fault.way_out}, then start again") from None


def nearest(name: str, choices: Sequence[str]) -> str:
    """Says which names come close to a wrong one, e.g. "did you mean 'swin_base'? (choices: ...)"."""
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    listed = f"(choices: {', '.join(choices)})" if len(choices) <= 12 else ""
    return (hint + listed).strip() or "see --help"


def printable(text: str) -> str:
    """Spells out what a terminal would obey instead of show, and what is no text, as file names may hold."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class DiskFault(NamedTuple):
    """Says why a file could not be written.

    Args:
        reason: in the words of the system.
        way_out: what a user does about it, e.g. "make room".
    """

    reason: str
    way_out: str


def disk_fault(error: BaseException) -> DiskFault | None:
    """Finds out whether an error is about a disk; None if it is about something else.

    Args:
        error: as Python raises it, or TensorFlow and HDF5, which hand the reason on as text only.
    """
    for codes, way_out in ((_DISK_FULL, "make room"), (_DISK_LOST, "see to the disk")):
        for code in codes:
            if os.strerror(code) in str(error):
                return DiskFault(os.strerror(code), way_out)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error is about the memory of a device or of the machine."""
    # TensorFlow has one class for memory and for disks; XLA and the CUDA libraries have texts of their own.
    texts = ("OOM when allocating", "Out of memory", "out of memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
