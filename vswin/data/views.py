"""Turn one video file into what a model sees: the views of an evaluation or a random training clip.

No TensorFlow here: `load_views` is public and serves notebooks as well as `vswin.data.pipeline`.
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
    """Loads the views of a video whose predictions are averaged; the defaults are the official Kinetics test.

    Args:
        path: Video file.
        num_frames: Frames of a clip (T).
        frame_stride: File frames from one clip frame to the next; without meaning for "segments".
        num_clips: Clips, evenly spaced over the video; 1 for "segments".
        num_crops: 1 takes the centre, 3 the start, end and middle of the longer side.
        resize: Pixels of the shorter side before cropping.
        crop: Pixels of the square crop's side, at most `resize`.
        sampling: "dense" takes clips, "segments", once called "uniform", takes frames spread over the whole video.
        spacing: places dense clips "centred" in equal shares of the video, as officially, or "end_to_end", as
            mmaction2 1.x and SlowFast do.

    Returns:
        Views, uint8 [V, T, crop, crop, 3] RGB with V = num_clips * num_crops. View v is crop v // num_clips
        (left or top, right or bottom, middle) of clip v % num_clips.

    Raises:
        DecodeError: If the file is not a usable video.
        InputError: If the other arguments do not go together.
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
    """Loads the views of a video under a configured protocol that was checked, as `load_views` does.

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
    """Hold what is drawn for a clip; it is the same for all its frames.

    Attributes:
        box: What is cut out of the frames.
        is_flipped: Whether they are mirrored then.
        operations: What changes them last: colour jitter, then RandAugment.
    """

    box: Box
    is_flipped: bool
    operations: list[Operation]


class TrainClip(NamedTuple):
    """Hold the frames of a training clip and what is drawn to happen to them.

    Attributes:
        numbers: Numbers of the frames in the file, int64 [T].
        frames: The whole frames at `clip.resize`, uint8 [T, H, W, 3] RGB.
        changes: What is drawn for them.
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
    """Loads one randomly placed and changed clip, with one draw of everything for all its frames.

    What the training step changes on the device is not done here. `allow_flip` says whether mirroring keeps the label.
    A cache has frames at `clip.resize` pixels, so what is cut out of them has been resized twice, as officially; see
    `BoxCutter` for what is done without one. Whether a cache has room for a video makes no difference.

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
    """Loads the whole frames of a randomly placed clip and draws what happens to them, as `load_train_clip` does."""
    choose = partial(_draw_numbers, clip=clip, rng=rng)
    numbers, frames = loader.load_numbered(path, clip.resize, choose)
    height, width = frames.shape[1:3]
    box = random_resized_crop_box(height, width, augment.crop_area, augment.crop_aspect, rng)
    return TrainClip(numbers, frames, draw_changes(box, augment, allow_flip, rng))


def _cut_train_clip(
    reader: FrameReader, clip: ClipConfig, augment: AugmentConfig, allow_flip: bool, rng: np.random.Generator
) -> np.ndarray:
    """Cuts the box out of each frame as it is decoded; frames that are not asked for may be left undecoded."""
    numbers = _draw_numbers(reader.num_video_frames, clip, rng)
    cutter = BoxCutter(
        clip.resize,
        clip.crop,
        lambda height, width: random_resized_crop_box(height, width, augment.crop_area, augment.crop_aspect, rng),
    )
    boxes = reader.read(numbers, cutter, may_skip=True)  # [T, crop, crop, 3]; with the first one, the box is drawn
    return apply_changes(boxes, draw_changes(cutter.box, augment, allow_flip, rng))


def _draw_numbers(num_video_frames: int, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """Draws where a training clip lies: numbers of its frames, int64 [T]."""
    if clip.sampling == "segments":
        return frame_sampling.segments(num_video_frames, clip.num_frames, rng)
    return frame_sampling.random_clip(num_video_frames, clip.num_frames, clip.frame_stride, rng)


def draw_changes(box: Box, augment: AugmentConfig, allow_flip: bool, rng: np.random.Generator) -> ClipChanges:
    """Draws the changes of a clip whose box has just been drawn."""
    is_flipped = allow_flip and bool(rng.random() < augment.flip)
    operations = draw_color_jitter(augment.color_jitter, rng)
    operations += draw_rand_augment(augment.rand_augment, augment.rand_augment_ops, augment.rand_augment_magnitude, rng)
    return ClipChanges(box, is_flipped, operations)


def apply_changes(frames: np.ndarray, changes: ClipChanges) -> np.ndarray:
    """Applies changes to the box of every frame, cut out already and resized, uint8 [T, size, size, 3]."""
    if changes.is_flipped:
        frames = transforms.flip(frames)
    return apply_operations(frames, changes.operations)
