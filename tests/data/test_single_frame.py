"""Tests that the motion data set is about motion alone."""

import dataclasses
from pathlib import Path

import cv2
import pytest

from vswin.data.motion import MOTIONS, prepare_motion
from vswin.training.run import run_training

CHANCE = 1 / len(MOTIONS)


def freeze(video: Path, copy: Path) -> None:
    """Writes a video that repeats one frame of another, encoded alike."""
    reader = cv2.VideoCapture(str(video))
    frames = []
    while (frame := reader.read()[1]) is not None:
        frames.append(frame)
    copy.parent.mkdir(parents=True, exist_ok=True)
    size = frames[0].shape[1], frames[0].shape[0]
    quality = (cv2.VIDEOWRITER_PROP_QUALITY, 100)
    writer = cv2.VideoWriter(str(copy), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size, quality)
    for _ in frames:
        writer.write(frames[len(frames) // 2])
    writer.release()


@pytest.mark.slow
def test_one_frame_does_not_give_the_motion_away(tmp_path, compose_train):
    """An epoch, after which most clips are told apart, leaves a model near chance where each repeats one frame.

    What that epoch is worth on the clips themselves is tested in tests/test_motion_end_to_end.py.
    """
    prepare_motion(tmp_path / "videos")
    for video in (tmp_path / "videos").rglob("*.avi"):
        freeze(video, tmp_path / "frozen" / video.relative_to(tmp_path / "videos"))
    config = compose_train("epochs=1", f"output_dir={tmp_path / 'run'}")
    # As a folder data set, since `motion` would not take videos it has not made.
    frozen = dataclasses.replace(config.dataset, name="folder", root=str(tmp_path / "frozen"))
    history = run_training(dataclasses.replace(config, dataset=frozen))
    assert len(history["val_top1"]) == config.epochs
    assert max(history["val_top1"]) <= 1.5 * CHANCE
