"""Turn one video file into what a model sees: the views of an evaluation or a random training clip.

No TensorFlow here: `load_views` is public and serves notebooks as well as `vswin.data.pipeline`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vswin.checks import check_clip, check_numbers
from vswin.data import sampling as frame_sampling
from vswin.data import transforms
from vswin.data.clip_changes import BoxDraw, ClipChanges, apply_changes, draw_changes
from vswin.data.frames import FrameLoader
from vswin.schema import AugmentConfig, ClipConfig


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
    check_numbers(clip)
    check_clip(clip)
    return load_protocol_views(path, clip, FrameLoader())


def load_protocol_views(path: str | Path, clip: ClipConfig, loader: FrameLoader) -> np.ndarray:
    """Loads the views of a video under a configured protocol, as `load_views` does.

    Args:
        path: Video file.
        clip: The protocol, checked.
        loader: Reads the frames.

    Returns:
        Views, uint8 [V, T, crop, crop, 3] RGB, ordered as by `load_views`.

    Raises:
        DecodeError: If the file is not a usable video.

    Source: configs/recognition/swin/*.py, val_pipeline and test_pipeline, up to Normalize.
    """

    def choose(num_video_frames: int) -> np.ndarray:
        return protocol_frames(num_video_frames, clip).ravel()  # [num_clips*T]

    frames = loader.load(path, clip.resize, choose)
    cut = transforms.center_crop if clip.num_crops == 1 else transforms.three_crops
    crops = cut(frames, clip.crop)  # [num_crops, num_clips*T, H, W, 3]
    return crops.reshape(-1, clip.num_frames, clip.crop, clip.crop, 3)  # [V, T, H, W, 3]


def protocol_frames(num_video_frames: int, clip: ClipConfig) -> np.ndarray:
    """Chooses the frames of the clips of a video under a configured protocol.

    Args:
        num_video_frames: Frames in the file, >= 1.
        clip: The protocol, checked.

    Returns:
        Frame numbers, int64 [num_clips, T], each in [0, num_video_frames).
    """
    if clip.sampling == "segments":
        return frame_sampling.segments(num_video_frames, clip.num_frames)[None]  # [1, T]
    place = frame_sampling.end_to_end_clips if clip.spacing == "end_to_end" else frame_sampling.uniform_clips
    return place(num_video_frames, clip.num_frames, clip.frame_stride, clip.num_clips)


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


def draw_train_clip(
    path: str,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    loader: FrameLoader,
) -> TrainClip:
    """Loads the whole frames of a randomly placed clip and draws what happens to them, as `load_train_clip` does.

    Args:
        path: Video file.
        clip: Frames and size of the clip.
        augment: Random changes.
        allow_flip: Whether mirroring keeps the label; False draws no flip.
        rng: Source of all draws.
        loader: Reads the frames.

    Returns:
        The clip, nothing of it changed yet.

    Raises:
        DecodeError: If the file is not a usable video.
    """
    numbers = np.empty(0, np.int64)

    def choose(num_video_frames: int) -> np.ndarray:
        nonlocal numbers
        numbers = _draw_numbers(num_video_frames, clip, rng)
        return numbers

    frames = loader.load(path, clip.resize, choose)
    height, width = frames.shape[1:3]
    return TrainClip(numbers, frames, draw_changes(height, width, augment, allow_flip, rng))


def load_train_clip(
    path: str,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    loader: FrameLoader,
) -> np.ndarray:
    """Loads one randomly placed and changed clip; one draw of everything for all its frames.

    Args:
        path: Video file.
        clip: Frames and size of the clip.
        augment: Random changes; those of the training step are not applied here.
        allow_flip: Whether mirroring keeps the label; False draws no flip.
        rng: Source of all draws.
        loader: Reads the frames.

    Returns:
        Clip, uint8 [T, crop, crop, 3] RGB.

    Raises:
        DecodeError: If the file is not a usable video.

    Source: configs/recognition/swin/*.py, train_pipeline, up to Normalize; but for its first resize, see `BoxCutter`.
    """

    def plan(num_video_frames: int) -> tuple[np.ndarray, BoxDraw]:
        numbers = _draw_numbers(num_video_frames, clip, rng)
        return numbers, BoxDraw(augment, rng)

    boxes, (height, width) = loader.load_boxes(path, clip.resize, clip.crop, plan)
    return apply_changes(boxes, draw_changes(height, width, augment, allow_flip, rng))


def _draw_numbers(num_video_frames: int, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """Draws where a training clip lies: numbers of its frames, int64 [T]."""
    if clip.sampling == "segments":
        return frame_sampling.segments(num_video_frames, clip.num_frames, rng)
    return frame_sampling.random_clip(num_video_frames, clip.num_frames, clip.frame_stride, rng)
