"""Collect the videos of a run that could not be decoded."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from pathlib import Path

from vswin.atomic import replacing


class BadVideos:
    """Counts and lists bad videos; the threads of an input pipeline share one object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._causes: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._times: dict[str, int] = {}

    def add(self, path: str, cause: str, detail: str = "") -> None:
        """Notes that a video could not be used.

        Args:
            path: The file.
            cause: Why, see `DecodeError`; the latest one is kept.
            detail: What was seen in this file; may be empty.
        """
        with self._lock:
            self._causes[path] = cause
            self._reasons[path] = f"{cause} ({detail})" if detail else cause
            self._times[path] = self._times.get(path, 0) + 1

    def __len__(self) -> int:
        """Counts distinct files."""
        return len(self._reasons)

    def describe_causes(self) -> str:
        """Counts the files of each cause, e.g. "7 truncated, 1 decoder crashed"."""
        with self._lock:
            counts = Counter(self._causes.values())
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {cause}" for cause, count in ordered)

    def rows(self) -> list[tuple[str, str, int]]:
        """Lists what was noted.

        Returns:
            (path, reason, times it was met), sorted by path.
        """
        with self._lock:
            return [(path, reason, self._times[path]) for path, reason in sorted(self._reasons.items())]

    def write(self, csv_path: Path) -> None:
        """Writes the list as CSV with a header, in one step: readers never see half a file.

        Args:
            csv_path: Destination, replaced if it exists; its folder must exist.
        """
        with (
            replacing(csv_path) as partial,
            # File names need not be UTF-8.
            partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(("path", "cause", "times"))
            writer.writerows(self.rows())
