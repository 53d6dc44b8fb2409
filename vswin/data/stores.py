"""Where the videos of a data set are: a store opens them by name, whether they are files or packed into larger ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from types import TracebackType
from typing import Protocol

import numpy as np

from vswin.data.decode import VideoReader


class FrameReader(Protocol):
    """Reads frames of one open video by number; `VideoReader`, the one for encoded files, says what its parts mean.

    `decoder` is "auto" before it is known.
    """

    path: str
    num_video_frames: int
    repeats: list[int]
    frame_rate: Fraction | None
    decoder: str
    frame_size: tuple[int, int]

    def read(
        self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray], may_skip: bool = False
    ) -> np.ndarray:
        """Gives frames, uint8 [n, H, W, 3] RGB, each prepared; see `VideoReader.read`."""

    def read_times(self) -> np.ndarray:
        """Gives the seconds at which frames are shown, float64 [num_video_frames]; NaN where that is not known."""

    def __enter__(self) -> FrameReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VideoStore(Protocol):
    """Opens the videos of a data set; threads share one."""

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> FrameReader:
        """Opens a video by its name, see `VideoReader`; a `DecodeError` if it is not there or not usable."""

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Tells a video from every other one and from what it was before, in values JSON knows; None if it is gone."""


class VideoFiles:
    """Has the videos as files; their names are paths."""

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> VideoReader:
        """Opens a file, see `VideoStore.open`."""
        return VideoReader(path, decoder, timeout_sec)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Gives the absolute path, the time of change and the size of a file; None if it is gone."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        return os.path.abspath(path), [status.st_mtime_ns, status.st_size]


VIDEO_FILES = VideoFiles()
