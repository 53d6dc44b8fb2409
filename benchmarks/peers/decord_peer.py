"""decord with the transforms of mmaction2's training pipeline in NumPy and OpenCV, on one thread; see `protocol.py`.

A random clip of `num_frames` frames with stride 2, short side 256, a random resized crop (area 8 to 100 %, 3/4 to 4/3)
to `size` x `size`, a flip with probability 1/2. Clips stay uint8, as vswin normalises them on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import decord
import numpy as np
from protocol import Case, serve

# The number of clips that `vswin.tools.bench_input` times.
NUM_CLIPS = 36
FRAME_STRIDE, SHORT_SIDE = 2, 256


def build(case: Case) -> Callable[[], object]:
    """Makes a function that loads clips from each video in turn."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)

    def load_clips() -> None:
        for number in range(NUM_CLIPS):
            load_clip(case.videos[number % len(case.videos)], case, rng)

    return load_clips


def load_clip(path: str, case: Case, rng: np.random.Generator) -> np.ndarray:
    """Loads one training clip, uint8 [T, H, W, 3] RGB."""
    reader = decord.VideoReader(path, num_threads=1)
    span = case.num_frames * FRAME_STRIDE
    start = rng.integers(0, max(len(reader) - span + 1, 1))
    numbers = (start + FRAME_STRIDE * np.arange(case.num_frames)) % len(reader)
    frames = list(reader.get_batch(numbers).asnumpy())
    height, width = frames[0].shape[:2]
    scale = SHORT_SIDE / min(height, width)
    width, height = round(width * scale), round(height * scale)
    frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames]
    left, top, crop_width, crop_height = draw_box(width, height, rng)
    frames = [frame[top : top + crop_height, left : left + crop_width] for frame in frames]
    frames = [cv2.resize(frame, (case.size, case.size), interpolation=cv2.INTER_LINEAR) for frame in frames]
    if rng.random() < 0.5:
        frames = [cv2.flip(frame, 1) for frame in frames]
    return np.stack(frames)


def draw_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws a box of random area and shape: left, top, width, height."""
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * width * height
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if crop_width <= width and crop_height <= height:
            left, top = rng.integers(0, width - crop_width + 1), rng.integers(0, height - crop_height + 1)
            return int(left), int(top), crop_width, crop_height
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


if __name__ == "__main__":
    serve(build, ["decord", "opencv-python-headless", "numpy"])
