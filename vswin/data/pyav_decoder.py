"""Look into video files with PyAV, and decode with it what OpenCV cannot: AV1, and colours other than BT.601."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from vswin.data.decode_error import DecodeError, TimeLimit
from vswin.data.file_status import check_file
from vswin.data.h264_packets import MOST_BYTES, H264Packets, NotAsExpected
from vswin.data.pyav_frames import FrameConverter, Matrix, PacketPictures, has_other_colours
from vswin.data.truncation import check_whole, open_content

PYAV_VERSION = av.__version__

# The last few packets of many files, old AVIs above all, decode to nothing.
MAX_MISSING_FRAMES = 5
MAX_MISSING_SHARE = 0.05


class Inspection(NamedTuple):
    """What is known of a video file before any frame is decoded.

    Attributes:
        num_video_frames: Frames in the file, >= 2: packets to be shown.
        has_other_colours: Whether the file says of its colours what OpenCV does not look at, so that OpenCV's
            would be wrong, or the pixel format changes.
        frame_rate: Frames per second, on average, as the file says; None where it does not.
        packets: What decodes frames without those before them, to be closed; None where it cannot be told in advance
            that this would give the same ones.
        repeats: Frames that show the picture of the frame before, see `PacketPictures`.
        matrix: How pictures are turned, see `turn_upright`; None where the file does not say.
        changes_format: Whether the pixel format changes, after which OpenCV gives garbage.
    """

    num_video_frames: int
    has_other_colours: bool
    frame_rate: Fraction | None
    packets: H264Packets | None = None
    repeats: Sequence[int] = ()
    matrix: Matrix | None = None
    changes_format: bool = False


class PyAVDecoder:
    """Decodes a file from its first frame on; frames come out equal to OpenCV's, and as they are in the file.

    Equal to the byte, but for two things. Where a file says that its colours are not BT.601, as most HD video
    does, they are converted accordingly, as the official reader does, whose frames these then equal. And codecs
    whose decoders changed between the FFmpeg inside OpenCV and the one inside PyAV (MPEG-4 by Xvid, WMV) differ
    by up to 2 of 255.
    """

    def __init__(self, path: str, content: bytes | None = None, limit: TimeLimit | None = None) -> None:
        """Opens a file, or `content`, the bytes of one.

        Args:
            path: The file, or the name of `content`.
            content: Bytes of a file.
            limit: Ends the opening, and the search for a frame, which then there is not.

        Raises:
            DecodeError: If there is no decoder for it.
        """
        self._path = path
        self._container = _open(path, content, limit or TimeLimit(path, None))
        try:
            stream = _find_stream(path, self._container)
            _find_codec(path, stream)
        except DecodeError:
            self.close()
            raise
        self._convert = FrameConverter(path).convert
        self._frames = self._decode(stream)
        self._frame: av.VideoFrame | None = None

    def grab(self) -> bool:
        """Goes to the next frame; false after the last one."""
        self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> np.ndarray:
        """Gives the frame that was grabbed, uint8 [H, W, 3] BGR.

        Raises:
            DecodeError: If its colours cannot be converted.
        """
        assert self._frame is not None
        return self._convert(self._frame)

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _decode(self, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """Decodes packet by packet and leaves broken ones out, as OpenCV does."""
        for packet in _read_packets(self._container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            yield from frames


def inspect_video(path: str, limit: TimeLimit, content: bytes | None = None, keep_packets: bool = False) -> Inspection:
    """Counts the packets of the first video stream that are to be shown, as the official reader does.

    The container's own count is not used for that: Matroska has none, AVI's may be anything, and an MP4 file
    that was cut without re-encoding counts the hidden frames before the cut as well.

    Args:
        path: The file.
        limit: Asked between packets.
        content: The bytes of the file, where they lie in memory.
        keep_packets: Whether to keep the packets, up to 64 MB, if they are of use.

    Returns:
        What was found.

    Raises:
        DecodeError: If the file is missing, not readable, truncated, not a video, or has fewer than two frames.

    Source: decord, src/video/video_reader.cc, IndexKeyframes; it counts hidden frames too.
    """
    check_file(path, content)
    try:
        check_whole(path, content)
        container = _open(path, content, limit)
        found = None
        try:
            found = _inspect(path, limit, container, keep_packets)
        finally:
            if found is None or found.packets is None:
                container.close()
        return found
    except (OSError, av.FFmpegError) as error:
        raise DecodeError(path, "not readable", error.strerror or "") from None


def _inspect(path: str, limit: TimeLimit, container: av.container.InputContainer, keep_packets: bool) -> Inspection:
    stream = _find_stream(path, container)
    codec = _find_codec(path, stream)
    is_other = has_other_colours(codec)
    if codec.name == "h264":  # what it would conceal may look otherwise where it started elsewhere, see `H264Packets`
        codec.options = {"err_detect": "explode"}
    pictures = PacketPictures(path, codec)
    packets: list[av.Packet] = []
    num_shown = num_packets = num_bytes = 0
    for packet in _read_packets(container, stream):
        limit.check()
        if packet.size > 0:  # the last packet that PyAV hands out is an empty one to flush a decoder
            num_packets += 1
            num_shown += not packet.is_discard
            num_bytes += packet.size
            pictures.add(packet)
            if keep_packets and num_bytes <= MOST_BYTES:
                packets.append(packet)
    limit.check()  # which may be why there are no more
    # This index has a place for every frame: other containers just state a number. What an edit list leaves out is not
    # in the index any more, which PyAV shows since 17.
    if "mp4" in container.format.name:
        index = getattr(stream, "index_entries", None)
        check_complete(path, num_packets, stream.frames if index is None else min(stream.frames, len(index)))
    if num_shown == 0:
        raise DecodeError(path, "no frames")
    repeats = pictures.find_repeats()
    if num_shown - len(repeats) <= 1:
        raise DecodeError(path, "one frame", "a still, not a video")
    frame_rate = stream.average_rate or None  # some files say 0
    changes_format = len(pictures.pixel_formats) > 1
    kept = None
    if len(packets) == num_packets:
        with suppress(NotAsExpected):
            kept = H264Packets(path, container, stream, packets)
    return Inspection(
        num_shown,
        is_other or changes_format,
        frame_rate,
        kept,
        repeats,
        pictures.matrix,
        changes_format,
    )


def find_times(path: str, limit: TimeLimit, content: bytes | None = None) -> np.ndarray:
    """Finds out when each frame is shown, without decoding any.

    Args:
        path: A file that `inspect_video` has looked at.
        limit: Asked between packets.
        content: The bytes of the file, where they lie in memory.

    Returns:
        Seconds from the first frame on, float64 [num_video_frames], not decreasing; where packets have no times, as in
        many AVI files, by the average rate; NaN where the file does not say that either.
    """
    stamps: list[int | None] = []
    with _open(path, content, limit) as container:
        stream = _find_stream(path, container)
        for packet in _read_packets(container, stream):
            limit.check()
            if packet.size > 0 and not packet.is_discard:
                stamps.append(packet.pts)
        if None in stamps:
            return np.arange(len(stamps)) / float(stream.average_rate or "nan")
        times = np.sort(np.array(stamps, np.float64)) * float(stream.time_base or 1)  # [num_video_frames]
    return times - times[0]


def check_complete(path: str, num_found: int, num_promised: int) -> None:
    """Refuses a file that ends well before its promised number of frames.

    Args:
        path: The file.
        num_found: Frames that are there.
        num_promised: Frames that should be there.

    Raises:
        DecodeError: If more than five frames and more than 5 % are missing.
    """
    if num_promised - num_found > max(MAX_MISSING_FRAMES, MAX_MISSING_SHARE * num_promised):
        raise DecodeError(path, "truncated", f"{num_found} of {num_promised} frames are there")


def _open(path: str, content: bytes | None, limit: TimeLimit) -> av.container.InputContainer:
    """Opens a container. Text in it may be in any encoding, and it may not send us elsewhere, as playlists do."""
    file = os.path.abspath(path) if content is None else io.BytesIO(content)  # "12:30.mp4" would be a protocol
    try:
        return av.open(
            file,
            mode="r",
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
            timeout=limit.seconds_left(),
        )
    except av.FFmpegError as error:
        limit.check()  # which may be why it cannot be opened
        raise _explain(path, content, error) from None


def _find_stream(path: str, container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise DecodeError(path, "not a video", "sound only")
    return container.streams.video[0]


def _find_codec(path: str, stream: av.VideoStream) -> av.VideoCodecContext:
    """Gives the decoder with one thread: with more, it would be told too late what to leave out."""
    if stream.codec_context is None:
        raise DecodeError(path, "unknown codec")
    stream.codec_context.thread_count = 1
    return stream.codec_context


def _explain(path: str, content: bytes | None, error: av.FFmpegError) -> DecodeError:
    """Says why PyAV cannot open a file: tells an MP4 file without its end, where the index stands, from others."""
    if isinstance(error, PermissionError):
        return DecodeError(path, "not readable", "permission denied")
    try:
        with open_content(path, content) as file:
            start = file.read(8)
    except OSError as changed:  # since it was looked at first
        return DecodeError(path, "not readable", changed.strerror or "")
    if start[4:] == b"ftyp":
        return DecodeError(path, "truncated", "the index of the MP4 file is missing")
    return DecodeError(path, "not a video", error.strerror or "")


def _read_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Reads up to the end, or to where the file is damaged, which is OpenCV's end."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return
