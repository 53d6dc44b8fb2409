"""Predict the latest clip of a camera repeatedly; tested with video files, as no camera was at hand."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing

import numpy as np

from vswin.data.decoders import Camera
from vswin.data.transforms import center_crop, resize_short_side
from vswin.errors import InputError
from vswin.inference.model import Classifier, LoadedModel
from vswin.inference.results import Prediction, rank
from vswin.runtime import logger

# Ctrl-C takes effect between two waits.
_WAIT_SEC = 0.2


def predict_camera(
    loaded: LoadedModel, source: int | str, top_k: int, seconds: float | None
) -> Generator[Prediction, None, None]:
    """Predicts the latest clip whenever half of its frames are new, or as often as the model can.

    Clips are cropped at the centre and have the frame stride of the model. `source` is the number of the camera, or a
    file in place of a camera; `seconds` limits how long to watch, None watches until the caller stops or the stream
    ends.

    Raises:
        InputError: if there is no such camera, or it gives no frames.
    """
    clip = loaded.protocol.config.clip
    classify = Classifier(loaded)
    # Trace the model before the clock starts.
    classify(np.zeros((1, clip.num_frames, clip.crop, clip.crop, 3), np.uint8))
    offsets = clip.frame_stride * np.arange(clip.num_frames)  # [T]
    with closing(Camera(source)) as camera:
        logger.info(f"{camera.name}: Ctrl-C ends")
        with closing(_Recent(camera, clip.resize, int(offsets[-1]) + 1, seconds)) as recent:
            while recent.wait():
                frames, at = recent.latest()
                chosen = center_crop(frames[offsets % len(frames)], clip.crop)  # [T, crop, crop, 3]
                yield rank(camera.name, classify(chosen[None])[0], loaded.class_names, top_k, at)


class _Recent:
    """Keeps the latest frames of a camera; a thread reads them, so that a slow model leaves no gaps in a clip."""

    def __init__(self, camera: Camera, size: int, num_kept: int, seconds: float | None) -> None:
        self._camera = camera
        self._size = size
        self._seconds = seconds
        self._frames: deque[np.ndarray] = deque(maxlen=num_kept)
        self._num_new = 0
        self._at = 0.0
        self._is_over = False
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Waits for half a clip of new frames, or the end of the stream; returns whether there are new frames."""
        num_kept = self._frames.maxlen or 1
        with self._changed:
            while not self._is_over and (len(self._frames) < num_kept or 2 * self._num_new < num_kept):
                self._changed.wait(_WAIT_SEC)
            if not self._frames:
                raise InputError(f"{self._camera.name} gives no frames; unplug it, plug it in, and try again")
            return self._num_new > 0

    def latest(self) -> tuple[np.ndarray, float]:
        """Gives the latest frames, uint8 [n, H, W, 3], and the time of the last one, in seconds since the start."""
        with self._changed:
            self._num_new = 0
            return np.stack(self._frames), self._at  # [n, H, W, 3]

    def close(self) -> None:
        """Ends the thread, which may wait for one more frame."""
        with self._changed:
            self._is_over = True
        self._thread.join()

    def _read(self) -> None:
        while not self._is_over:
            frame = self._camera.read()
            at = time.monotonic() - self._started
            small = None if frame is None else resize_short_side(frame, self._size)
            with self._changed:
                if small is None or (self._seconds is not None and at > self._seconds):
                    self._is_over = True
                else:
                    self._frames.append(small)
                    self._num_new += 1
                    self._at = at
                self._changed.notify()
