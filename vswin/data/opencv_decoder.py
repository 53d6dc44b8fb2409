"""Decode with OpenCV: the decoder of the published figures, and the only module that opens its videos and cameras."""

from __future__ import annotations

import io
import math
import os
from typing import Any

# Read by OpenCV when it opens its first video; -8 is FFmpeg's "quiet". Our errors carry the reason instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from vswin.data.decode_error import DecodeError, TimeLimit
from vswin.errors import InputError

_FATAL_ONLY = 1
cv2.setLogLevel(_FATAL_ONLY)
# Clips are decoded in parallel, so threads inside one clip would only compete with each other.
cv2.setNumThreads(1)
_OPEN_PARAMS = [cv2.CAP_PROP_N_THREADS, 1]

OLDEST_OPENCV = (4, 11)
NEWEST_OPENCV = (4, 12)


def check_opencv(version: str = cv2.__version__) -> None:
    """Raises an `InputError` for an OpenCV whose decoder returns garbage or was not tested: all but 4.11 and 4.12."""
    if OLDEST_OPENCV <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST_OPENCV:
        return
    raise InputError(
        f"OpenCV {version} is imported, but decoding is only correct with 4.11 and 4.12. Another OpenCV "
        "distribution has replaced the one vswin depends on: run `pip uninstall -y opencv-python "
        "opencv-contrib-python opencv-contrib-python-headless opencv-python-headless`, then "
        "`pip install 'opencv-python-headless>=4.11,<4.13'`"
    )


class _Content(io.BytesIO):
    """The bytes of a file whose damaged index may point before its start.

    An exception in a seek that OpenCV asks for ends the process with a segmentation fault.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Seeks; returns -1, the error of FFmpeg, for a position that does not exist."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return -1


class OpenCVDecoder:
    """Decodes a file from its first frame on; frames come out as they are in the file."""

    def __init__(self, path: str, content: bytes | None = None, limit: TimeLimit | None = None) -> None:
        """Opens a file, or `content`, the bytes of one; what OpenCV cannot open has no frames.

        `limit` ends the opening, and the search for a frame.
        """
        self._path = path
        # "12:30.mp4" would be a protocol. OpenCV gives its reference to what it reads from back without Python's lock,
        # so this one must not be the last, or the process crashes.
        source: Any = os.path.abspath(path) if content is None else _Content(content)
        self._source = source
        # OpenCV gives up after 30 seconds by itself; 0 is never.
        seconds = None if limit is None else limit.seconds_left()
        milliseconds = 0 if seconds is None else min(math.ceil(1000 * seconds), 2**31 - 1)
        time_params = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        # The backend is named because others take 'img_01.png' for a sequence.
        self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [*_OPEN_PARAMS, *time_params])
        # It would take a mirrored picture for a rotated one. On by default but in OpenCV 4.11.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)

    def grab(self) -> bool:
        """Goes to the next frame; false after the last one."""
        return self._capture.grab()

    def retrieve(self) -> np.ndarray:
        """Gives the frame that was grabbed, uint8 [H, W, 3] BGR; a `DecodeError` if it cannot be decoded."""
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
    """Reads the frames of a camera as they come."""

    def __init__(self, source: int | str) -> None:
        """Opens a camera by its number, from 0, or a file, which stands in for one.

        Raises:
            InputError: If there is no such camera, or another program has it.
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
        """Gives the camera back."""
        self._capture.release()
