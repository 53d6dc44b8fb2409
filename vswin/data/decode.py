"""Read chosen frames of a video file, from disk or memory, and define what opens the videos of a data set.

PyAV inspects the file and counts its frames, with almost no decoding. OpenCV decodes them, or PyAV if OpenCV cannot.
Whole videos are read forwards only: in many formats, seeking lands on the wrong frame. The official reader seeks, and
returns wrong frames of AVI files with B-frames and of MPEG streams. In H.264 files, training may skip the frames that
it does not need, see `H264Packets`. Segments are sought where that gives the same frames, see `SoughtFrames`. A video
may also be a folder of pictures. Every problem with a file becomes a `DecodeError` with a cause, so that callers can
count and list bad videos.
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np

from vswin.data.decoders import H264Packets, NotAsExpected, OpenCVDecoder, PyAVDecoder, TimeLimit, check_opencv
from vswin.data.inspection import MAX_MISSING_FRAMES, check_complete, find_times, inspect_video, turn_upright
from vswin.data.samples import WHOLE, Part, Region, Segment
from vswin.data.seeking import ROUNDING_SEC, SoughtFrames
from vswin.errors import DecodeError

LARGEST_ASPECT = 32
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"))
# Frames per second of videos that are stored as pictures, where nothing states it.
USUAL_RATE = Fraction(25)

Prepare = Callable[[np.ndarray], np.ndarray]
T = TypeVar("T")
Reader = TypeVar("Reader", bound="FrameReader")


def _unchanged(frame: np.ndarray) -> np.ndarray:
    return frame


class FrameReader:
    """Reads frames of one open video by number; a context manager. `VideoReader` documents attributes and methods."""

    path: str
    num_video_frames: int
    repeats: list[int]
    frame_rate: Fraction | None
    decoder: str
    frame_size: tuple[int, int]

    def read(self, frame_numbers: np.ndarray, prepare: Prepare, may_skip: bool = False) -> np.ndarray:
        """Returns prepared frames, uint8 [n, H, W, 3] RGB."""
        raise NotImplementedError

    def read_times(self) -> np.ndarray:
        """Returns the display time of each frame in seconds, float64 [num_video_frames]; NaN if unknown."""
        return np.full(self.num_video_frames, np.nan)

    def run(self, job: Callable[[FrameReader], T]) -> T:
        """Runs a job on the open video in the process that decodes it; for another process, the job is pickled."""
        return job(self)

    def close(self) -> None:
        """Closes the video."""

    def check_numbers(self, frame_numbers: np.ndarray) -> None:
        """Raises a `ValueError` if a frame number lies outside the video."""
        first, last = frame_numbers.min(), frame_numbers.max()
        if first < 0 or last >= self.num_video_frames:
            raise ValueError(f"frames {first}..{last} of {self.num_video_frames} in {self.path}")

    def __enter__(self: Reader) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class VideoStore(Protocol):
    """Opens the videos of a data set by name, as single files or from larger packed files; threads share one store."""

    def open(
        self, path: str, decoder: str = "auto", timeout_sec: float | None = None, part: Part = WHOLE
    ) -> FrameReader:
        """Opens a part of a video by its name, see `VideoReader`; a `DecodeError` if it is missing or unusable."""

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Returns JSON values that identify this version of a video uniquely; None if the video is missing."""


class VideoFiles:
    """Opens videos that are single files; their names are paths."""

    def open(
        self, path: str, decoder: str = "auto", timeout_sec: float | None = None, part: Part = WHOLE
    ) -> FrameReader:
        """Opens a file, or a folder of pictures."""
        try:
            files = list_files(path)
        except OSError as error:
            raise DecodeError(path, "not readable", error.strerror or "") from None
        if files in ([], [path]):
            return VideoReader(path, decoder, timeout_sec, part=part)
        return PictureReader(path, len(files), lambda number: Path(files[number]).read_bytes(), timeout_sec, part)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Returns the absolute path, the newest modification time and the size of its files; None if it is missing."""
        try:
            found = [os.stat(file) for file in list_files(path)]
        except (OSError, ValueError):
            return None
        newest = max((status.st_mtime_ns for status in found), default=0)
        return os.path.abspath(path), [newest, sum(status.st_size for status in found)]


VIDEO_FILES = VideoFiles()


def cut_region(path: str, frame: np.ndarray, region: Region | None) -> np.ndarray:
    """Cuts a region out of a frame, uint8 [H, W, 3], up to the edges of the picture; returns a view."""
    if region is None:
        return frame
    height, width = frame.shape[:2]
    sides = region[:4] if region.in_pixels else np.multiply(region[:4], (width, height, width, height))
    left, top, right, bottom = (max(round(side), 0) for side in sides)
    cut = frame[top:bottom, left:right]
    if 0 in cut.shape:
        raise DecodeError(path, "box outside the picture", f"{Part(None, region)} in {width} x {height} pixels")
    return cut


def list_pictures(folder: str) -> list[str]:
    """Lists the names of the pictures in a folder, with numbers in their natural order: img_9.jpg before img_10.jpg."""
    names = [name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES]
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def list_files(path: str) -> list[str]:
    """Lists the files of a video: the file itself, or the pictures of a folder; an OSError if it is not readable."""
    return [os.path.join(path, name) for name in list_pictures(path)] if os.path.isdir(path) else [path]


def read_whole(path: str) -> bytes:
    """Reads a video as one piece: the bytes of a file, or of a folder of pictures a ZIP archive without compression."""
    if not os.path.isdir(path):
        return Path(path).read_bytes()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in map(Path, list_files(path)):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())  # the same bytes every time
    return content.getvalue()


def open_content(
    path: str, content: bytes, decoder: str = "auto", timeout_sec: float | None = None, part: Part = WHOLE
) -> FrameReader:
    """Opens a part of a video from the bytes of `read_whole`."""
    if not content.startswith(b"PK\3\4"):
        return VideoReader(path, decoder, timeout_sec, content, part)
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise DecodeError(path, "damaged record", str(error)) from None
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):  # a small file could fill the memory
        raise DecodeError(path, "damaged record", "its pictures are compressed twice")
    return PictureReader(path, len(members), lambda number: archive.read(members[number]), timeout_sec, part)


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Returns a sort key that compares the numbers in a name by value."""
    parts = re.split(r"(\d{1,18})", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


class PictureReader(FrameReader):
    """Reads frames of a video that is stored as pictures, mostly JPEG, with OpenCV."""

    def __init__(
        self,
        path: str,
        num_pictures: int,
        read_picture: Callable[[int], bytes],
        timeout_sec: float | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Takes a function that reads an encoded picture by its number; errors as in `VideoReader`."""
        check_opencv()
        if num_pictures < 2:
            raise DecodeError(path, "one frame" if num_pictures else "no frames", "a still, not a video" * num_pictures)
        self.path = path
        self.repeats = []
        self.frame_rate = None
        self.decoder = "opencv"
        self.frame_size = (0, 0)
        self._limit = TimeLimit(path, timeout_sec)
        self._read_picture = read_picture
        self._region = part.region
        start, end, in_frames = part.segment or Segment(0)
        rate = 1 if in_frames else USUAL_RATE
        self._first, end = (math.ceil(min(edge * rate - ROUNDING_SEC, num_pictures)) for edge in (start, end))
        self.num_video_frames = end - self._first
        if self.num_video_frames < 1:
            raise DecodeError(path, "segment outside the video", f"{str(part)[1:]}, it has {num_pictures} pictures")

    def read(self, frame_numbers: np.ndarray, prepare: Prepare, may_skip: bool = False) -> np.ndarray:
        """Decodes each distinct frame once, see `VideoReader.read`; `may_skip` has no effect."""
        self.check_numbers(frame_numbers)
        wanted, positions = np.unique(frame_numbers, return_inverse=True)
        frames: list[np.ndarray] = []
        for number in wanted:
            self._limit.check()
            frame = cut_region(self.path, self._decode(self._first + number), self._region)
            size = (frame.shape[0], frame.shape[1])
            if frames and size != self.frame_size:
                raise DecodeError(self.path, "frame size changes", f"{self.frame_size} to {size}")
            self.frame_size = size
            frames.append(prepare(frame))
        return np.stack([frames[position] for position in positions])  # [n, H, W, 3]

    def _decode(self, number: int) -> np.ndarray:
        try:
            image = np.frombuffer(self._read_picture(number), np.uint8)  # [bytes]
            frame = cv2.imdecode(image, cv2.IMREAD_COLOR) if len(image) else None
        except OSError as error:
            raise DecodeError(self.path, "not readable", f"{error.filename}: {error.strerror}") from None
        except zipfile.BadZipFile as error:
            raise DecodeError(self.path, "damaged record", str(error)) from None
        except cv2.error:  # the image has more pixels than OpenCV accepts
            frame = None
        if frame is None:
            raise DecodeError(self.path, "undecodable frame", f"image {number}")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class VideoReader(FrameReader):
    """Reads frames of one video file by number. Use it as a context manager, or call `close`.

    Phones store upright videos rotated or mirrored, with a flag; the frames come out as players show them.

    Attributes:
        path: The file.
        num_video_frames: Frames in the file, >= 2: the packets to be shown, as the official reader counts them.
            Some packets contain no picture, and the last few may not decode.
        repeats: Increasing numbers of the frames that repeat the previous picture, because their packets contain none.
            Frames at the end that do not decode are added once the last frame has been read.
        frame_rate: Average frames per second according to the file; None if the file does not state it.
        decoder: The decoder of the last read, "opencv" or "pyav"; with "auto", only final after reading.
        frame_size: Pixels (H, W) of the frames of the last read, before `prepare`; (0, 0) at first.
    """

    def __init__(
        self,
        path: str | Path,
        decoder: str = "auto",
        timeout_sec: float | None = None,
        content: bytes | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Opens `path`.

        Args:
            path: Video file.
            decoder: "opencv", "pyav" or "auto". "auto" uses OpenCV, and PyAV for files that OpenCV cannot decode or
                whose colours it would get wrong, and for segments, see `SoughtFrames`.
            timeout_sec: Time from now to the last frame read, see `TimeLimit`; None for no limit.
            content: The bytes of a file in memory; `path` is then only its name.
            part: The part of the video that is read; its frames count from 0.

        Raises:
            DecodeError: If the file is missing, truncated, not a video, has fewer than two frames, or ends before the
                segment.
            InputError: If the installed OpenCV version is not tested.
        """
        check_opencv()
        self.path = str(path)
        self.frame_size = (0, 0)
        self._part = part
        self._content = content
        self._limit = TimeLimit(self.path, timeout_sec)
        self._has_choice = decoder == "auto"
        self._forwards = decoder
        self._source: OpenCVDecoder | PyAVDecoder | None = None
        self._packets: H264Packets | SoughtFrames | None = None
        self._first = 0  # number of the part's first frame in the file
        if part.segment is not None and decoder != "opencv":
            segment = part.segment
            if segment.in_frames:
                first, end, times = self._find_range(segment)
                segment = Segment(times[first], times[end] if end < len(times) else math.inf)
            with suppress(NotAsExpected):
                self._packets = sought = SoughtFrames(self.path, content, self._limit, segment)
                self.decoder, self.num_video_frames, self.repeats = "pyav", len(sought.times), []
                self.frame_rate, self._matrix = sought.frame_rate, sought.matrix
        if self._packets is None:
            self._inspect()

    def _inspect(self) -> None:
        """Prepares for reading the file from its first frame on."""
        segment = self._part.segment
        keeps_packets = self._forwards != "opencv" and segment is None
        found = inspect_video(self.path, self._limit, self._content, keep_packets=keeps_packets)
        if self._forwards == "opencv" and found.changes_format:
            raise DecodeError(self.path, "pixel format changes", "OpenCV misreads it; decoder=auto reads it with PyAV")
        self._num_file_frames = self.num_video_frames = found.num_video_frames
        self.frame_rate = found.frame_rate
        self._matrix = found.matrix
        if self._has_choice:
            self._forwards = "pyav" if found.has_other_colours else "opencv"
        self.decoder = self._forwards
        self._packets = found.packets
        self._position = 0  # number of the next picture of the source
        if segment is not None:
            self._first, end, _ = self._find_range(segment)
            self.num_video_frames = end - self._first
        self._set_repeats(found.repeats)
        if self._packets is None:
            self._open()

    def _set_repeats(self, repeats: Iterable[int]) -> None:
        """Stores the frames of the file, and those of the part, that repeat the previous picture."""
        self._repeats = sorted(repeats)
        numbers = [number - self._first for number in self._repeats]
        self.repeats = [number for number in numbers if 0 <= number < self.num_video_frames]

    def _find_range(self, segment: Segment) -> tuple[int, int, np.ndarray]:
        """Finds the numbers of a segment's first frame and of the frame after its last, and the times of all frames."""
        times = find_times(self.path, self._limit, self._content)
        if segment.in_frames:
            first, end = int(segment.start), int(min(segment.end, len(times)))
        else:
            first, end = np.searchsorted(times + ROUNDING_SEC, [segment.start, segment.end]).tolist()
            if np.isnan(times[0]):
                raise DecodeError(self.path, "no times", "give start_frame and end_frame instead of seconds")
        if first >= end:
            detail = f"{str(Part(segment))[1:]}, it has {len(times)} frames, the last at {times[-1]:.3f} s"
            raise DecodeError(self.path, "segment outside the video", detail)
        return first, end, times

    def read(self, frame_numbers: np.ndarray, prepare: Prepare = _unchanged, may_skip: bool = False) -> np.ndarray:
        """Decodes frames in one pass over the file, each distinct frame once: uint8 [n, H, W, 3] RGB.

        If the file ends up to five frames (or 5 %) early, the last frame replaces the missing ones. OpenCV stops at a
        damaged packet; with "auto" and more than five frames missing, PyAV takes over if it can read further.

        Args:
            frame_numbers: int64 [n], each in [0, num_video_frames), in any order; numbers may repeat.
            prepare: Applied to each frame as soon as it is decoded. It maps uint8 [H, W, 3] BGR to uint8 [H', W', 3] of
                one size per video, and must treat all channels alike. Resizing here saves memory.
            may_skip: Whether PyAV may skip frames that were not requested, in H.264 files and not with
                `decoder="opencv"`. The result is the same unless the file is damaged before the requested frames.

        Raises:
            DecodeError: If the file ends too early, a frame cannot be decoded, the frame size changes, the frame shape
                is unusable, the part's region lies outside the picture, or the time is over.
        """
        self.check_numbers(frame_numbers)
        if self._packets is not None and (may_skip or isinstance(self._packets, SoughtFrames)):
            self.decoder, self.frame_size = "pyav", (0, 0)
            decoded = self._packets.decode(np.unique(frame_numbers), self._limit)
            with suppress(NotAsExpected):
                frames = self._collect(decoded, frame_numbers, prepare)
                assert frames is not None
                return frames
        if isinstance(self._packets, SoughtFrames):
            self._packets.close()
            self._inspect()
        frame_numbers = frame_numbers + self._first
        while True:
            self.decoder = self._forwards
            try:
                # A frame whose packet contains no picture shows the previous picture.
                pictures = frame_numbers - np.searchsorted(self._repeats, frame_numbers, side="right")  # [n]
                frames = self._collect(self._decode(np.unique(pictures)), pictures, prepare)
                if frames is not None:
                    return frames
                self._end_with_last_picture()
            except DecodeError:
                if not self._has_choice or self._forwards == "pyav":
                    raise
                self._limit.check()
                self._forwards = "pyav"
                self._open()

    def read_times(self) -> np.ndarray:
        """Returns the display times of the frames in seconds since the video's first frame, see `find_times`."""
        if isinstance(self._packets, SoughtFrames):
            return self._packets.times
        times = find_times(self.path, self._limit, self._content)
        return times[self._first : self._first + self.num_video_frames]

    def close(self) -> None:
        """Closes the file."""
        for opened in (self._source, self._packets):
            if opened is not None:
                opened.close()

    def _open(self) -> None:
        """Opens or reopens the file at its first picture."""
        if self._source is not None:
            self._source.close()
        open_decoder = PyAVDecoder if self._forwards == "pyav" else OpenCVDecoder
        self._source = open_decoder(self.path, self._content, self._limit)
        self._position = 0
        self.frame_size = (0, 0)

    def _decode(self, numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Reads forwards and yields (number, BGR picture) for increasing numbers, up to the end of the file."""
        if self._source is None or numbers[0] < self._position:
            self._open()
        assert self._source is not None
        for number in numbers:
            while self._position <= number:
                self._limit.check()
                if not self._source.grab():
                    self._limit.check()  # a timeout may be the reason
                    return
                self._position += 1
            yield number, self._source.retrieve()

    def _collect(
        self, decoded: Iterable[tuple[int, np.ndarray]], frame_numbers: np.ndarray, prepare: Prepare
    ) -> np.ndarray | None:
        """Prepares numbered BGR pictures as they arrive: uint8 [n, H, W, 3] RGB; None if one is missing."""
        frames: np.ndarray | None = None
        num_missing = len(frame_numbers)
        for number, picture in decoded:
            frame = cut_region(self.path, turn_upright(picture, self._matrix), self._part.region)
            size = (frame.shape[0], frame.shape[1])
            if self.frame_size not in ((0, 0), size):
                raise DecodeError(self.path, "frame size changes", f"{self.frame_size} to {size}")
            if max(size) > LARGEST_ASPECT * min(size):  # with its short side resized, it would not fit into memory
                raise DecodeError(self.path, "unusable shape", f"{size[1]} x {size[0]} pixels")
            self.frame_size = size
            prepared = prepare(frame)
            if frames is None:
                frames = np.empty((len(frame_numbers), *prepared.shape), np.uint8)
            first, *others = np.flatnonzero(frame_numbers == number)
            cv2.cvtColor(prepared, cv2.COLOR_BGR2RGB, dst=frames[first])
            for other in others:
                frames[other] = frames[first]
            num_missing -= 1 + len(others)
        return frames if num_missing == 0 else None

    def _end_with_last_picture(self) -> None:
        """Marks frames after the last picture as repeats; a `DecodeError` if many are missing or PyAV reads further."""
        if self._position == 0:
            raise DecodeError(self.path, "no frames", f"{self._forwards} decodes none")
        if self._position == 1:
            raise DecodeError(self.path, "one frame", "the others cannot be decoded")
        check_complete(self.path, self._position, self._num_file_frames - len(self._repeats))
        shown = np.delete(np.arange(self._num_file_frames), self._repeats)
        num_missing = len(shown) - self._position
        if self._has_choice and self._forwards == "opencv" and num_missing > MAX_MISSING_FRAMES:
            with closing(PyAVDecoder(self.path, self._content, self._limit)) as source:
                for _ in range(self._position + 1):
                    self._limit.check()
                    if not source.grab():
                        break
                else:
                    raise DecodeError(self.path, "truncated", "OpenCV stops at the first damaged packet")
        self._set_repeats([*self._repeats, *shown[self._position :].tolist()])
