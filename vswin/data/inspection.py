"""Inspect a video file without decoding it: find its frame count, frame size and orientation, and missing data."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from vswin.data.decoders import (
    MOST_BYTES,
    H264Packets,
    NotAsExpected,
    TimeLimit,
    find_stream,
    has_other_colours,
    open_container,
    read_packets,
)
from vswin.errors import DecodeError

# The last few packets of many files, especially old AVIs, decode to nothing.
MAX_MISSING_FRAMES = 5
MAX_MISSING_FRACTION = 0.05

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
# Parameter sets contain the picture size. They follow a start code or a length below 256, and end before two zeros.
_PARAMETER_SETS = {
    "h264": re.compile(rb"\0\0(?:\x01|\0.)[\x27\x47\x67](.{4,80}?)\0\0", re.DOTALL),
    "hevc": re.compile(rb"\0\0(?:\x01|\0.)\x42\x01(.{24,80}?)\0\0", re.DOTALL),
}
_MPEG4_PICTURE = b"\0\0\1\xb6"
# An MPEG-4 picture that is "not coded" is a header of 6 or 7 bytes, or the single byte 0x7f.
_MOST_NOT_CODED_BYTES = 7
_VP8_SHOWN = 0x10
Matrix = tuple[int, int, int, int]


class Inspection(NamedTuple):
    """What is known about a video file before any frame is decoded.

    Attributes:
        num_video_frames: Frames in the file, >= 2: the packets to be shown.
        has_other_colours: Whether OpenCV's colours would be wrong, because the file has colour metadata that OpenCV
            ignores or because the pixel format changes.
        frame_rate: Average frames per second according to the file; None if the file does not state it.
        packets: Decodes frames without the frames before them; the caller closes it. None if this might return
            different frames.
        repeats: Frames that repeat the previous picture, see `PacketPictures.find_repeats`.
        matrix: Rotation and mirroring of the pictures, see `turn_upright`; None if the file does not state it.
        changes_format: Whether the pixel format changes; OpenCV returns garbage after the change.
    """

    num_video_frames: int
    has_other_colours: bool
    frame_rate: Fraction | None
    packets: H264Packets | None = None
    repeats: Sequence[int] = ()
    matrix: Matrix | None = None
    changes_format: bool = False


def inspect_video(path: str, limit: TimeLimit, content: bytes | None = None, keep_packets: bool = False) -> Inspection:
    """Counts the packets of the first video stream that are to be shown, as the official reader does.

    The container's frame count is not used: Matroska has none, AVI's may be wrong, and an MP4 file that was cut without
    re-encoding also counts the hidden frames before the cut.

    `content` holds the bytes of a file in memory; `keep_packets` keeps up to 64 MB of packets if they are usable.

    Raises:
        DecodeError: If the file is missing, not readable, truncated, not a video, or has fewer than two frames.

    Source: decord, src/video/video_reader.cc, IndexKeyframes; it counts hidden frames too.
    """
    check_file(path, content)
    try:
        check_whole(path, content)
        with ExitStack() as stack:
            container = stack.enter_context(open_container(path, content, limit))
            found = _inspect(path, limit, container, keep_packets)
            if found.packets is not None:
                stack.pop_all()  # the packets' reader needs the container
        return found
    except (OSError, av.FFmpegError) as error:
        raise DecodeError(path, "not readable", error.strerror or "") from None


def _inspect(path: str, limit: TimeLimit, container: av.container.InputContainer, keep_packets: bool) -> Inspection:
    stream, codec = find_stream(path, container)
    is_other = has_other_colours(codec)
    if codec.name == "h264":  # error concealment depends on where decoding starts, see `H264Packets`
        codec.options = {"err_detect": "explode"}
    pictures = PacketPictures(path, codec)
    packets: list[av.Packet] = []
    num_shown = num_packets = num_bytes = 0
    for packet in read_packets(container, stream):
        limit.check()
        if packet.size > 0:
            num_packets += 1
            num_shown += not packet.is_discard
            num_bytes += packet.size
            pictures.add(packet)
            if keep_packets and num_bytes <= MOST_BYTES:
                packets.append(packet)
    limit.check()  # a timeout may have ended the loop
    # An MP4 index has an entry for every frame, without those that an edit list removes; other containers only state a
    # number.
    if "mp4" in container.format.name:
        check_complete(path, num_packets, min(stream.frames, len(stream.index_entries)))
    if num_shown == 0:
        raise DecodeError(path, "no frames")
    repeats = pictures.find_repeats()
    if num_shown - len(repeats) <= 1:
        raise DecodeError(path, "one frame", "a still, not a video")
    changes_format = len(pictures.pixel_formats) > 1
    kept = None
    if len(packets) == num_packets:
        with suppress(NotAsExpected):
            kept = H264Packets(path, container, stream, packets)
    return Inspection(
        num_video_frames=num_shown,
        has_other_colours=is_other or changes_format,
        frame_rate=stream.average_rate or None,  # some files say 0
        packets=kept,
        repeats=repeats,
        matrix=pictures.matrix,
        changes_format=changes_format,
    )


def check_file(path: str, content: bytes | None = None) -> None:
    """Raises a `DecodeError` for a path that is missing, empty, not readable, or not a regular file."""
    try:
        path.encode()
    except UnicodeEncodeError:  # OpenCV would crash
        raise DecodeError(path, "unusable name", "not UTF-8; rename the file") from None
    num_bytes = 0 if content is None else len(content)
    if content is None:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: the name contains a zero byte
            raise DecodeError(path, "missing") from None
        except OSError as error:
            raise DecodeError(path, "not readable", error.strerror or "") from None
        if stat.S_ISDIR(status.st_mode):
            raise DecodeError(path, "not a video", "a folder")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could block for ever
            raise DecodeError(path, "not a video", "a pipe or device")
        num_bytes = status.st_size
    if num_bytes == 0:
        raise DecodeError(path, "empty", "0 bytes")


def check_whole(path: str, content: bytes | None = None) -> None:
    """Raises a `DecodeError` for an AVI, Matroska or WebM file that lacks more than 5 % of the bytes its header states.

    FFmpeg reads such a file as if it were complete. Containers without a stated length (MPEG, FLV, fragmented MP4, live
    recordings) look like shorter videos when truncated; truncated MP4 and MOV files are recognised by their index.
    """
    stated = 0
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        start = file.read(12)
        if start[:4] == b"RIFF" and start[8:] == b"AVI ":
            length = int.from_bytes(start[4:8], "little")
            stated = 8 + length if length < 2**32 - 1 else 0
        elif start[:4] == _EBML:
            file.seek(4)
            file.seek(_read_length(file), os.SEEK_CUR)
            if file.read(4) == _SEGMENT and (length := _read_length(file)):
                stated = file.tell() + length
        found = file.seek(0, os.SEEK_END)
    if stated - found > MAX_MISSING_FRACTION * stated:
        raise DecodeError(path, "truncated", f"{found:,} of {stated:,} bytes are there")


def _read_length(file: BinaryIO) -> int:
    """Reads an EBML length, whose first set bit gives its number of bytes; 0 for an unknown length (all ones)."""
    first = file.read(1)
    num_bytes = 9 - first[0].bit_length() if first else 9
    rest = file.read(max(num_bytes - 1, 0))
    if num_bytes > 8 or len(rest) < num_bytes - 1:
        return 0
    mask = 2 ** (7 * num_bytes) - 1
    length = int.from_bytes(first + rest, "big") & mask
    return 0 if length == mask else length


class PacketPictures:
    """Inspects the packets of a video stream one by one.

    Attributes:
        matrix: a, b, c, d of the display matrix, which maps the point (x, y) of a picture to (ax + cy, bx + dy).
        pixel_formats: Formats of the pictures. OpenCV uses the first one; others become garbage without an error.
    """

    def __init__(self, path: str, codec: av.VideoCodecContext) -> None:  # an unopened decoder, to be flushed after use
        self.matrix: Matrix | None = None
        self.pixel_formats: set[str | None] = set()
        self._path = path
        self._codec = codec
        self._counts: list[int] = []  # pictures in each packet to be shown
        self._size: tuple[int, int] | None = None
        self._parameters = b""

    def add(self, packet: av.Packet) -> None:
        """Inspects the next packet; a `DecodeError` if the size changes: OpenCV would repeat the last old picture."""
        if not packet.is_discard:
            self._counts.append(self._count(memoryview(packet)))
        if (self._size is None or packet.is_keyframe) and self._pass_through(packet):
            self.pixel_formats.add(self._codec.pix_fmt)
            size = (self._codec.height, self._codec.width)
            self._size = self._size or size
            if size != self._size:
                raise DecodeError(self._path, "frame size changes", f"{self._size} to {size}")

    def find_repeats(self) -> list[int]:
        """Lists the frames that repeat the previous picture, because their packets contain none.

        The official reader counts packets. In MPEG-4, a picture is missing at its packet's position. VP8 has pictures
        that are never shown; the official reader returns the others in sequence.
        """
        missing = np.arange(1, len(self._counts) + 1) - np.cumsum(self._counts)  # [frames]
        if self._codec.name == "vp8":
            return list(range(len(missing) - max(missing[-1], 0), len(missing)))
        # In a packed bitstream, one packet contains two pictures and the next one none.
        pictures = np.arange(len(missing)) - np.maximum.accumulate(np.maximum(missing, 0))  # [frames]
        return (np.flatnonzero(np.diff(np.maximum(pictures, 0)) == 0) + 1).tolist()

    def _count(self, content: memoryview) -> int:
        if self._codec.name == "vp8":
            return int(content[0] & _VP8_SHOWN > 0)
        if self._codec.name == "mpeg4":
            return 0 if len(content) <= _MOST_NOT_CODED_BYTES else max(bytes(content).count(_MPEG4_PICTURE), 1)
        return 1

    def _pass_through(self, packet: av.Packet) -> bool:
        """Lets the decoder read the size from a packet, with minimal decoding; returns whether it has read it."""
        self._codec.skip_frame = "ALL"
        if self._codec.name in _PARAMETER_SETS:
            found = _PARAMETER_SETS[self._codec.name].search(memoryview(packet))
            is_new = found is not None and bytes(found[1]) != self._parameters
            if found is not None:
                self._parameters = bytes(found[1])
            if self._size is not None and not is_new:
                return False
            self._codec.skip_frame = "DEFAULT"
        if self._size is None:
            self._codec.skip_frame = "DEFAULT"
        frames: list[av.VideoFrame] = []
        with suppress(av.FFmpegError):
            frames = self._codec.decode(packet)
            if not frames and len(self._counts) == 1 and packet.is_keyframe:  # the decoder waits to reorder frames
                frames = self._codec.decode(None)
                self._codec.flush_buffers()
        if self._size is None and frames:
            matrix: Any = frames[0].side_data.get("DISPLAYMATRIX")
            if matrix is not None:
                a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32)[:5].tolist()
                self.matrix = (a, b, c, d)
        return self._size is not None or len(frames) > 0


def find_times(path: str, limit: TimeLimit, content: bytes | None = None) -> np.ndarray:
    """Reads the display times of a file that `inspect_video` accepted, without decoding: float64 [num_video_frames].

    They are seconds since the first frame, not decreasing. If packets have no times, as in many AVI files, the average
    rate gives them; if the file does not state a rate either, they are NaN.
    """
    stamps: list[int | None] = []
    with open_container(path, content, limit) as container:
        stream, _ = find_stream(path, container)
        for packet in read_packets(container, stream):
            limit.check()
            if packet.size > 0 and not packet.is_discard:
                stamps.append(packet.pts)
        if None in stamps:
            return np.arange(len(stamps)) / float(stream.average_rate or "nan")
        times = np.sort(np.array(stamps, np.float64)) * float(stream.time_base or 1)  # [num_video_frames]
    return times - times[0]


def check_complete(path: str, num_found: int, num_promised: int) -> None:
    """Raises a `DecodeError` for a file that lacks more than five frames and more than 5 % of its frames."""
    if num_promised - num_found > max(MAX_MISSING_FRAMES, MAX_MISSING_FRACTION * num_promised):
        raise DecodeError(path, "truncated", f"{num_found} of {num_promised} frames are there")


def turn_upright(image: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """Rotates and mirrors an image [H, W, 3] as players do; ignores angles other than multiples of 90 degrees."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if 57 * min(abs(a), abs(c)) > max(abs(a), abs(c)):  # more than a degree from the axes
        return image
    if abs(c) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b  # [W, H, 3]
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
