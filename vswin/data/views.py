"""Turn one video into model input: the views of an evaluation or a random training clip.

The path of a clip: frame numbers (`vswin.data.sampling`), decoded frames (`vswin.data.frames`), crops and colours
(`vswin.data.transforms`, `vswin.data.augment`). This module does not use TensorFlow.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vswin.config.checks import check_clip, check_values
from vswin.config.schema import AugmentConfig, ClipConfig
from vswin.data import sampling as frame_sampling
from vswin.data import transforms
from vswin.data.augment import apply_operations, draw_color_jitter, draw_rand_augment
from vswin.data.decode import FrameReader
from vswin.data.frames import FrameLoader
from vswin.data.samples import WHOLE, Part
from vswin.data.transforms import Box, BoxCutter


def load_views(
    path: str | Path,
    num_frames: int = 32,
    frame_stride: int = 2,
    num_clips: int = 4,
    num_crops: int = 3,
    resize: int = 224,
    crop: int = 224,
    sampling: str = "dense",
    spacing: str = "centred",
) -> np.ndarray:
    """Loads the views of a video; predictions are averaged over them. The defaults are the official Kinetics test.

    Args:
        path: Video file.
        num_frames: Frames of a clip (T).
        frame_stride: File frames from one clip frame to the next; unused for "segments".
        num_clips: Number of clips, evenly spaced over the video; 1 for "segments".
        num_crops: 1 takes the centre; 3 takes the start, end and middle of the longer side.
        resize: Pixels of the shorter side before cropping.
        crop: Pixels of the square crop's side, at most `resize`.
        sampling: "dense" takes clips; "segments", formerly "uniform", takes frames spread over the whole video.
        spacing: "centred" places each dense clip in the middle of an equal part of the video, as the official test
            does; "end_to_end" spaces them as mmaction2 1.x and SlowFast do.

    Returns:
        Views, uint8 [V, T, crop, crop, 3] RGB with V = num_clips * num_crops. View v is crop v // num_clips
        (left or top, right or bottom, middle) of clip v % num_clips.

    Raises:
        DecodeError: If the file is not a usable video.
        InputError: If the other arguments are invalid or contradict each other.
    """
    clip = ClipConfig(
        num_frames=num_frames,
        frame_stride=frame_stride,
        resize=resize,
        crop=crop,
        num_clips=num_clips,
        num_crops=num_crops,
        sampling=sampling,
        spacing=spacing,
        views_per_step=1,
    )
    check_values(clip)
    check_clip(clip)
    return load_protocol_views(path, clip, FrameLoader())


def load_protocol_views(path: str | Path, clip: ClipConfig, loader: FrameLoader, part: Part = WHOLE) -> np.ndarray:
    """Loads the views of a video, or of a part of it, with a protocol that is already checked, as `load_views` does.

    Source: configs/recognition/swin/*.py, val_pipeline and test_pipeline, up to Normalize.
    """
    frames = loader.load(path, clip.resize, lambda num_frames: protocol_frames(num_frames, clip).ravel(), part)
    cut = transforms.center_crop if clip.num_crops == 1 else transforms.three_crops
    crops = cut(frames, clip.crop)  # [num_crops, num_clips*T, H, W, 3]
    return crops.reshape(-1, clip.num_frames, clip.crop, clip.crop, 3)  # [V, T, H, W, 3]


def protocol_frames(num_video_frames: int, clip: ClipConfig) -> np.ndarray:
    """Chooses the frames of the clips of a video: int64 [num_clips, T], each in [0, num_video_frames)."""
    if clip.sampling == "segments":
        return frame_sampling.segments(num_video_frames, clip.num_frames)[None]  # [1, T]
    choose = frame_sampling.end_to_end_clips if clip.spacing == "end_to_end" else frame_sampling.uniform_clips
    return choose(num_video_frames, clip.num_frames, clip.frame_stride, clip.num_clips)


class TrainClip(NamedTuple):
    """A training clip and how it was made.

    Attributes:
        pixels: The clip, uint8 [T, crop, crop, 3] RGB.
        numbers: Frame numbers in the part of the video, int64 [T].
        box: The rectangle that was cut out of the frames, whose shorter side has `clip.resize` pixels.
        changes: The changes after the crop, in words, e.g. "mirrored".
    """

    pixels: np.ndarray
    numbers: np.ndarray
    box: Box
    changes: list[str]


def load_train_clip(
    path: str,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    loader: FrameLoader,
    part: Part = WHOLE,
) -> TrainClip:
    """Loads one randomly placed and augmented clip of a part of a video, with the same draws for all its frames.

    Changes that the training step makes on the device are not included. `allow_flip` states whether mirroring keeps the
    label. With a cache, whose frames have `clip.resize` pixels, crops are resized twice, as in the official pipeline,
    even if the cache has no room for this video. Without a cache, see `BoxCutter`.

    Raises:
        DecodeError: If the file is not a usable video.

    Source: configs/recognition/swin/*.py, train_pipeline, up to Normalize.
    """
    make_clip = partial(
        _make_train_clip, clip=clip, augment=augment, allow_flip=allow_flip, rng=rng, resizes_first=loader.has_cache
    )
    return loader.run(path, clip.resize, make_clip, part)


def _make_train_clip(
    reader: FrameReader,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    resizes_first: bool,
) -> TrainClip:
    """Makes a training clip of an open video, in the process that decodes it."""
    if clip.sampling == "segments":
        numbers = frame_sampling.segments(reader.num_video_frames, clip.num_frames, rng)
    else:
        numbers = frame_sampling.random_clip(reader.num_video_frames, clip.num_frames, clip.frame_stride, rng)
    # The first frame draws the box. Each frame is cut as soon as it is decoded; other frames may be skipped.
    cutter = BoxCutter(clip.resize, clip.crop, augment.crop_area, augment.crop_aspect, rng, resizes_first)
    pixels = reader.read(numbers, cutter, may_skip=not resizes_first)  # [T, crop, crop, 3]
    changes = []
    if allow_flip and rng.random() < augment.flip:
        pixels = transforms.flip(pixels)
        changes.append("mirrored")
    operations = draw_color_jitter(augment.color_jitter, rng)
    operations += draw_rand_augment(augment.rand_augment, augment.rand_augment_ops, augment.rand_augment_magnitude, rng)
    changes += [operation.text for operation in operations]
    return TrainClip(apply_operations(pixels, operations), numbers, cutter.box, changes)
