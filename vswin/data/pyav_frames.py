"""Convert the frames that PyAV decodes to the pixels that OpenCV would give, but for colours that OpenCV gets wrong."""

from __future__ import annotations

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
        """Gives a frame upright, as OpenCV does, but for its matrix and range; BT.601 where none is named.

        Args:
            frame: In any format, of H x W pixels when upright.

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
        image = rows[:, : 3 * converted.width].reshape(converted.height, converted.width, 3)  # [H, W, 3]
        return np.rot90(image, frame.rotation // 90) if frame.rotation % 90 == 0 else image


def _without_hints(frame: av.VideoFrame) -> av.VideoFrame:
    """Copies pixels alone. Newer FFmpegs would look at fields and at the places of colour samples, OpenCV's not."""
    plain = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, plain.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)  # [rows, bytes]
        copied = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)  # [rows, bytes]
        length = min(source.line_size, target.line_size)
        copied[:, :length] = rows[:, :length]
    return plain
