"""Choose the numbers of the frames that form a clip.

This module only computes integers; `vswin.data.views` reads the chosen frames. The rules are official, and the tests
compare every number with the official implementation. All counts are >= 1.
"""

from __future__ import annotations

import numpy as np


def random_clip(num_video_frames: int, num_frames: int, frame_stride: int, rng: np.random.Generator) -> np.ndarray:
    """Places one clip at random with a single draw, or at frame 0 if the video is shorter than the clip.

    The arguments are described in `uniform_clips`.

    Returns:
        Frame numbers, int64 [T], each in [0, num_video_frames).

    Source: mmaction/datasets/pipelines/loading.py, SampleFrames._get_train_clips.
    """
    num_starts = num_video_frames - num_frames * frame_stride + 1
    start = rng.integers(num_starts) if num_starts > 0 else 0
    numbers = start + frame_stride * np.arange(num_frames)
    return numbers % num_video_frames  # shorter videos loop


def uniform_clips(num_video_frames: int, num_frames: int, frame_stride: int, num_clips: int) -> np.ndarray:
    """Places evenly spaced clips, each in the middle of its equal part of the video.

    Args:
        num_video_frames: Frames in the file.
        num_frames: Frames of a clip (T).
        frame_stride: File frames from one clip frame to the next.
        num_clips: Clips per video.

    Returns:
        Frame numbers, int64 [num_clips, T], each in [0, num_video_frames).

    Source: mmaction/datasets/pipelines/loading.py, SampleFrames._get_test_clips.
    """
    num_starts = max(num_video_frames - num_frames * frame_stride + 1, 0)
    distance = num_starts / num_clips
    starts = (np.arange(num_clips) * distance + distance / 2).astype(np.int64)
    numbers = starts[:, None] + frame_stride * np.arange(num_frames)  # [num_clips, T]
    return numbers % num_video_frames  # shorter videos loop


def end_to_end_clips(num_video_frames: int, num_frames: int, frame_stride: int, num_clips: int) -> np.ndarray:
    """Spreads clips from the first frame to the last, as mmaction2 1.x and SlowFast test; a single clip is centred.

    The arguments are described in `uniform_clips`.

    Returns:
        Frame numbers, int64 [num_clips, T], each in [0, num_video_frames); a video shorter than a clip loops.

    Source: mmaction2 1.x datasets/transforms/loading.py, SampleFrames._get_test_clips.
    """
    # Unlike in the official sampler, a clip's span ends at its last frame: the stride after it does not count.
    last_start = max(num_video_frames - ((num_frames - 1) * frame_stride + 1), 0)
    starts = np.array([last_start // 2])
    if num_clips > 1:
        starts = np.round(np.arange(num_clips) * (last_start / (num_clips - 1))).astype(np.int64)
    numbers = starts[:, None] + frame_stride * np.arange(num_frames)  # [num_clips, T]
    return numbers % num_video_frames


def segments(num_video_frames: int, num_frames: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Divides the video into equal segments and takes one frame of each: the middle frame, or with `rng` a random one.

    Returns:
        Frame numbers, int64 [T], not decreasing, each in [0, num_video_frames).

    Source: mmaction/datasets/pipelines/loading.py, SampleFrames._get_seq_frames (Something-Something).
    """
    length = (num_video_frames - 1) / num_frames
    # np.round rounds halves to even, as the official code does.
    edges = np.round(length * np.arange(num_frames + 1)).astype(np.int64)
    if rng is None:
        return (edges[:-1] + edges[1:]) // 2
    return rng.integers(edges[:-1], edges[1:], endpoint=True)
