"""Read videos that TFDS has stored as sequences of encoded frames: only the frames asked for are decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from vswin.data.decode_error import DecodeError, TimeLimit
from vswin.data.opencv_decoder import check_opencv
from vswin.data.packed.examples import find_bytes, find_feature
from vswin.data.packed.record_files import RecordFile, open_records

# As in vswin.data.packed.videos.
_MAX_OPEN_FILES = 256


class EncodedFrames:
    """Reads frames of a video whose frames are images, mostly JPEG; see `FrameReader`.

    Attributes:
        path: Name of the video.
        num_video_frames: Its frames, >= 2.
        frame_rate: None, as records do not say.
        decoder: "opencv", whose libjpeg decodes the images.
        frame_size: Pixels (H, W) of the frames read last, before they were prepared; (0, 0) at first.
    """

    def __init__(self, path: str, record: bytes, timeout_sec: float | None = None) -> None:
        """Looks where the frames are.

        Args:
            path: Name of the video.
            record: A tf.train.Example with the feature `video`, a list of images.
            timeout_sec: Time from now to the last frame read; None for any.

        Raises:
            DecodeError: If there are fewer than two.
            ValueError: If the record is something else.
        """
        check_opencv()
        self.path = path
        self.frame_rate: Fraction | None = None
        self.decoder = "opencv"
        self.frame_size = (0, 0)
        self._limit = TimeLimit(path, timeout_sec)
        self._record = memoryview(record)
        self._spans = find_bytes(self._read_part, find_feature(self._read_part, len(record), "video"))
        self.num_video_frames = len(self._spans)
        self.repeats: list[int] = []
        if self.num_video_frames == 0:
            raise DecodeError(path, "no frames")
        if self.num_video_frames == 1:
            raise DecodeError(path, "one frame", "a still, not a video")

    def read(
        self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray], may_skip: bool = False
    ) -> np.ndarray:
        """Decodes frames, each distinct one once.

        Args:
            frame_numbers: int64 [n], in any order, repeated or not, each in [0, num_video_frames).
            prepare: Applied to every frame, see `VideoReader.read`.
            may_skip: Without effect, as no frame needs another.

        Returns:
            Frames, uint8 [n, H, W, 3] RGB.

        Raises:
            DecodeError: If one cannot be decoded, frames change their size, or time is over.
            ValueError: If a frame number lies outside the video.
        """
        if frame_numbers.min() < 0 or frame_numbers.max() >= self.num_video_frames:
            raise ValueError(
                f"frames {frame_numbers.min()}..{frame_numbers.max()} of {self.num_video_frames} in {self.path}"
            )
        wanted, places = np.unique(frame_numbers, return_inverse=True)
        frames: list[np.ndarray] = []
        for number in wanted:
            self._limit.check()
            frame = self._decode(number)
            size = (frame.shape[0], frame.shape[1])
            if frames and size != self.frame_size:
                raise DecodeError(self.path, "frame size changes", f"{self.frame_size} to {size}")
            self.frame_size = size
            frames.append(prepare(frame))
        return np.stack([frames[place] for place in places])  # [n, H, W, 3]

    def read_times(self) -> np.ndarray:
        """Gives NaN, as records do not say."""
        return np.full(self.num_video_frames, np.nan)

    def __enter__(self) -> EncodedFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Has nothing to close."""

    def _read_part(self, start: int, count: int) -> bytes:
        return bytes(self._record[start : start + count])

    def _decode(self, number: int) -> np.ndarray:
        start, end = self._spans[number]
        image = np.frombuffer(self._record[start:end], np.uint8)  # [bytes]
        try:
            frame = cv2.imdecode(image, cv2.IMREAD_COLOR) if len(image) else None
        except cv2.error:  # an image of more pixels than OpenCV takes
            frame = None
        if frame is None:
            raise DecodeError(self.path, "undecodable frame", f"image {number}")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class TfdsVideos:
    """Has the videos as records of a data set that TFDS has prepared; see `VideoStore`."""

    def __init__(self, folder: Path, file_format: str, places: dict[str, tuple[str, int]]) -> None:
        """Takes the places of the videos.

        Args:
            folder: Folder of the prepared data set.
            file_format: "array_record" or "tfrecord".
            places: File in the folder and position in it, by the name of the video.
        """
        self._folder = folder
        self._file_format = file_format
        self._places = places
        self._open_file = lru_cache(maxsize=_MAX_OPEN_FILES)(self._open_records)

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> EncodedFrames:
        """Opens a video, see `VideoStore.open`; `decoder` has no meaning for images."""
        if path not in self._places:
            raise DecodeError(path, "missing", f"not in {self._folder}")
        file, position = self._places[path]
        try:
            return EncodedFrames(path, self._open_file(file).read(position), timeout_sec)
        except OSError as error:
            raise DecodeError(path, "not readable", f"{self._folder / file}: {error.strerror}") from None
        except ValueError as error:
            raise DecodeError(path, "damaged record", str(error)) from None

    def __reduce__(self) -> tuple[type[TfdsVideos], tuple[object, ...]]:
        """Lets another process open the files anew."""
        return TfdsVideos, (self._folder, self._file_format, self._places)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Gives the file a video is in, when it was made, and the video's place; None if there is none of this name."""
        if path not in self._places:
            return None
        file, position = self._places[path]
        try:
            status = os.stat(self._folder / file)
        except OSError:
            return None
        return "tfds", os.path.abspath(self._folder / file), [status.st_mtime_ns, status.st_size], position

    def _open_records(self, file: str) -> RecordFile:
        return open_records(self._folder / file, self._file_format)


def number_videos(name: str, split: str, files: Sequence[tuple[str, Sequence[int]]]) -> dict[str, tuple[str, int]]:
    """Names the videos of a split, which TFDS stores without names, by their place.

    Args:
        name: Of the data set, e.g. "ucf101/ucf101_1/2.0.0".
        split: Of TFDS, e.g. "test".
        files: The files of the split in their order, with the positions of their records.

    Returns:
        File and position by name, e.g. "ucf101/ucf101_1/2.0.0/test/00017".
    """
    places = [(file, position) for file, positions in files for position in positions]
    return {f"{name}/{split}/{number:05d}": place for number, place in enumerate(places)}
