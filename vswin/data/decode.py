"""Decode chosen frames of a video file; the only module that opens videos.

PyAV looks into the file and counts its frames without decoding them; OpenCV decodes. Files are read forwards
only: seeking lands on other frames than asked for in many formats. Whatever is wrong with a file becomes a
`DecodeError` with a cause, so that callers can count and list bad videos.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# Read by OpenCV when it opens its first video; -8 is FFmpeg's "quiet". Our errors carry the reason instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import av
import cv2
import numpy as np

from vswin.errors import InputError

_ERRORS_ONLY = 2
cv2.setLogLevel(_ERRORS_ONLY)
# Clips are decoded in parallel, so threads inside one clip would only compete with each other.
cv2.setNumThreads(1)
_OPEN_PARAMS = [cv2.CAP_PROP_N_THREADS, 1]

OLDEST_OPENCV = (4, 11)
NEWEST_OPENCV = (4, 12)

# The last few packets of many files, old AVIs above all, decode to nothing.
MAX_MISSING_FRAMES = 5
MAX_MISSING_SHARE = 0.05


class DecodeError(Exception):
    """A video that cannot be used.

    Attributes:
        path: The file.
        cause: What is wrong in a word or two, the same for all files with this fault, e.g. "truncated".
        detail: What was seen in this file; may be empty.
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


def _unchanged(frame: np.ndarray) -> np.ndarray:
    return frame


class VideoReader:
    """Reads frames of one video file by number. Use it as a context manager, or call `close`.

    Phones record upright videos as rotated ones with a flag: frames come out upright.

    Attributes:
        path: The file.
        num_video_frames: Frames in the file, >= 2: packets to be shown, as the official reader counts them.
            The last few may not decode.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens `path`.

        Raises:
            DecodeError: If the file is missing, truncated, not a video, or has fewer than two frames.
            InputError: If the installed OpenCV is not a tested one.
        """
        check_opencv()
        self.path = str(path)
        self.num_video_frames = _count_frames(self.path)
        self._open()

    def read(self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray] = _unchanged) -> np.ndarray:
        """Decodes frames in one pass over the file, each distinct one once.

        Where the file ends up to five frames (or 5 %) early, its last frame stands in for the missing ones.

        Args:
            frame_numbers: int64 [n], in any order, repeated or not, each in [0, num_video_frames).
            prepare: Applied to every frame as soon as it is decoded, from uint8 [H, W, 3] RGB to another such
                array, of one size per video; resizing here keeps full-size frames out of memory.

        Returns:
            Frames, uint8 [n, H, W, 3] RGB.

        Raises:
            DecodeError: If the file ends too early, a frame cannot be decoded, or frames change their size.
            ValueError: If a frame number lies outside the video.
        """
        wanted, places = np.unique(frame_numbers, return_inverse=True)
        if wanted[0] < 0 or wanted[-1] >= self.num_video_frames:
            raise ValueError(f"frames {wanted[0]}..{wanted[-1]} of {self.num_video_frames} in {self.path}")
        if self._position > 0:
            self.close()
            self._open()
        frames: list[np.ndarray] = []
        size = None
        for number in wanted:
            frame = self._decode(number)
            if frame is None:
                return self.read(np.minimum(frame_numbers, self._last_frame()), prepare)
            size = size or frame.shape
            if frame.shape != size:
                raise DecodeError(self.path, "frame size changes", f"{size[:2]} to {frame.shape[:2]}")
            frames.append(prepare(frame))
        return np.stack([frames[place] for place in places])  # [n, H, W, 3]

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Opens the file at frame 0. The backend is named because others take 'img_01.png' for a sequence."""
        self._capture = cv2.VideoCapture(self.path, cv2.CAP_FFMPEG, _OPEN_PARAMS)
        self._position = 0  # number of the next frame

    def _decode(self, number: int) -> np.ndarray | None:
        """Decodes one frame at or after the current position; None if the file ends before it."""
        while self._position <= number:
            if not self._capture.grab():
                return None
            self._position += 1
        is_decoded, frame = self._capture.retrieve()
        if not is_decoded:
            raise DecodeError(self.path, "undecodable frame", f"frame {number}")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def _last_frame(self) -> int:
        """Gives the number of the last decodable frame, the end of the file having been reached."""
        if self._position == 0:
            raise DecodeError(self.path, "no frames", "OpenCV decodes none")
        if self._position == 1:
            raise DecodeError(self.path, "one frame", "the others cannot be decoded")
        _check_complete(self.path, self._position, self.num_video_frames)
        return self._position - 1


def _count_frames(path: str) -> int:
    """Counts the packets of the first video stream that are to be shown.

    The container's own count is not used for that: Matroska has none, and an MP4 file that was cut without
    re-encoding counts the hidden frames before the cut as well.
    """
    _check_file(path)
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise DecodeError(path, "not a video", "sound only")
            stream = container.streams.video[0]
            # The last packet that PyAV hands out is an empty one to flush a decoder.
            packets = [packet.is_discard for packet in container.demux(stream) if packet.size > 0]
            _check_complete(path, len(packets), stream.frames)
    except av.FFmpegError as error:
        raise _explain(path, error) from None
    num_frames = packets.count(False)
    if num_frames == 0:
        raise DecodeError(path, "no frames")
    if num_frames == 1:
        raise DecodeError(path, "one frame", "a still, not a video")
    return num_frames


def _check_file(path: str) -> None:
    if not os.path.exists(path):
        raise DecodeError(path, "missing")
    if os.path.isdir(path):
        raise DecodeError(path, "not a video", "a folder")
    if os.path.getsize(path) == 0:
        raise DecodeError(path, "empty", "0 bytes")


def _explain(path: str, error: av.FFmpegError) -> DecodeError:
    """Tells an MP4 file without its end, where the index stands, from what never was a video."""
    if isinstance(error, PermissionError):
        return DecodeError(path, "not readable", "permission denied")
    with open(path, "rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return DecodeError(path, "truncated", "the index of the MP4 file is missing")
    return DecodeError(path, "not a video", error.strerror or "")


def _check_complete(path: str, num_found: int, num_promised: int) -> None:
    """Refuses a file that ends well before its promised number of frames; 0 promises nothing."""
    if num_promised - num_found > max(MAX_MISSING_FRAMES, MAX_MISSING_SHARE * num_promised):
        raise DecodeError(path, "truncated", f"{num_found} of {num_promised} frames are there")
