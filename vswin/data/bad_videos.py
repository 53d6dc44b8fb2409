"""Collect the videos that a run could not decode."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from pathlib import Path

from vswin.atomic import replacing


class BadVideos:
    """Counts and lists bad videos; the threads of an input pipeline share one object."""

    def __init__(self, earlier: Path | None = None) -> None:
        """Starts a list; `write` adds it to the file `earlier` of previous sessions of this run, if it exists."""
        self._lock = threading.Lock()
        self._earlier: dict[str, tuple[str, int]] = {}
        if earlier is not None and earlier.exists():
            with earlier.open(newline="", encoding="utf-8") as file:
                self._earlier = {row["path"]: (row["cause"], int(row["times"])) for row in csv.DictReader(file)}
        # Path -> cause, cause with detail, number of times.
        self._found: dict[str, tuple[str, str, int]] = {}

    def add(self, path: str, cause: str, detail: str = "") -> None:
        """Records an unusable video with its cause, see `DecodeError`; the latest reason is kept."""
        with self._lock:
            times = self._found[path][2] if path in self._found else 0
            self._found[path] = cause, f"{cause} ({detail})" if detail else cause, times + 1

    def __len__(self) -> int:
        """Counts the distinct files of this session."""
        return len(self._found)

    def describe_causes(self) -> str:
        """Counts the files by cause, e.g. "7 truncated, 1 decoder crashed"."""
        with self._lock:
            counts = Counter(sorted(cause for cause, _, _ in self._found.values()))
        return ", ".join(f"{count} {cause}" for cause, count in counts.most_common())

    def rows(self) -> list[tuple[str, str, int]]:
        """Lists the bad videos of this session, sorted by path: (path, reason, number of times)."""
        with self._lock:
            return [(path, reason, times) for path, (_, reason, times) in sorted(self._found.items())]

    def write(self, csv_path: Path) -> None:
        """Writes the list of all sessions as CSV with a header, atomically: readers never see half a file."""
        listed = dict(self._earlier)
        for path, reason, times in self.rows():
            name = path.encode("utf-8", "backslashreplace").decode()  # file names need not be UTF-8
            listed[name] = (reason, times + listed.get(name, ("", 0))[1])
        with replacing(csv_path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            rows = [(name, *row) for name, row in sorted(listed.items())]
            csv.writer(file).writerows([("path", "cause", "times"), *rows])
