"""Measure what fine-tuning gains over training from scratch, at equal steps.

`swin_micro` is trained on the built-in `motion` data set (or taken from a run), then fine-tuned on a second task with
other classes and few videos: objects that change along two coordinates at once, such as `left_and_up` or
`turn_and_grow`. Training from scratch takes the same number of steps on the same clips.

    python benchmarks/transfer.py --output outputs/transfer
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from vswin.data.motion import ANGLE, FRAME_RATE, FRAME_SIZE, NUM_VIDEO_FRAMES, SIZE, X, Y, draw_scene, render_frames

ROOT = Path(__file__).resolve().parents[1]
# Class -> (coordinate, direction) of each of its two motions.
CLASSES = {
    "left_and_up": ((X, -1), (Y, -1)),
    "left_and_down": ((X, -1), (Y, 1)),
    "right_and_up": ((X, 1), (Y, -1)),
    "right_and_down": ((X, 1), (Y, 1)),
    "turn_and_grow": ((ANGLE, 1), (SIZE, 1)),
    "turn_and_shrink": ((ANGLE, 1), (SIZE, -1)),
}
RECIPE = ("dataset=folder", "clip=8x1_64px", "dataset.allow_flip=false", "dataset.crop_area=[1.0,1.0]", "batch_size=16")


def make_videos(root: Path, train_per_class: int, val_per_class: int) -> None:
    """Makes the videos of the second task; none of their scenes occurs in the first task."""
    for subset, count in (("train", train_per_class), ("val", val_per_class)):
        for label, (name, motions) in enumerate(CLASSES.items()):
            folder = root / subset / name
            folder.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([2024, ("train", "val").index(subset), label, number])
                scene = draw_scene(rng)
                states = np.tile(scene.phases, (NUM_VIDEO_FRAMES, 1, 1))  # [T, O, 4]
                steps = np.arange(NUM_VIDEO_FRAMES)[:, np.newaxis] * scene.speeds  # [T, O]
                for coordinate, direction in motions:
                    states[:, :, coordinate] += direction * steps
                _write(folder / f"{number:04d}.avi", render_frames(scene, states % 1.0))


def _write(path: Path, frames: np.ndarray) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FRAME_RATE, (FRAME_SIZE, FRAME_SIZE))
    for frame in frames:
        writer.write(frame)
    writer.release()


def train(output: Path, *overrides: str) -> list[float]:
    """Runs train.py; returns the validation accuracy after each epoch."""
    command = [sys.executable, str(ROOT / "train.py"), f"output_dir={output}", "logger.tensorboard=false", *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with (output / "history.csv").open(newline="", encoding="utf-8") as file:
        return [float(row["val_top1"]) for row in csv.DictReader(file)]


def main() -> None:
    """Prints the accuracies after each epoch, with and without the weights of the first task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="new folder for videos and runs")
    parser.add_argument("--init-from", help="a run on motion; without one it is trained first")
    parser.add_argument("--videos", type=int, default=32, help="training videos per class (32)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the second task (3)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (0 1 2)")
    arguments = parser.parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True)
    init_from = arguments.init_from or str(output / "motion_run")
    if arguments.init_from is None:
        train(output / "motion_run", f"dataset.root={output / 'motion'}")
    make_videos(output / "combined", arguments.videos, 40)
    results: dict[str, list[list[float]]] = {"scratch": [], "fine_tuned": []}
    for seed in arguments.seeds:
        shared = (*RECIPE, f"dataset.root={output / 'combined'}", f"epochs={arguments.epochs}", f"seed={seed}")
        results["scratch"].append(train(output / f"scratch_{seed}", *shared))
        results["fine_tuned"].append(train(output / f"fine_tuned_{seed}", *shared, f"init_from={init_from}"))
    (output / "transfer.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, runs in results.items():
        means = ", ".join(f"{100 * value:.1f}" for value in np.mean(runs, axis=0))
        last = ", ".join(f"{100 * run[-1]:.1f}" for run in runs)
        print(f"{name:<11} val top-1 after each epoch, mean of {len(runs)} seeds: {means} %; at the end: {last} %")


if __name__ == "__main__":
    main()
