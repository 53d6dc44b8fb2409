"""Read chosen frames of a video file, on the disk or in memory.

PyAV looks into the file and counts its frames without decoding them; OpenCV decodes, or PyAV where it cannot.
Files are read forwards only: seeking lands on other frames than asked for in many formats, and the official
reader, which seeks, gives wrong frames of AVI files with B-frames and of MPEG streams. Whatever is wrong with a
file becomes a `DecodeError` with a cause, so that callers can count and list bad videos.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from vswin.data.decode_error import DecodeError, TimeLimit
from vswin.data.opencv_decoder import OpenCVDecoder, check_opencv
from vswin.data.pyav_decoder import PYAV_VERSION, PyAVDecoder, check_complete, inspect_video

LARGEST_ASPECT = 32
DECODER_VERSIONS = {"opencv": cv2.__version__, "pyav": PYAV_VERSION}


def _unchanged(frame: np.ndarray) -> np.ndarray:
    return frame


class VideoReader:
    """Reads frames of one video file by number. Use it as a context manager, or call `close`.

    Phones record upright videos as rotated ones with a flag: frames come out upright.

    Attributes:
        path: The file.
        num_video_frames: Frames in the file, >= 2: packets to be shown, as the official reader counts them.
            The last few may not decode.
        frame_rate: Frames per second, on average, as the file says; None where it does not.
        decoder: "opencv" or "pyav"; with "auto" known after reading.
        frame_size: Pixels (H, W) of the frames read last, before they were prepared; (0, 0) at first.
    """

    def __init__(
        self, path: str | Path, decoder: str = "auto", timeout_sec: float | None = None, content: bytes | None = None
    ) -> None:
        """Opens `path`.

        Args:
            path: Video file.
            decoder: "opencv", "pyav", or "auto": OpenCV, and PyAV for files that OpenCV fails at or whose colours
                it would get wrong.
            timeout_sec: Time from now to the last frame read, see `TimeLimit`; None for any.
            content: The bytes of the file, where they lie in memory; `path` is its name then.

        Raises:
            DecodeError: If the file is missing, truncated, not a video, or has fewer than two frames.
            InputError: If the installed OpenCV is not a tested one.
        """
        check_opencv()
        self.path = str(path)
        self._content = content
        self._limit = TimeLimit(self.path, timeout_sec)
        found = inspect_video(self.path, self._limit, content)
        self.num_video_frames = found.num_video_frames
        self.frame_rate = found.frame_rate
        self._has_choice = decoder == "auto"
        self.decoder = ("pyav" if found.has_other_colours else "opencv") if self._has_choice else decoder
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
            DecodeError: If the file ends too early, a frame cannot be decoded, frames change their size or have an
                unusable shape, or time is over.
            ValueError: If a frame number lies outside the video.
        """
        if frame_numbers.min() < 0 or frame_numbers.max() >= self.num_video_frames:
            raise ValueError(
                f"frames {frame_numbers.min()}..{frame_numbers.max()} of {self.num_video_frames} in {self.path}"
            )
        try:
            return self._read(frame_numbers, prepare)
        except DecodeError:
            if not self._has_choice or self.decoder == "pyav":
                raise
        self._limit.check()
        self.close()
        self.decoder = "pyav"
        self._open()
        return self._read(frame_numbers, prepare)

    def close(self) -> None:
        """Closes the file."""
        self._source.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Opens the file at frame 0."""
        open_decoder = PyAVDecoder if self.decoder == "pyav" else OpenCVDecoder
        self._source = open_decoder(self.path, self._content, self._limit)
        self._position = 0  # number of the next frame
        self.frame_size = (0, 0)

    def _read(self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        wanted, places = np.unique(frame_numbers, return_inverse=True)
        if wanted[0] < self._position:
            self.close()
            self._open()
        frames: list[np.ndarray] = []
        for number in wanted:
            frame = self._decode(number)
            if frame is None:
                return self._read(np.minimum(frame_numbers, self._last_frame()), prepare)
            size = (frame.shape[0], frame.shape[1])
            if self.frame_size not in ((0, 0), size):
                raise DecodeError(self.path, "frame size changes", f"{self.frame_size} to {size}")
            if max(size) > LARGEST_ASPECT * min(size):  # with another short side, it would not fit into memory
                raise DecodeError(self.path, "unusable shape", f"{size[1]} x {size[0]} pixels")
            self.frame_size = size
            frames.append(prepare(frame))
        return np.stack([frames[place] for place in places])  # [n, H, W, 3]

    def _decode(self, number: int) -> np.ndarray | None:
        """Decodes one frame at or after the current position; None if the file ends before it."""
        while self._position <= number:
            self._limit.check()
            if not self._source.grab():
                self._limit.check()  # which may be why there is none
                return None
            self._position += 1
        return cv2.cvtColor(self._source.retrieve(), cv2.COLOR_BGR2RGB)

    def _last_frame(self) -> int:
        """Gives the number of the last decodable frame, the end of the file having been reached."""
        if self._position == 0:
            raise DecodeError(self.path, "no frames", f"{self.decoder} decodes none")
        if self._position == 1:
            raise DecodeError(self.path, "one frame", "the others cannot be decoded")
        check_complete(self.path, self._position, self.num_video_frames)
        return self._position - 1
