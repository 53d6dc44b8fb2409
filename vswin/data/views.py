"""Turn one video file into model input: the views of an evaluation or a random training clip.

This module does not use TensorFlow: `load_views` is public, for notebooks as well as for `vswin.data.pipeline`.
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
from vswin.data.augment import Operation, apply_operations, draw_color_jitter, draw_rand_augment
from vswin.data.frames import FrameLoader
from vswin.data.stores import FrameReader
from vswin.data.transforms import Box, BoxCutter, random_resized_crop_box


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


def load_protocol_views(path: str | Path, clip: ClipConfig, loader: FrameLoader) -> np.ndarray:
    """Loads the views of a video with a protocol that is already checked, as `load_views` does.

    Source: configs/recognition/swin/*.py, val_pipeline and test_pipeline, up to Normalize.
    """
    frames = loader.load(path, clip.resize, lambda num_frames: protocol_frames(num_frames, clip).ravel())
    cut = transforms.center_crop if clip.num_crops == 1 else transforms.three_crops
    crops = cut(frames, clip.crop)  # [num_crops, num_clips*T, H, W, 3]
    return crops.reshape(-1, clip.num_frames, clip.crop, clip.crop, 3)  # [V, T, H, W, 3]


def protocol_frames(num_video_frames: int, clip: ClipConfig) -> np.ndarray:
    """Chooses the frames of the clips of a video: int64 [num_clips, T], each in [0, num_video_frames)."""
    if clip.sampling == "segments":
        return frame_sampling.segments(num_video_frames, clip.num_frames)[None]  # [1, T]
    choose = frame_sampling.end_to_end_clips if clip.spacing == "end_to_end" else frame_sampling.uniform_clips
    return choose(num_video_frames, clip.num_frames, clip.frame_stride, clip.num_clips)


class ClipChanges(NamedTuple):
    """The drawn augmentations of a clip, the same for all its frames.

    Attributes:
        box: The rectangle to cut out of the frames.
        is_flipped: Whether the cut frames are mirrored.
        operations: The last changes: colour jitter, then RandAugment.
    """

    box: Box
    is_flipped: bool
    operations: list[Operation]


class TrainClip(NamedTuple):
    """The frames of a training clip and the changes drawn for them.

    Attributes:
        numbers: Frame numbers in the file, int64 [T].
        frames: The whole frames at `clip.resize`, uint8 [T, H, W, 3] RGB.
        changes: The drawn changes, not yet applied.
    """

    numbers: np.ndarray
    frames: np.ndarray
    changes: ClipChanges


def load_train_clip(
    path: str,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    loader: FrameLoader,
) -> np.ndarray:
    """Loads one randomly placed and augmented clip, with the same draws for all its frames.

    Changes that the training step makes on the device are not included. `allow_flip` states whether mirroring keeps the
    label. With a cache, whose frames have `clip.resize` pixels, crops are resized twice, as in the official pipeline,
    even if the cache has no room for this video. Without a cache, see `BoxCutter`.

    Returns:
        Clip, uint8 [T, crop, crop, 3] RGB.

    Raises:
        DecodeError: If the file is not a usable video.

    Source: configs/recognition/swin/*.py, train_pipeline, up to Normalize.
    """
    if not loader.has_cache:
        job = partial(_cut_train_clip, clip=clip, augment=augment, allow_flip=allow_flip, rng=rng)
        return loader.run(path, job)
    drawn = draw_train_clip(path, clip, augment, allow_flip, rng, loader)
    boxes = transforms.resize(transforms.crop(drawn.frames, drawn.changes.box), clip.crop, clip.crop)
    return apply_changes(boxes, drawn.changes)


def draw_train_clip(
    path: str,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    loader: FrameLoader,
) -> TrainClip:
    """Loads the whole frames of a randomly placed clip and draws their changes, as `load_train_clip` does."""
    choose = partial(_draw_numbers, clip=clip, rng=rng)
    numbers, frames = loader.load_numbered(path, clip.resize, choose)
    height, width = frames.shape[1:3]
    box = random_resized_crop_box(height, width, augment.crop_area, augment.crop_aspect, rng)
    return TrainClip(numbers, frames, draw_changes(box, augment, allow_flip, rng))


def _cut_train_clip(
    reader: FrameReader, clip: ClipConfig, augment: AugmentConfig, allow_flip: bool, rng: np.random.Generator
) -> np.ndarray:
    """Cuts the box out of each frame as it is decoded; frames that are not requested may be skipped."""
    numbers = _draw_numbers(reader.num_video_frames, clip, rng)
    cutter = BoxCutter(
        clip.resize,
        clip.crop,
        lambda height, width: random_resized_crop_box(height, width, augment.crop_area, augment.crop_aspect, rng),
    )
    boxes = reader.read(numbers, cutter, may_skip=True)  # [T, crop, crop, 3]; the first frame draws the box
    return apply_changes(boxes, draw_changes(cutter.box, augment, allow_flip, rng))


def _draw_numbers(num_video_frames: int, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """Draws the frame numbers of a training clip, int64 [T]."""
    if clip.sampling == "segments":
        return frame_sampling.segments(num_video_frames, clip.num_frames, rng)
    return frame_sampling.random_clip(num_video_frames, clip.num_frames, clip.frame_stride, rng)


def draw_changes(box: Box, augment: AugmentConfig, allow_flip: bool, rng: np.random.Generator) -> ClipChanges:
    """Draws the changes of a clip after its box."""
    is_flipped = allow_flip and bool(rng.random() < augment.flip)
    operations = draw_color_jitter(augment.color_jitter, rng)
    operations += draw_rand_augment(augment.rand_augment, augment.rand_augment_ops, augment.rand_augment_magnitude, rng)
    return ClipChanges(box, is_flipped, operations)


def apply_changes(frames: np.ndarray, changes: ClipChanges) -> np.ndarray:
    """Applies changes to frames that are already cut out and resized, uint8 [T, size, size, 3]."""
    if changes.is_flipped:
        frames = transforms.flip(frames)
    return apply_operations(frames, changes.operations)
