"""Decode video files with OpenCV, the decoder of the published figures, and with PyAV.

PyAV decodes what OpenCV cannot: AV1, colours other than BT.601, and single frames without the frames before them. Its
pixels equal OpenCV's, except for colours that OpenCV gets wrong. Only this module opens videos and cameras with OpenCV.
"""

from __future__ import annotations

import atexit
import io
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# OpenCV reads this when it opens its first video; -8 is FFmpeg's "quiet". Our errors give the reason instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from vswin.errors import DecodeError, InputError

DECODER_VERSIONS = {"opencv": cv2.__version__, "pyav": av.__version__}
cv2.setLogLevel(1)  # fatal errors only
# Clips are decoded in parallel, so threads within one clip would only compete.
cv2.setNumThreads(1)

# Maps colour matrices other than BT.601, by H.273 number, to FFmpeg's conversion. FFmpeg has none for constant
# luminance (10), which is converted as the usual BT.2020, as by the official reader.
_OTHER_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
_FULL_RANGE = 2
# Containers whose packets are whole pictures with display times. AVI and raw streams have no such times, and packets of
# MPEG streams may contain anything.
SOUGHT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Limit for the kept packets of one video; a clip of ten seconds has 1 to 3 MB.
MOST_BYTES = 64 << 20


# Once nothing is decoded any more, read-ahead threads fill their buffers in milliseconds.
QUIET_SEC = 0.3
LONGEST_WAIT_SEC = 10.0


class TimeLimit:
    """Stops work on a video that takes too long.

    The caller checks the limit between two frames, and the libraries that read the file check it between two blocks.
    A decoder that hangs inside one frame is not interrupted.
    """

    def __init__(self, path: str, seconds: float | None) -> None:
        """Starts the clock for the file `path`; None means no limit."""
        self._path = path
        self._seconds = math.inf if seconds is None else seconds
        self._start = time.monotonic()

    def seconds_left(self) -> float | None:
        """Returns the remaining time, > 0; None for no limit. Raises like `check`."""
        self.check()
        return None if self._seconds == math.inf else max(self._start + self._seconds - time.monotonic(), 1e-3)

    def check(self) -> None:
        """Raises a `DecodeError` if the time is over."""
        if time.monotonic() - self._start > self._seconds:
            raise DecodeError(self._path, "too slow", f"not read within {self._seconds:g} s")


class ExitGate:
    """Delays the interpreter's exit until all threads have left the guarded code, and admits no new threads.

    tf.data reads ahead in threads that nobody joins. A thread that returns from OpenCV into an interpreter that is
    shutting down aborts the process: a run that stopped with an error message would end in a core dump. TensorFlow also
    waits for ever for a call that the shutdown cut off. Therefore threads inside finish, later callers do nothing, and
    the process exits once no more calls arrive.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0
        self._is_open = True
        self._last_call = 0.0
        atexit.register(self.close)

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Marks the guarded code; yields whether it may run, which is false once the process exits."""
        with self._changed:
            is_open = self._is_open
            self._last_call = time.monotonic()
            self._num_inside += is_open
        try:
            yield is_open
        finally:
            with self._changed:
                self._num_inside -= is_open
                self._changed.notify_all()

    def close(self) -> None:
        """Admits no more threads, and waits until all have left and no more calls arrive."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: self._num_inside == 0)
        deadline = time.monotonic() + LONGEST_WAIT_SEC
        while time.monotonic() < min(self._last_call + QUIET_SEC, deadline):
            time.sleep(0.01)


def check_opencv(version: str = cv2.__version__) -> None:
    """Raises an `InputError` for OpenCV versions other than 4.11 and 4.12: they return garbage or are not tested."""
    if version.split(".")[:2] not in (["4", "11"], ["4", "12"]):
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
        """Opens a file, or its bytes; `limit` bounds the time for opening and for finding a frame.

        A file that OpenCV cannot open has no frames.
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
        self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *time_params])
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

        Its decoder must use one thread and report errors instead of concealing them. `close` closes the container. A
        `NotAsExpected` if the container, the codec or the times do not define which packet is which frame.
        """
        codec = stream.codec_context
        if container.format.name not in SOUGHT_CONTAINERS or codec is None or codec.name != "h264":
            raise NotAsExpected("not H.264 in MP4, MOV or Matroska")
        length_bytes = length_bytes_of(codec)
        times = [packet.pts for packet in packets]
        if None in times or len(set(times)) < len(times):
            raise NotAsExpected("times are missing or there twice")
        self._container = container
        self._codec = codec
        self._packets = packets
        self._convert = FrameConverter(path).convert
        self._times = np.array(times, np.int64)  # [packets]
        self._shown = np.sort(self._times[[not packet.is_discard for packet in packets]])  # [frames]
        self._entries = self._find_entries(length_bytes)
        if self._entries[:1] != [0]:
            raise NotAsExpected("it does not start with an IDR picture")

    def decode(self, numbers: np.ndarray, limit: TimeLimit) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes frames with distinct numbers and yields each with its frame, uint8 [H, W, 3] BGR, in display order.

        A `NotAsExpected` if the decoder fails or does not return exactly these frames; a `DecodeError` if the time is
        over, or colours cannot be converted.
        """
        numbers_by_time = {int(self._shown[number]): int(number) for number in numbers}
        first = min(numbers_by_time)
        entry = max(entry for entry in self._entries if self._times[entry] <= first)
        last = int(np.flatnonzero(np.isin(self._times, list(numbers_by_time)))[-1])
        self._codec.flush_buffers()
        for index in range(last + 2):  # the last index flushes frames that the decoder holds back for reordering
            limit.check()
            packet = self._packets[index] if index <= last else None
            is_wanted = packet is None or packet.pts in numbers_by_time
            self._codec.skip_frame = "ALL" if index < entry else "DEFAULT" if is_wanted else "NONREF"
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
            and is_idr(memoryview(packet), length_bytes)
        ]


def length_bytes_of(codec: av.VideoCodecContext) -> int:
    """Returns the bytes of the length before each NAL unit of an H.264 stream, or raises a `NotAsExpected`."""
    # ISO/IEC 14496-15, AVCDecoderConfigurationRecord: the first byte is version 1; the last two bits of the fifth byte
    # give the bytes of a length. Start codes only occur in these containers by mistake.
    header = codec.extradata or b""
    if len(header) < 5 or header[0] != 1:
        raise NotAsExpected("no lengths before its NAL units")
    return (header[4] & 3) + 1


def is_idr(packet: memoryview, length_bytes: int) -> bool:
    """Tells whether a packet contains an IDR picture; containers also mark other pictures as key frames."""
    position = 0
    while position + length_bytes < len(packet):
        start = position + length_bytes
        nal_type = packet[start] & 0x1F
        if 1 <= nal_type <= 5:  # a slice of a picture, 5 of an IDR picture
            return nal_type == 5
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
                # Clips are decoded in parallel; all cores for one frame are slower at these sizes.
                threads=1,
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
