"""Measure how fast a data set prepared by TFDS is read: decoding only the sampled frames, against all frames.

TFDS stores the frames of a video as JPEG images. vswin decodes the 32 frames of a clip, `tfds.load` all frames of the
video. The data set is prepared both as by `tfds.load` (TFRecord) and as by `dataset.download=true` (ArrayRecord). It
consists of the clips of tests/clips, cut to the mean length of UCF101 (186 frames) and scaled to its size, 320 x 240.
All variants run in tf.data with the same number of threads; runs alternate, and medians are compared.

    python benchmarks/tfds_decoding.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vswin.config.compose import compose_config
from vswin.config.schema import DatasetConfig, TrainConfig
from vswin.data.decode import VideoReader
from vswin.data.frames import FrameLoader
from vswin.data.sampling import random_clip
from vswin.data.tfds_sets import load_tfds

CLIPS = Path(__file__).resolve().parent.parent / "tests" / "clips"
CLIPS_OF_THE_TESTS = [CLIPS / name for name in ("demo.mp4", "test.avi", "flipping_a_pancake.mkv")]
NUM_VIDEO_FRAMES, HEIGHT, WIDTH = 186, 240, 320
NUM_FRAMES, FRAME_STRIDE = 32, 2
COPIES = 4


class MeasuredVideos(tfds.core.GeneratorBasedBuilder):
    """Stores videos as TFDS's UCF101 does."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        video = tfds.features.Video(shape=(None, None, None, 3), encoding_format="jpeg")
        label = tfds.features.ClassLabel(names=["one", "other"])
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"video": video, "label": label})
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples(COPIES), "test": self._generate_examples(1)}

    def _generate_examples(self, num_copies: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in CLIPS_OF_THE_TESTS:
            with VideoReader(path) as reader:
                numbers = np.arange(NUM_VIDEO_FRAMES) % reader.num_video_frames
                frames = reader.read(numbers, lambda frame: cv2.resize(frame, (WIDTH, HEIGHT)))
            for copy in range(num_copies):
                yield f"{path.name} {copy}", {"video": frames, "label": copy % 2}


def measure_sampled(dataset: DatasetConfig, num_threads: int) -> float:
    """Reads a random clip of every video; returns videos per second."""
    _, records, _, store = load_tfds(dataset)
    loader, rng = FrameLoader(store=store), np.random.default_rng(0)

    def load(number: int) -> np.ndarray:
        return loader.load(
            records[number].path, HEIGHT, lambda num: random_clip(num, NUM_FRAMES, FRAME_STRIDE, rng)
        )  # [T, H, W, 3]

    clips = tf.data.Dataset.range(len(records)).map(
        lambda number: tf.numpy_function(load, [number], tf.uint8, stateful=False), num_parallel_calls=num_threads
    )
    return _count_per_second(clips, num_threads)


def measure_all(folder: Path, num_threads: int) -> float:
    """Lets TFDS decode every video, and takes a clip of it; returns videos per second."""
    builder = tfds.builder_from_directory(folder)
    read_config = tfds.ReadConfig(num_parallel_calls_for_decode=num_threads)
    videos = builder.as_dataset("train", read_config=read_config)
    clips = videos.map(lambda example: example["video"][: NUM_FRAMES * FRAME_STRIDE : FRAME_STRIDE])
    return _count_per_second(clips, num_threads)


def _count_per_second(dataset: tf.data.Dataset, num_threads: int) -> float:
    options = tf.data.Options()
    options.threading.private_threadpool_size = num_threads
    start = time.perf_counter()
    shapes = [clip.shape for clip in dataset.with_options(options)]
    assert {tuple(shape) for shape in shapes} == {(NUM_FRAMES, HEIGHT, WIDTH, 3)}
    return len(shapes) / (time.perf_counter() - start)


def main() -> None:
    """Prints videos per second of each variant, and the ratio to decoding all frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads that decode (1)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared: dict[str, tuple[DatasetConfig, Path]] = {}
        for file_format in ("tfrecord", "array_record"):
            data_dir = str(Path(folder, file_format))
            builder = MeasuredVideos(data_dir=data_dir, file_format=file_format)
            builder.download_and_prepare()
            overrides = ["dataset=folder", "dataset.tfds=measured_videos", f"dataset.tfds_dir={data_dir}"]
            dataset = compose_config("train", overrides, TrainConfig).dataset
            prepared[file_format] = dataset, Path(builder.data_dir)
        rates: dict[str, list[float]] = {"all": [], **{f"sampled, {file_format}": [] for file_format in prepared}}
        for _ in range(arguments.repeats + 1):
            for file_format, (dataset, _) in prepared.items():
                rates[f"sampled, {file_format}"].append(measure_sampled(dataset, arguments.threads))
            rates["all"].append(measure_all(prepared["tfrecord"][1], arguments.threads))
    # The first run of each is a warm-up.
    medians = {name: statistics.median(measured[1:]) for name, measured in rates.items()}
    for name, measured in rates.items():
        print(
            f"{name} frames: {medians[name]:.2f} videos/s ({min(measured[1:]):.2f} to {max(measured[1:]):.2f}), ratio "
            f"{medians[name] / medians['all']:.2f}"
        )


if __name__ == "__main__":
    main()
