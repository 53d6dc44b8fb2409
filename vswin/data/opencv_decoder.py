"""Decode with OpenCV: the decoder of the published figures, and the only module that opens its video files."""

from __future__ import annotations

import os

# Read by OpenCV when it opens its first video; -8 is FFmpeg's "quiet". Our errors carry the reason instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from vswin.data.decode_error import DecodeError
from vswin.errors import InputError

_FATAL_ONLY = 1
cv2.setLogLevel(_FATAL_ONLY)
# Clips are decoded in parallel, so threads inside one clip would only compete with each other.
cv2.setNumThreads(1)
_OPEN_PARAMS = [cv2.CAP_PROP_N_THREADS, 1]

OLDEST_OPENCV = (4, 11)
NEWEST_OPENCV = (4, 12)


def check_opencv(version: str = cv2.__version__) -> None:
    """Refuses an OpenCV whose decoder we know to return garbage or have not tested.

    Args:
        version: Version of the imported OpenCV.

    Raises:
        InputError: If it is not one of 4.11 and 4.12.
    """
    if OLDEST_OPENCV <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST_OPENCV:
        return
    raise InputError(
        f"OpenCV {version} is imported, but decoding is only correct with 4.11 and 4.12. Another OpenCV "
        "distribution has replaced the one vswin depends on: run `pip uninstall -y opencv-python "
        "opencv-contrib-python opencv-contrib-python-headless opencv-python-headless`, then "
        "`pip install 'opencv-python-headless>=4.11,<4.13'`"
    )


class OpenCVDecoder:
    """Decodes a file from its first frame on; frames come out upright.

    OpenCV's own time limits are not set: they watch the network, on files they end nothing.
    """

    def __init__(self, path: str) -> None:
        """Opens a file; one that OpenCV cannot open has no frames."""
        self._path = path
        # The backend is named because others take 'img_01.png' for a sequence; "12:30.mp4" would be a protocol.
        self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, _OPEN_PARAMS)

    def grab(self) -> bool:
        """Goes to the next frame; false after the last one."""
        return self._capture.grab()

    def retrieve(self) -> np.ndarray:
        """Gives the frame that was grabbed, uint8 [H, W, 3] BGR.

        Raises:
            DecodeError: If it cannot be decoded.
        """
        is_decoded, frame = self._capture.retrieve()
        if not is_decoded:
            raise DecodeError(self._path, "undecodable frame")
        return frame

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()
