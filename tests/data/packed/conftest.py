"""A folder with good and bad videos of many kinds, and functions that pack it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from array_record.python.array_record_data_source import ArrayRecordDataSource

from tests.conftest import make_group
from vswin.config.compose import compose_config
from vswin.config.schema import DataPrepareConfig, DatasetConfig
from vswin.data.prepare import run_prepare

CLIPS = Path(__file__).parents[2] / "clips"
MakeDataset = Callable[..., DatasetConfig]
Pack = Callable[..., Path]

GOOD = {
    "vp9.webm": ("-c:v", "libvpx-vp9"),
    "av1.webm": ("-c:v", "libaom-av1", "-cpu-used", "8"),
    "bt709.mp4": ("-c:v", "libx264", "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"),
    "hevc.mkv": ("-c:v", "libx265"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "2"),
    "xvid.avi": ("-c:v", "mpeg4", "-q:v", "2"),
    "prores.mov": ("-c:v", "prores"),
}
BAD = ("empty", "text", "playlist", "audio", "truncated mp4", "truncated avi", "truncated mkv", "one frame mp4")


@pytest.fixture(scope="session")
def video_set(tmp_path_factory: pytest.TempPathFactory, encode, bad_files) -> Path:
    """Makes class folders with sound and broken videos in every usual container."""
    root = tmp_path_factory.mktemp("video_set")
    for class_name in ("first", "second"):
        (root / class_name).mkdir()
    for name in ("demo.mp4", "test.avi", "flipping_a_pancake.mkv"):
        shutil.copy(CLIPS / name, root / "first")
    for name, options in GOOD.items():
        shutil.copy(encode(name, *options), root / "second")
    for kind in BAD:
        shutil.copy(bad_files[kind], root / "second" / f"{kind.replace(' ', '_')}{Path(bad_files[kind]).suffix}")
    return root


@pytest.fixture(scope="session")
def make_dataset() -> MakeDataset:
    def make(root: Path, **changes: object) -> DatasetConfig:
        return make_group("dataset", **{"root": str(root), "val_fraction": 0.3, "clip_timeout_sec": None, **changes})

    return make


@pytest.fixture(scope="session")
def pack(make_dataset) -> Pack:
    def run(root: Path, output: Path, **changes: object) -> Path:
        values = {"output_dir": str(output), "shards": 2, "short_side": None, **changes}
        config = compose_config("data_prepare", [], DataPrepareConfig)
        run_prepare(replace(config, dataset=make_dataset(root), **values))
        return output

    return run


@pytest.fixture(scope="session")
def packed(video_set, pack, tmp_path_factory) -> Path:
    return pack(video_set, tmp_path_factory.mktemp("packed") / "packed")


@pytest.fixture(scope="session")
def to_tfrecord() -> Callable[[Path], None]:
    """Converts the files of a data set to TFRecord, which TFDS still writes and packing once wrote."""

    def convert(folder: Path) -> None:
        for path in folder.glob("*.array_record-*"):
            with tf.io.TFRecordWriter(str(path).replace(".array_record-", ".tfrecord-")) as writer:
                records = ArrayRecordDataSource([str(path)])
                for number in range(len(records)):
                    writer.write(records[number])
            path.unlink()
        info = folder / "dataset_info.json"
        info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))

    return convert
