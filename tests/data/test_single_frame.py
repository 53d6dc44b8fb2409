"""Tests that only motion separates the classes of the motion data set."""

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
    """After an epoch a model separates most real clips (tests/test_motion_end_to_end.py), but not repeated frames."""
    prepare_motion(tmp_path / "videos")
    for video in (tmp_path / "videos").rglob("*.avi"):
        freeze(video, tmp_path / "frozen" / video.relative_to(tmp_path / "videos"))
    config = compose_train("epochs=1", f"output_dir={tmp_path / 'run'}")
    # As a folder data set, since `motion` only accepts videos it has made.
    frozen = dataclasses.replace(config.dataset, name="folder", root=str(tmp_path / "frozen"))
    history = run_training(dataclasses.replace(config, dataset=frozen))
    assert len(history["val_top1"]) == config.epochs
    assert max(history["val_top1"]) <= 1.5 * CHANCE
