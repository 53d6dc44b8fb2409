"""Encode videos as H.264, and re-encode them with fewer pixels, frame by frame, with PyAV, which includes libx264.

Called by packing, and by `vswin.inference` for annotated videos.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable
from fractions import Fraction
from functools import partial

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from vswin.data.decode import USUAL_RATE, VIDEO_FILES, VideoStore
from vswin.data.decoders import TimeLimit
from vswin.data.inspection import inspect_video
from vswin.errors import DecodeError

# Visually almost lossless.
ENCODING: dict[str, str | int] = {"codec": "libx264", "crf": 18, "preset": "medium", "pixels": "yuv420p"}
_CHUNK = 64
_TICK = Fraction(1, 90000)
_ROUNDING_SEC = 0.002  # rounding of the times in files


def shrink_video(path: str, short_side: int, store: VideoStore = VIDEO_FILES, decoder: str = "auto") -> bytes | None:
    """Re-encodes a video whose shorter side has more than `short_side` pixels, an even number.

    Frame n of the result is the reduced frame n of `VideoReader`, at the same rate: upright, without sound, in the
    colours that training would see. The longer side is rounded to an even number. `decoder` as in `VideoReader`.

    Returns:
        The bytes of an MP4 file; None if the video is already small enough.

    Raises:
        DecodeError: If the video cannot be read to its end.
    """
    with store.open(path, decoder) as reader:
        reader.read(np.array([0]), _corner)
        height, width = reader.frame_size
        if min(height, width) <= short_side:
            return None
        first_decoder = reader.decoder
        size = tuple(round(side * short_side / min(height, width) / 2) * 2 for side in (width, height))

        def read() -> Iterable[np.ndarray]:
            for start in range(0, reader.num_video_frames, _CHUNK):
                numbers = np.arange(start, min(start + _CHUNK, reader.num_video_frames))
                yield from reader.read(numbers, partial(_reduce, size=size))

        file = io.BytesIO()
        encode_video(file, read(), size, reader.frame_rate or USUAL_RATE)
        if reader.decoder != first_decoder:  # the two decoders may differ in colours, so one decodes everything
            return shrink_video(path, short_side, store, reader.decoder)
    content = file.getvalue()
    num_frames = inspect_video(path, TimeLimit(path, None), content).num_video_frames
    if num_frames != reader.num_video_frames:
        raise DecodeError(path, "not re-encodable", f"{num_frames} of {reader.num_video_frames} frames came out")
    return content


def _corner(frame: np.ndarray) -> np.ndarray:
    return frame[:1, :1]


def _reduce(frame: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def encode_video(
    file: str | io.BytesIO,
    frames: Iterable[np.ndarray],
    size: tuple[int, ...],
    rate: Fraction,
    preset: str = str(ENCODING["preset"]),
    num_threads: int = 1,
    times: np.ndarray | None = None,
) -> None:
    """Encodes frames as an MP4 file, visually almost lossless.

    Args:
        file: Output path or memory buffer.
        frames: uint8 [H, W, 3] RGB each.
        size: Pixels (W, H). An odd side needs full colour resolution (4:4:4); the usual format halves it.
        rate: Frames per second.
        preset: x264 preset; a faster one makes a larger file of the same quality.
        num_threads: Encoding threads; 1 if several videos are encoded in parallel, 0 for all cores.
        times: Display times of the frames in seconds, float64 [n]; if None, NaN or not increasing, `rate` gives them.
    """
    # FFmpeg would read "12:30.mp4" as a protocol.
    target = os.path.abspath(file) if isinstance(file, str) else file
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream(
            str(ENCODING["codec"]),
            rate=rate,
            options={"crf": str(ENCODING["crf"]), "preset": preset},
        )
        stream.width, stream.height = size
        is_even = all(side % 2 == 0 for side in size)
        stream.pix_fmt = str(ENCODING["pixels"]) if is_even else "yuv444p"
        stream.thread_count = num_threads
        tick = 1 / rate
        stamps: Iterable[int] = itertools.count()
        if times is not None and np.diff(times).min() > 0 and np.ptp(np.diff(times)) > _ROUNDING_SEC:
            stream.codec_context.time_base = tick = _TICK
            stamps = (round(time / _TICK) for time in times.tolist())
        for image, stamp in zip(frames, stamps, strict=False):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format=stream.pix_fmt, dst_colorspace=Colorspace.ITU601, interpolation=Interpolation.BICUBIC
            )
            frame.pts, frame.time_base = stamp, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
