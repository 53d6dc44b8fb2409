"""Predict the latest clip of a camera repeatedly; tested with video files, as no camera was at hand."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing

import numpy as np

from vswin.data.decoders import Camera
from vswin.data.transforms import center_crop, resize_short_side
from vswin.errors import InputError
from vswin.inference.model import LoadedModel, make_classifier
from vswin.runtime import logger

_WAIT_SEC = 0.01  # between two looks for new frames


def watch_camera(
    loaded: LoadedModel, source: int | str, seconds: float | None
) -> Generator[tuple[float, np.ndarray], None, None]:
    """Predicts the latest clip whenever half of its frames are new, or as often as the model can.

    Clips are cropped at the centre and have the frame stride of the model. `source` is the number of the camera, or a
    file in place of a camera; `seconds` limits how long to watch, None watches until the caller stops or the stream
    ends.

    Yields:
        The time of a clip's last frame in seconds since the start, and probabilities, float32 [K].

    Raises:
        InputError: if there is no such camera, or it gives no frames.
    """
    clip = loaded.protocol.config.clip
    classify = make_classifier(loaded)
    # Trace the model before the clock starts.
    classify(np.zeros((1, clip.num_frames, clip.crop, clip.crop, 3), np.uint8))
    offsets = clip.frame_stride * np.arange(clip.num_frames)  # [T]
    num_kept = int(offsets[-1]) + 1
    latest: deque[tuple[int, float, np.ndarray]] = deque(maxlen=num_kept)  # number from 1, time, [H, W, 3]
    is_over = threading.Event()
    with closing(Camera(source)) as camera:
        logger.info(f"{camera.name}: Ctrl-C ends")
        # A thread reads, so that a slow model leaves no gaps in a clip.
        arguments = (camera, clip.resize, seconds, latest, is_over)
        reader = threading.Thread(target=_read_frames, args=arguments, daemon=True)
        reader.start()
        try:
            num_used = 0
            while True:
                was_over = is_over.wait(_WAIT_SEC)
                frames = list(latest)
                num_new = frames[-1][0] - num_used if frames else 0
                if num_new and (was_over or (len(frames) == num_kept and 2 * num_new >= num_kept)):
                    num_used += num_new
                    stacked = np.stack([frames[offset % len(frames)][2] for offset in offsets])  # [T, H, W, 3]
                    yield frames[-1][1], classify(center_crop(stacked, clip.crop)[None])[0]
                elif was_over and num_used == 0:
                    raise InputError(f"{camera.name} gives no frames; unplug it, plug it in, and try again")
                elif was_over:
                    return
        finally:
            # The thread may wait for one more frame.
            is_over.set()
            reader.join()


def _read_frames(
    camera: Camera,
    size: int,
    seconds: float | None,
    latest: deque[tuple[int, float, np.ndarray]],
    is_over: threading.Event,
) -> None:
    started = time.monotonic()
    try:
        for number in itertools.count(1):
            frame = camera.read()
            at = time.monotonic() - started
            if is_over.is_set() or frame is None or (seconds is not None and at > seconds):
                break
            latest.append((number, at, resize_short_side(frame, size)))
    finally:
        is_over.set()
