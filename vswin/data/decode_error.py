"""Define the error for unusable videos and the time limit for reading a video."""

from __future__ import annotations

import math
import time


class DecodeError(Exception):
    """A video that cannot be used.

    Attributes:
        path: The file.
        cause: The fault in a word or two, the same for all files that have it, e.g. "truncated".
        detail: What was found in this file; may be empty.
    """

    def __init__(self, path: str, cause: str, detail: str = "") -> None:
        super().__init__(path, cause, detail)
        self.path = path
        self.cause = cause
        self.detail = detail

    @property
    def reason(self) -> str:
        """Cause and detail, e.g. "truncated (77 of 164 frames are there)"."""
        return f"{self.cause} ({self.detail})" if self.detail else self.cause

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TimeLimit:
    """Stops work on a video that takes too long.

    The caller checks the limit between two frames, and the libraries that read the file check it between two blocks.
    A decoder that hangs inside one frame is not interrupted.
    """

    def __init__(self, path: str, seconds: float | None) -> None:
        """Starts the clock for the file `path`; None means no limit."""
        self._path = path
        self._seconds = math.inf if seconds is None else seconds
        self._start = time.monotonic()

    def seconds_left(self) -> float | None:
        """Returns the remaining time, > 0; None for no limit. Raises like `check`."""
        self.check()
        return None if self._seconds == math.inf else max(self._start + self._seconds - time.monotonic(), 1e-3)

    def check(self) -> None:
        """Raises a `DecodeError` if the time is over."""
        if time.monotonic() - self._start > self._seconds:
            raise DecodeError(self._path, "too slow", f"not read within {self._seconds:g} s")
