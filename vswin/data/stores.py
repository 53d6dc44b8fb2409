"""Define video stores, which open the videos of a data set by name, as single files or from larger packed files."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from types import TracebackType
from typing import Protocol

import numpy as np

from vswin.data.decode import VideoReader


class FrameReader(Protocol):
    """Reads frames of one open video by number; `VideoReader`, for encoded files, documents the members."""

    path: str
    num_video_frames: int
    repeats: list[int]
    frame_rate: Fraction | None
    decoder: str
    frame_size: tuple[int, int]

    def read(
        self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray], may_skip: bool = False
    ) -> np.ndarray:
        """Returns prepared frames, uint8 [n, H, W, 3] RGB; see `VideoReader.read`."""

    def read_times(self) -> np.ndarray:
        """Returns the display times of the frames in seconds, float64 [num_video_frames]; NaN if unknown."""

    def __enter__(self) -> FrameReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VideoStore(Protocol):
    """Opens the videos of a data set; threads share one store."""

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> FrameReader:
        """Opens a video by its name, see `VideoReader`; a `DecodeError` if it is missing or unusable."""

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Returns JSON values that identify this version of a video uniquely; None if the video is missing."""


class VideoFiles:
    """Opens videos that are single files; their names are paths."""

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> VideoReader:
        """Opens a file, see `VideoStore.open`."""
        return VideoReader(path, decoder, timeout_sec)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Returns the absolute path, modification time and size of a file; None if it is missing."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        return os.path.abspath(path), [status.st_mtime_ns, status.st_size]


VIDEO_FILES = VideoFiles()
