"""Tests that the motion data set is about motion: the recipe learns it, and learns nothing from one frame."""

import dataclasses
from pathlib import Path

import cv2
import pytest

from vswin.data.motion import MOTIONS, prepare_motion
from vswin.training.run import run_training

CHANCE = 1 / len(MOTIONS)
# Small steps, many of them: a network this small is quick to leave chance and does not fall back.
RECIPE = (
    "epochs=3",
    "batch_size=16",
    "model.learning_rate=1e-3",
    "optimizer.clip_norm=1.0",
    "optimizer.warmup_epochs=0.5",
)


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
def test_motion_is_learnt_from_clips_and_not_from_single_frames(tmp_path, compose_train):
    prepare_motion(tmp_path / "videos")
    for video in (tmp_path / "videos").rglob("*.avi"):
        freeze(video, tmp_path / "frozen" / video.relative_to(tmp_path / "videos"))

    def train_on(dataset: str, folder: str) -> list[float]:
        config = compose_train(*RECIPE)
        data = dataclasses.replace(config.dataset, name=dataset, root=str(tmp_path / folder))
        config = dataclasses.replace(config, dataset=data, output_dir=str(tmp_path / f"run_{folder}"))
        return run_training(config)["val_top1"]

    assert max(train_on("folder", "frozen")) <= 1.5 * CHANCE
    assert train_on("motion", "videos")[-1] >= 4 * CHANCE
