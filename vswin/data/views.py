"""Turn one video file into what a model sees: the views of an evaluation or a random training clip.

No TensorFlow here: `load_views` is public and serves notebooks as well as `vswin.data.pipeline`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vswin.checks import check_clip
from vswin.config import AugmentConfig, ClipConfig
from vswin.data import sampling as frame_sampling
from vswin.data import transforms
from vswin.data.frames import FrameLoader


def load_views(
    path: str | Path,
    num_frames: int = 32,
    frame_stride: int = 2,
    num_clips: int = 4,
    num_crops: int = 3,
    resize: int = 224,
    crop: int = 224,
    sampling: str = "dense",
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
        sampling: "dense" takes clips, "segments" takes frames spread over the whole video.

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
        views_per_step=1,
    )
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
        if clip.sampling == "segments":
            return frame_sampling.segments(num_video_frames, clip.num_frames)
        clips = frame_sampling.uniform_clips(num_video_frames, clip.num_frames, clip.frame_stride, clip.num_clips)
        return clips.ravel()  # [num_clips*T]

    frames = loader.load(path, clip.resize, choose)
    cut = transforms.center_crop if clip.num_crops == 1 else transforms.three_crops
    crops = cut(frames, clip.crop)  # [num_crops, num_clips*T, H, W, 3]
    return crops.reshape(-1, clip.num_frames, clip.crop, clip.crop, 3)  # [V, T, H, W, 3]


def load_train_clip(
    path: str,
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    rng: np.random.Generator,
    loader: FrameLoader,
) -> np.ndarray:
    """Loads one randomly placed, cropped and flipped clip; one draw of each for all its frames.

    Args:
        path: Video file.
        clip: Frames and size of the clip.
        augment: Ranges of the random crop, and the share of flipped clips.
        allow_flip: Whether mirroring keeps the label; False draws no flip.
        rng: Source of all draws.
        loader: Reads the frames.

    Returns:
        Clip, uint8 [T, crop, crop, 3] RGB.

    Raises:
        DecodeError: If the file is not a usable video.

    Source: configs/recognition/swin/*.py, train_pipeline, up to Normalize.
    """

    def choose(num_video_frames: int) -> np.ndarray:
        if clip.sampling == "segments":
            return frame_sampling.segments(num_video_frames, clip.num_frames, rng)
        return frame_sampling.random_clip(num_video_frames, clip.num_frames, clip.frame_stride, rng)

    frames = loader.load(path, clip.resize, choose)
    height, width = frames.shape[1:3]
    box = transforms.random_resized_crop_box(height, width, augment.crop_area, augment.crop_aspect, rng)
    frames = transforms.resize(transforms.crop(frames, box), clip.crop, clip.crop)
    if allow_flip and rng.random() < augment.flip:
        return transforms.flip(frames)
    return frames
