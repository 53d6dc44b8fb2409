"""Decode with OpenCV, the decoder of the published figures. Only this module opens videos and cameras with OpenCV."""

from __future__ import annotations

import io
import math
import os
from typing import Any

# OpenCV reads this when it opens its first video; -8 is FFmpeg's "quiet". Our errors give the reason instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from vswin.data.decode_error import DecodeError, TimeLimit
from vswin.errors import InputError

_FATAL_ONLY = 1
cv2.setLogLevel(_FATAL_ONLY)
# Clips are decoded in parallel, so threads within one clip would only compete.
cv2.setNumThreads(1)
_OPEN_PARAMS = [cv2.CAP_PROP_N_THREADS, 1]

OLDEST_OPENCV = (4, 11)
NEWEST_OPENCV = (4, 12)


def check_opencv(version: str = cv2.__version__) -> None:
    """Raises an `InputError` for OpenCV versions other than 4.11 and 4.12: they return garbage or are not tested."""
    if OLDEST_OPENCV <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST_OPENCV:
        return
    raise InputError(
        f"OpenCV {version} is imported, but decoding is only correct with 4.11 and 4.12. Another OpenCV "
        "distribution has replaced the one vswin depends on: run `pip uninstall -y opencv-python "
        "opencv-contrib-python opencv-contrib-python-headless opencv-python-headless`, then "
        "`pip install 'opencv-python-headless>=4.11,<4.13'`"
    )


class _Content(io.BytesIO):
    """File content whose `seek` never raises: an exception inside OpenCV's seek would be a segmentation fault."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Seeks; returns FFmpeg's error -1 for a position before the start, which a damaged index may name."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return -1


class OpenCVDecoder:
    """Decodes a file from its first frame on; frames are neither rotated nor mirrored."""

    def __init__(self, path: str, content: bytes | None = None, limit: TimeLimit | None = None) -> None:
        """Opens a file, or the bytes `content` of a file; a file that OpenCV cannot open has no frames.

        `limit` bounds the time for opening and for finding a frame.
        """
        self._path = path
        # FFmpeg would read "12:30.mp4" as a protocol. OpenCV releases its reference to the source without Python's
        # lock; we keep another one, because the process crashes if that reference is the last.
        source: Any = os.path.abspath(path) if content is None else _Content(content)
        self._source = source
        # By default, OpenCV gives up after 30 seconds; 0 means never.
        seconds = None if limit is None else limit.seconds_left()
        milliseconds = 0 if seconds is None else min(math.ceil(1000 * seconds), 2**31 - 1)
        time_params = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        # The backend is explicit because others read 'img_01.png' as a sequence.
        self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [*_OPEN_PARAMS, *time_params])
        # OpenCV would rotate a mirrored picture. This option is on by default, except in OpenCV 4.11.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)

    def grab(self) -> bool:
        """Advances to the next frame; false after the last one."""
        return self._capture.grab()

    def retrieve(self) -> np.ndarray:
        """Returns the grabbed frame, uint8 [H, W, 3] BGR; a `DecodeError` if it cannot be decoded."""
        try:
            is_decoded, frame = self._capture.retrieve()
        except cv2.error as error:
            raise DecodeError(self._path, "undecodable frame", error.err) from None
        if not is_decoded:
            raise DecodeError(self._path, "undecodable frame")
        return frame

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()


class Camera:
    """Reads the frames of a camera as they arrive."""

    def __init__(self, source: int | str) -> None:
        """Opens a camera by its number, from 0, or a file in place of a camera.

        Raises:
            InputError: If there is no such camera, or another program uses it.
        """
        self.name = f"camera:{source}"
        self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            self.close()
            raise InputError(
                f"{self.name} cannot be opened: no such camera is attached, another program has it, or this user may "
                "not use it (on Linux it is /dev/video<number>, often of the group `video`); camera:1 is the second"
            )

    def read(self) -> np.ndarray | None:
        """Waits for the next frame, uint8 [H, W, 3] RGB; None when there are no more."""
        is_read, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if is_read else None

    def close(self) -> None:
        """Releases the camera."""
        self._capture.release()
