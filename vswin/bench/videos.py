"""Videos to measure with, where none are given: a textured scene under a moving camera, H.264 as data sets have it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from vswin.data.pyav_encoder import shrink_video
from vswin.errors import InputError

# Pixels of the shorter side, as in the usual copies of Kinetics.
_SHORT_SIDE = 256
_DRAWN = (640, 480)  # width and height before shrinking
_RATE = 25.0


@contextmanager
def videos_at(paths: Sequence[Path] | None, num_videos: int = 3, num_frames: int = 150) -> Iterator[list[str]]:
    """Gives the videos to measure with.

    Args:
        paths: those that are named; None makes some, which are gone afterwards.
        num_videos: how many.
        num_frames: of each.

    Yields:
        Their paths.

    Raises:
        InputError: if one that is named is no file.
    """
    if paths is None:
        with tempfile.TemporaryDirectory(prefix="vswin_bench_") as folder:
            yield [str(_make_video(Path(folder, f"{number}.mp4"), number, num_frames)) for number in range(num_videos)]
        return
    for path in paths:
        if not path.is_file():
            raise InputError(f"--videos {path}: there is no such file; name video files, or leave --videos out")
    yield [str(path) for path in paths]


def _make_video(path: Path, seed: int, num_frames: int) -> Path:
    """Draws a video and encodes it: coarse and fine texture that drifts, turns and comes nearer, and grain."""
    rng = np.random.default_rng(seed)
    width, height = _DRAWN
    scene = np.mean([_draw_texture(rng, cells) for cells in (6, 24, 96)], axis=0)  # [2W, 2W, 3]
    scene = np.clip(128 + 2 * (scene - 128), 0, 255).astype(np.uint8)
    raw = path.with_suffix(".avi")
    writer = cv2.VideoWriter(str(raw), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), _RATE, _DRAWN)
    for time in range(num_frames):
        turned = cv2.getRotationMatrix2D((width, width), 0.1 * time, 1 + 0.002 * time)
        moved = [[0, 0, 0.7 * time - width / 2], [0, 0, 0.4 * time - width + height / 2]]
        frame = cv2.warpAffine(scene, np.add(turned, moved), _DRAWN, borderMode=cv2.BORDER_REFLECT)  # [H, W, 3]
        grain = rng.integers(0, 9, (height, width, 1), np.uint8)
        writer.write(cv2.add(frame, np.repeat(grain, 3, axis=2)))
    writer.release()
    content = shrink_video(str(raw), _SHORT_SIDE)
    assert content is not None, "what is drawn is larger"
    path.write_bytes(content)
    raw.unlink()
    return path


def _draw_texture(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Draws random colours on a grid and blends them, uint8 [2W, 2W, 3] for frames of width W."""
    colours = rng.integers(0, 256, (cells, cells, 3), np.uint8)
    return cv2.resize(colours, (2 * _DRAWN[0], 2 * _DRAWN[0]), interpolation=cv2.INTER_CUBIC)
