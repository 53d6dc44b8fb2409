"""Measure how fast packed videos are read, against the same videos as files.

The videos of tests/clips are packed, and threads read random clips of 32 frames, as in training. On a local disk both
should be equally fast: packing pays on network drives. Runs alternate, and medians are compared.

    python benchmarks/packed_reading.py --threads 2
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vswin.config.compose import compose_config
from vswin.config.schema import DataPrepareConfig, DatasetConfig, TrainConfig
from vswin.data.frames import FrameLoader
from vswin.data.packed import load_packed
from vswin.data.prepare import run_prepare
from vswin.data.sampling import random_clip

CLIPS = Path(__file__).resolve().parent.parent / "tests" / "clips"
CLIPS_OF_THE_TESTS = [CLIPS / name for name in ("demo.mp4", "test.avi", "flipping_a_pancake.mkv")]
NUM_FRAMES, FRAME_STRIDE, SHORT_SIDE = 32, 2, 256
NUM_CLIPS = 60


def measure(loader: FrameLoader, paths: Sequence[str], num_threads: int) -> float:
    """Reads random clips; returns clips per second."""

    def load(number: int) -> None:
        rng = np.random.default_rng(number)
        path = paths[number % len(paths)]
        loader.load(path, SHORT_SIDE, lambda num_frames: random_clip(num_frames, NUM_FRAMES, FRAME_STRIDE, rng))

    start = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(load, range(NUM_CLIPS)))
    return NUM_CLIPS / (time.perf_counter() - start)


def pack(folder: Path) -> DatasetConfig:
    """Packs the clips of the tests as a data set with two classes."""
    lines = [f"{path},{number % 2}" for number, path in enumerate(CLIPS_OF_THE_TESTS)]
    (folder / "videos.csv").write_text("\n".join(lines))
    output, lists = folder / "packed", [f"dataset.{subset}_list={folder / 'videos.csv'}" for subset in ("train", "val")]
    overrides = ["dataset=folder", f"dataset.root={CLIPS}", *lists, f"output_dir={output}", "shards=1"]
    run_prepare(compose_config("data_prepare", overrides, DataPrepareConfig))
    return compose_config("train", ["dataset=folder", f"dataset.root={output}"], TrainConfig).dataset


def main() -> None:
    """Prints clips per second of each variant, and the ratio to files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads that decode (2)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, records, _, store = load_packed(pack(Path(folder)))
        variants = {
            "files": (FrameLoader(), [str(path) for path in CLIPS_OF_THE_TESTS]),
            "packed": (FrameLoader(store=store), [record.path for record in records]),
        }
        logging.getLogger("vswin").handlers.clear()
        rates: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(arguments.repeats + 1):
            for name, (loader, paths) in variants.items():
                rates[name].append(measure(loader, paths, arguments.threads))
    # The first run of each is a warm-up.
    medians = {name: statistics.median(measured[1:]) for name, measured in rates.items()}
    for name, measured in rates.items():
        spread = f"{min(measured[1:]):.2f} to {max(measured[1:]):.2f}"
        print(f"{name}: {medians[name]:.2f} clips/s ({spread}), ratio {medians[name] / medians['files']:.2f}")


if __name__ == "__main__":
    main()
