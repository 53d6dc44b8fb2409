"""Decode with PyAV what OpenCV cannot: AV1, colours other than BT.601, and single frames without the other frames.

The pixels equal OpenCV's, except for colours that OpenCV gets wrong.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from vswin.data.decode_error import DecodeError, TimeLimit

PYAV_VERSION = av.__version__

# Maps colour matrices other than BT.601, by H.273 number, to FFmpeg's conversion. FFmpeg has none for constant
# luminance (10), which is converted as the usual BT.2020, as by the official reader.
_BT2020, _BT2020_CONSTANT_LUMINANCE = 9, 10
_OTHER_MATRICES = {1: 1, 4: 4, 7: 7, _BT2020: _BT2020, _BT2020_CONSTANT_LUMINANCE: _BT2020}
_FULL_RANGE = 2
# Clips are decoded in parallel. Since version 17, PyAV converts on all cores, which is slower at these sizes.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}

# Containers whose packets are whole pictures with display times. AVI and raw streams have no such times, and packets of
# MPEG streams may contain anything.
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Limit for the kept packets of one video; a clip of ten seconds has 1 to 3 MB.
MOST_BYTES = 64 << 20
_IDR_SLICE = 5
_SLICES = range(1, 6)
_NAL_TYPE = 0x1F


def open_container(path: str, content: bytes | None, limit: TimeLimit) -> av.container.InputContainer:
    """Opens a video file, or the bytes `content` of a file; a `DecodeError` if it is not a video or has no index.

    Metadata text may have any encoding. The file may not refer to other protocols, as playlists do.
    """
    file = os.path.abspath(path) if content is None else io.BytesIO(content)  # FFmpeg reads "12:30.mp4" as a protocol
    try:
        return av.open(
            file,
            mode="r",
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
            timeout=limit.seconds_left(),
        )
    except av.FFmpegError as error:
        limit.check()  # a timeout may be the reason
        if isinstance(error, PermissionError):
            raise DecodeError(path, "not readable", "permission denied") from None
        try:
            with open(path, "rb") if content is None else io.BytesIO(content) as opened:
                start = opened.read(8)
        except OSError as changed:  # the file has changed since the first check
            raise DecodeError(path, "not readable", changed.strerror or "") from None
        if start[4:] == b"ftyp":
            raise DecodeError(path, "truncated", "the index of the MP4 file is missing") from None
        raise DecodeError(path, "not a video", error.strerror or "") from None


def find_stream(path: str, container: av.container.InputContainer) -> tuple[av.VideoStream, av.VideoCodecContext]:
    """Returns the first video stream and its decoder, with one thread: more threads learn too late what to skip."""
    if not container.streams.video:
        raise DecodeError(path, "not a video", "sound only")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise DecodeError(path, "unknown codec")
    stream.codec_context.thread_count = 1
    return stream, stream.codec_context


def read_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Reads up to the end or to the first damage, where OpenCV also stops; the last packet is empty."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


class PyAVDecoder:
    """Decodes a file from its first frame on; frames equal OpenCV's, and are neither rotated nor mirrored.

    The bytes are equal with two exceptions. If a file declares colours other than BT.601, as most HD video does, the
    frames are converted accordingly and equal the official reader's frames. And some codecs (MPEG-4 by Xvid, WMV)
    differ by up to 2 of 255, because their decoders changed between the FFmpeg versions of OpenCV and PyAV.
    """

    def __init__(self, path: str, content: bytes | None = None, limit: TimeLimit | None = None) -> None:
        """Opens a file, or the bytes `content` of a file; `limit` bounds the time for opening and finding a frame."""
        self._path = path
        self._container = open_container(path, content, limit or TimeLimit(path, None))
        try:
            stream, _ = find_stream(path, self._container)
        except DecodeError:
            self.close()
            raise
        self._convert = FrameConverter(path).convert
        self._frames = self._decode(stream)
        self._frame: av.VideoFrame | None = None

    def grab(self) -> bool:
        """Advances to the next frame; false after the last one."""
        self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> np.ndarray:
        """Returns the grabbed frame, uint8 [H, W, 3] BGR; errors as in `FrameConverter.convert`."""
        assert self._frame is not None
        return self._convert(self._frame)

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def __enter__(self) -> PyAVDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _decode(self, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """Decodes packet by packet and skips broken packets, as OpenCV does."""
        for packet in read_packets(self._container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            yield from frames


class NotAsExpected(Exception):  # noqa: N818 - what was seen, not what is wrong
    """The file does not match its container's metadata, so it must be read from the first frame on."""


class H264Packets:
    """Keeps all packets of an H.264 video in memory and decodes requested frames without the frames they do not need.

    Reading from the first frame on decodes everything before the requested frames. Here, decoding starts at the last
    IDR picture before them and skips pictures that are neither requested nor referenced. There is no seeking: packets
    before the IDR picture also pass through the decoder, which reads what is stated only once (parameter sets, the
    encoder's version) and decodes no picture.

    Frame k is the k-th in the order of the packets' display times. A decoder that reads from the start returns it as
    its k-th frame too, if every packet yields a frame. In a file that is damaged before the first requested frame, that
    decoder's count shifts, and the frames differ.

    Source: ITU-T H.264, 7.4.1.2.4: no picture refers to one before the last IDR picture; 7.4.1: nor to one whose
        `nal_ref_idc` is 0, which FFmpeg calls NONREF.
    """

    def __init__(
        self, path: str, container: av.container.InputContainer, stream: av.VideoStream, packets: Sequence[av.Packet]
    ) -> None:
        """Takes a stream that was read to its end, and all its packets except the empty last one.

        Its decoder must use one thread and report errors instead of concealing them. `close` closes the container.

        Raises:
            NotAsExpected: If the container, the codec or the times do not define which packet is which frame.
        """
        codec = stream.codec_context
        if container.format.name not in _CONTAINERS or codec is None or codec.name != "h264":
            raise NotAsExpected("not H.264 in MP4, MOV or Matroska")
        # ISO/IEC 14496-15, AVCDecoderConfigurationRecord: the first byte is version 1; the last two bits of the fifth
        # byte give the bytes of a length. Start codes only occur in these containers by mistake.
        header = codec.extradata or b""
        if len(header) < 5 or header[0] != 1:
            raise NotAsExpected("no lengths before its NAL units")
        times = [packet.pts for packet in packets]
        if None in times or len(set(times)) < len(times):
            raise NotAsExpected("times are missing or there twice")
        self._container = container
        self._codec = codec
        self._packets = packets
        self._convert = FrameConverter(path).convert
        self._times = np.array(times, np.int64)  # [packets]
        self._shown = np.sort(self._times[[not packet.is_discard for packet in packets]])  # [frames]
        self._entries = self._find_entries((header[4] & 3) + 1)
        if self._entries[:1] != [0]:
            raise NotAsExpected("it does not start with an IDR picture")

    def decode(self, numbers: np.ndarray, limit: TimeLimit) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes frames with distinct numbers, int64 [n], each in [0, number of packets to be shown).

        Yields:
            Each number with its frame, uint8 [H, W, 3] BGR, in display order.

        Raises:
            NotAsExpected: If the decoder fails, or does not return exactly these frames.
            DecodeError: If the time is over, or colours cannot be converted.
        """
        numbers_by_time = {int(self._shown[number]): int(number) for number in numbers}
        first = min(numbers_by_time)
        entry = max(entry for entry in self._entries if self._times[entry] <= first)
        last = int(np.flatnonzero(np.isin(self._times, list(numbers_by_time)))[-1])
        self._codec.flush_buffers()
        for index in range(last + 2):  # the last index flushes frames that the decoder holds back for reordering
            limit.check()
            packet = self._packets[index] if index <= last else None
            if index < entry:
                self._codec.skip_frame = "ALL"
            elif packet is None or packet.pts in numbers_by_time:
                self._codec.skip_frame = "DEFAULT"
            else:
                self._codec.skip_frame = "NONREF"
            try:
                frames = self._codec.decode(packet)
            except av.FFmpegError as error:
                raise NotAsExpected(str(error)) from None
            for frame in frames:
                if frame.pts not in numbers_by_time:
                    continue
                number = numbers_by_time.pop(frame.pts)
                # The two fields of an interlaced picture may come in two packets.
                if frame.is_corrupt or frame.interlaced_frame:
                    raise NotAsExpected(f"frame {number} is damaged or interlaced")
                yield number, self._convert(frame)
        if numbers_by_time:
            raise NotAsExpected(f"{len(numbers_by_time)} frames do not come out")

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _find_entries(self, length_bytes: int) -> list[int]:
        """Lists packets where decoding may start: IDR pictures shown after all earlier and before all later packets."""
        latest = np.maximum.accumulate(self._times)
        earliest = np.minimum.accumulate(self._times[::-1])[::-1]
        return [
            index
            for index, packet in enumerate(self._packets)
            if packet.is_keyframe
            and earliest[index] == latest[index] == self._times[index]
            and _is_idr(memoryview(packet), length_bytes)
        ]


def _is_idr(packet: memoryview, length_bytes: int) -> bool:
    """Tells whether a packet contains an IDR picture; containers also mark other pictures as key frames."""
    position = 0
    while position + length_bytes < len(packet):
        start = position + length_bytes
        if (kind := packet[start] & _NAL_TYPE) in _SLICES:
            return kind == _IDR_SLICE
        position = start + int.from_bytes(packet[position:start], "big")
    return False


def has_other_colours(codec: av.VideoCodecContext) -> bool:
    """Tells whether OpenCV's colours would be wrong, because the file has colour metadata that OpenCV ignores."""
    pixels = codec.pix_fmt or ""
    # Formats named yuvj have the full range, and OpenCV handles them.
    is_full_range = codec.color_range == _FULL_RANGE and pixels.startswith("yuv") and not pixels.startswith("yuvj")
    return is_full_range or codec.colorspace in _OTHER_MATRICES


class FrameConverter:
    """Converts the frames of one video; frames of the same size and format share the setup."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Converts a frame of any format as OpenCV does, but with the frame's own matrix and range; BT.601 by default.

        Returns uint8 [H, W, 3] BGR, whose rows may have gaps in memory; raises a `DecodeError` if conversion fails.

        Source: FFmpeg 4, libavfilter/vf_scale.c, scale_frame, which the official reader uses for conversion.
        """
        try:
            converted = self._reformatter.reformat(
                _without_hints(frame),
                format="bgr24",
                interpolation=Interpolation.BICUBIC,
                src_colorspace=_OTHER_MATRICES.get(frame.colorspace, Colorspace.ITU601),
                dst_colorspace=Colorspace.ITU601,
                src_color_range=frame.color_range,
                **_ONE_THREAD,
            )
        except (av.FFmpegError, ValueError) as error:
            raise DecodeError(self._path, "undecodable frame", str(error)) from None
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)  # [H, bytes]
        return rows[:, : 3 * converted.width].reshape(converted.height, converted.width, 3)  # [H, W, 3]


def _without_hints(frame: av.VideoFrame) -> av.VideoFrame:
    """Copies only the pixels: newer FFmpegs would use fields and chroma positions, and OpenCV's FFmpeg does not."""
    plain = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, plain.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)  # [rows, bytes]
        copied = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)  # [rows, bytes]
        length = min(source.line_size, target.line_size)
        copied[:, :length] = rows[:, :length]
    return plain
