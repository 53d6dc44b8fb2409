"""Measure how many training clips per second the input pipeline gives, with one thread and with more.

The clips are the three of tests/clips, the recipe is the official one: 32 frames, every second one, short
side 256, random resized crop to 224 x 224. The machine may be shared, so runs with different numbers of
threads alternate and medians are compared.

    python benchmarks/input_pipeline.py --threads 1 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from vswin.config import AugmentConfig, ClipConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.pipeline import Order, make_train_dataset
from vswin.data.records import VideoRecord

CLIPS = Path(__file__).resolve().parent.parent / "tests" / "clips"
CLIPS_OF_THE_TESTS = [CLIPS / name for name in ("demo.mp4", "test.avi", "flipping_a_pancake.mkv")]
BATCH_SIZE = 6

OFFICIAL_CLIP = ClipConfig(
    num_frames=32,
    frame_stride=2,
    resize=256,
    crop=224,
    num_clips=4,
    num_crops=3,
    sampling="dense",
    views_per_step=4,
)
OFFICIAL_AUGMENT = AugmentConfig(crop_area=[0.08, 1.0], crop_aspect=[3 / 4, 4 / 3], flip=0.5)


def measure(paths: Sequence[Path], num_threads: int, num_batches: int) -> float:
    """Times batches after a first one that fills the pipeline.

    Args:
        paths: Videos, read again and again.
        num_threads: Threads that decode.
        num_batches: Batches to time.

    Returns:
        Clips per second.
    """
    bad = BadVideos()
    records = [VideoRecord(str(path), 0) for path in paths] * BATCH_SIZE
    order = Order(seed=0, batch_size=BATCH_SIZE, epochs=num_batches + 2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = num_threads
    dataset = make_train_dataset(records, OFFICIAL_CLIP, OFFICIAL_AUGMENT, True, order, bad)
    iterator = iter(dataset.with_options(options))
    next(iterator)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(iterator)
    seconds = time.perf_counter() - start
    if len(bad) > 0:
        raise SystemExit(f"cannot measure with bad videos: {bad.rows()}")
    return num_batches * BATCH_SIZE / seconds


def main() -> None:
    """Prints clips per second for each number of threads, and how it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (1 2)")
    parser.add_argument("--batches", type=int, default=6, help=f"batches of {BATCH_SIZE} clips per run (6)")
    parser.add_argument("--repeats", type=int, default=5, help="runs per number of threads (5)")
    parser.add_argument("--videos", type=Path, nargs="+", default=CLIPS_OF_THE_TESTS, help="files to read")
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {num_threads: [] for num_threads in arguments.threads}
    for _ in range(arguments.repeats):
        for num_threads, measured in rates.items():
            measured.append(measure(arguments.videos, num_threads, arguments.batches))
    first = statistics.median(rates[arguments.threads[0]])
    for num_threads, measured in rates.items():
        median = statistics.median(measured)
        spread = f"{min(measured):.2f} to {max(measured):.2f}"
        print(f"{num_threads} threads: {median:.2f} clips/s ({spread}), ratio {median / first:.2f}")


if __name__ == "__main__":
    main()
