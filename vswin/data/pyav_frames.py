"""What the pictures of a video are like: how many, how large and how turned, from its packets; and their pixels.

The frames that PyAV decodes become the pixels that OpenCV would give, but for colours that OpenCV gets wrong.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from vswin.data.decode_error import DecodeError

# Colour matrices other than BT.601, by their numbers in H.273, and what FFmpeg converts them with. It has no
# conversion of constant luminance (10), and the official reader takes it for the usual BT.2020, too.
_BT2020, _BT2020_CONSTANT_LUMINANCE = 9, 10
_OTHER_MATRICES = {1: 1, 4: 4, 7: 7, _BT2020: _BT2020, _BT2020_CONSTANT_LUMINANCE: _BT2020}
_FULL_RANGE = 2
# Clips are decoded in parallel. PyAV converts on all cores since 17, which costs more than it gains at these sizes.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
# Parameter sets hold the size of pictures. They follow a start code, or a length below 256, and end before two zeros.
_PARAMETER_SETS = {
    "h264": re.compile(rb"\0\0(?:\x01|\0.)[\x27\x47\x67](.{4,80}?)\0\0", re.DOTALL),
    "hevc": re.compile(rb"\0\0(?:\x01|\0.)\x42\x01(.{24,80}?)\0\0", re.DOTALL),
}
_MPEG4_PICTURE = b"\0\0\1\xb6"
# "Not coded" pictures of MPEG-4 are a header of 6 bytes, 7 at most, or the single byte 0x7f.
_MOST_NOT_CODED_BYTES = 7
_VP8_SHOWN = 0x10
Matrix = tuple[int, int, int, int]


def has_other_colours(codec: av.VideoCodecContext) -> bool:
    """Says whether a file says of its colours what OpenCV does not look at, so that OpenCV's would be wrong."""
    pixels = codec.pix_fmt or ""
    # Those called yuvj have the full range, and OpenCV knows that.
    is_full_range = codec.color_range == _FULL_RANGE and pixels.startswith("yuv") and not pixels.startswith("yuvj")
    return is_full_range or codec.colorspace in _OTHER_MATRICES


class FrameConverter:
    """Converts the frames of one video. What it sets up for a size and format serves all frames that have them."""

    def __init__(self, path: str) -> None:
        """Takes the name of the video, for errors."""
        self._path = path
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Gives a frame as OpenCV does, but for its matrix and range; BT.601 where none is named.

        Args:
            frame: In any format.

        Returns:
            uint8 [H, W, 3] BGR; rows may be apart in memory.

        Raises:
            DecodeError: If its colours cannot be converted.

        Source: FFmpeg 4, libavfilter/vf_scale.c, scale_frame, which the official reader converts with.
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
    """Copies pixels alone. Newer FFmpegs would look at fields and at the places of colour samples, OpenCV's not."""
    plain = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, plain.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)  # [rows, bytes]
        copied = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)  # [rows, bytes]
        length = min(source.line_size, target.line_size)
        copied[:, :length] = rows[:, :length]
    return plain


class PacketPictures:
    """Looks at the packets of a video stream, one after the other.

    Attributes:
        matrix: a, b, c, d of the display matrix, which sends the point (x, y) of a picture to (ax + cy, bx + dy).
        pixel_formats: Those of the pictures. OpenCV knows the first, and gives garbage for others without an error.
    """

    def __init__(self, path: str, codec: av.VideoCodecContext) -> None:
        """Takes the decoder of the stream, not opened yet.

        Args:
            path: The file.
            codec: Has decoded some pictures afterwards; flush it before it decodes others.
        """
        self.matrix: Matrix | None = None
        self.pixel_formats: set[str | None] = set()
        self._path = path
        self._codec = codec
        self._counts: list[int] = []  # pictures in each packet to be shown
        self._size: tuple[int, int] | None = None
        self._parameters = b""

    def add(self, packet: av.Packet) -> None:
        """Looks at the next packet.

        Raises:
            DecodeError: If pictures change their size: OpenCV would repeat the last one of the first size.
        """
        if not packet.is_discard:
            self._counts.append(self._count(memoryview(packet)))
        if (self._size is None or packet.is_keyframe) and self._pass_through(packet):
            self.pixel_formats.add(self._codec.pix_fmt)
            size = (self._codec.height, self._codec.width)
            self._size = self._size or size
            if size != self._size:
                raise DecodeError(self._path, "frame size changes", f"{self._size} to {size}")

    def find_repeats(self) -> list[int]:
        """Lists the frames that show the picture of the frame before, as their packets hold none.

        The official reader counts packets. In MPEG-4 a missing picture is missing where its packet is; VP8 has pictures
        that are never shown, and the official reader gives the others one after the other.
        """
        missing = np.arange(1, len(self._counts) + 1) - np.cumsum(self._counts)  # [frames]
        if self._codec.name == "vp8":
            return list(range(len(missing) - max(missing[-1], 0), len(missing)))
        # A packed bitstream has two pictures in a packet, and none in the next one.
        pictures = np.arange(len(missing)) - np.maximum.accumulate(np.maximum(missing, 0))  # [frames]
        return (np.flatnonzero(np.diff(np.maximum(pictures, 0)) == 0) + 1).tolist()

    def _count(self, content: memoryview) -> int:
        if self._codec.name == "vp8":
            return int(content[0] & _VP8_SHOWN > 0)
        if self._codec.name == "mpeg4":
            return 0 if len(content) <= _MOST_NOT_CODED_BYTES else max(bytes(content).count(_MPEG4_PICTURE), 1)
        return 1

    def _pass_through(self, packet: av.Packet) -> bool:
        """Lets the decoder see the size in a packet, decoding no more than it takes; says whether it has."""
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
            if not frames and len(self._counts) == 1 and packet.is_keyframe:  # it waits for others, to order them
                frames = self._codec.decode(None)
                self._codec.flush_buffers()
        if self._size is None and frames:
            matrix: Any = frames[0].side_data.get("DISPLAYMATRIX")
            if matrix is not None:
                a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32)[:5].tolist()
                self.matrix = (a, b, c, d)
        return self._size is not None or len(frames) > 0


def turn_upright(image: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """Turns and mirrors an image [H, W, 3] as players do, but for angles between those at which pixels stay whole."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if 57 * min(abs(a), abs(c)) > max(abs(a), abs(c)):  # more than a degree from the axes
        return image
    if abs(c) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b  # [W, H, 3]
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
