"""Check a long run for leaks: memory, open files, threads and time per step must not grow.

The first part starts `python train.py` (swin_micro on motion, validated after each epoch, a state saved every 100
steps) and samples its process from outside. The second part draws clips from the training pipeline in this process.
A line is fitted to the samples after the first fifth, during which caches and pools fill.

    python benchmarks/long_run.py --epochs 10 --clips 50000
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.folder import load_folder
from vswin.data.motion import prepare_motion
from vswin.data.order import Order
from vswin.data.pipeline import make_train_dataset

ROOT = Path(__file__).resolve().parent.parent
STEPS_PER_EPOCH, BATCH_SIZE = 200, 16
WARM_UP_SHARE = 0.2
SECONDS_BETWEEN = 1.0


def look_at(process: psutil.Process) -> dict[str, float]:
    """Samples a process: resident memory in MB, open files, threads."""
    with process.oneshot():
        return {
            "memory_mb": process.memory_info().rss / 1e6,
            "open_files": process.num_fds(),
            "threads": process.num_threads(),
        }


def fit(samples: list[dict[str, float]], work: float, unit: str) -> dict[str, dict[str, float]]:
    """Fits a line to each quantity after the warm-up.

    The samples are at equal intervals of the total `work`; the slope is given per 1,000 units of work.
    """
    kept = samples[int(WARM_UP_SHARE * len(samples)) :]
    done = np.linspace(WARM_UP_SHARE, 1, len(kept)) * work / 1000
    found = {}
    for name in kept[0]:
        values = np.array([sample[name] for sample in kept])
        slope = float(np.polyfit(done, values, 1)[0])
        found[name] = {"first": float(values[0]), "last": float(values[-1]), f"per_1000_{unit}": slope}
    return found


def watch_training(folder: Path, epochs: int) -> dict[str, dict[str, float]]:
    """Trains in a separate process and samples it."""
    overrides = ["output_dir=run", f"epochs={epochs}", "save_steps=100"]
    process = psutil.Popen([sys.executable, str(ROOT / "train.py"), *overrides], cwd=folder)
    samples = []
    while process.poll() is None:
        try:
            samples.append(look_at(process))
        except psutil.Error:  # The process has just ended.
            break
        time.sleep(SECONDS_BETWEEN)
    if process.wait() != 0:
        raise SystemExit("the run has failed")
    # A process releases everything while it ends.
    found = fit(samples[:-5], epochs * STEPS_PER_EPOCH, "steps")
    with (folder / "run" / "history.csv").open() as file:
        speeds = [BATCH_SIZE / float(row["clips_per_sec"]) for row in csv.DictReader(file)]
    return found | fit([{"step_sec": seconds} for seconds in speeds], epochs * STEPS_PER_EPOCH, "steps")


def watch_pipeline(videos: Path, num_clips: int) -> dict[str, dict[str, float]]:
    """Draws training clips and samples this process."""
    prepare_motion(videos)
    _, records, _ = load_folder(videos)
    config = compose_config("train", ["augment.crop_area=[0.5,1.0]"], TrainConfig)
    num_batches = num_clips // BATCH_SIZE
    order = Order(seed=0, batch_size=BATCH_SIZE, epochs=num_batches * BATCH_SIZE // len(records) + 1)
    dataset = make_train_dataset(records, config.clip, config.augment, False, order, BadVideos())
    process, samples = psutil.Process(), []
    every = max(num_batches // 200, 1)
    started = time.perf_counter()
    for number, _ in enumerate(dataset.take(num_batches)):
        if number % every == 0:
            samples.append(look_at(process) | {"clip_ms": 0.0})
            samples[-1]["clip_ms"] = 1000 * (time.perf_counter() - started) / (every * BATCH_SIZE)
            started = time.perf_counter()
    return fit(samples, num_clips, "clips")


def report(title: str, found: dict[str, dict[str, float]]) -> None:
    """Prints a line for each quantity."""
    print(title)
    for name, values in found.items():
        print("  " + f"{name:12}" + "  ".join(f"{key} {value:+.4g}" for key, value in values.items()))


def main() -> None:
    """Prints the slopes, and writes them as JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of 200 steps; 0 leaves training out (10)")
    parser.add_argument("--clips", type=int, default=50_000, help="clips of the pipeline; 0 leaves it out (50000)")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: list[tuple[str, int, Callable[[], dict[str, dict[str, float]]]]] = [
            ("training", arguments.epochs, lambda: watch_training(folder, max(arguments.epochs, 1))),
            ("pipeline", arguments.clips, lambda: watch_pipeline(folder / "data/motion/videos", arguments.clips)),
        ]
        for title, amount, measure in parts:
            if amount:
                results[title] = measure()
                report(f"{title} ({amount:,} {'epochs' if title == 'training' else 'clips'})", results[title])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
