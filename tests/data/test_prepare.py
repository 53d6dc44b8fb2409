import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vswin.data import prepare
from vswin.data.packed import record_files, write
from vswin.data.prepare import run_prepare
from vswin.errors import InputError
from vswin.schema import DataPrepareConfig, DatasetConfig

Configure = Callable[..., DataPrepareConfig]


@pytest.fixture
def configure(small_videos: Path, tmp_path: Path) -> Configure:
    """Configures the packing of 12 videos, 10 for training, in 3 files, and 2 for validation."""

    def make(**changes: object) -> DataPrepareConfig:
        dataset = {"name": "folder", "root": str(small_videos), "source": None, "val_fraction": 0.17, "split": 1}
        for key in ("train_list", "val_list", "num_classes", "tfds", "tfds_dir"):
            dataset[key] = None
        values = {"output_dir": str(tmp_path / "packed"), "shards": 3, "file_format": "tfrecord", "short_side": None}
        dataset |= {"allow_missing": False, "download": False, "isolate": False}
        dataset |= {
            key: changes.pop(key) for key in list(changes) if key in ("root", "val_fraction", "name", "isolate")
        }
        return DataPrepareConfig(dataset=DatasetConfig(**dataset), **{**values, "beam": None, **changes})

    return make


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_plain_tfds_reads_the_packed_data_set(configure, small_videos, tmp_path: Path, file_format: str) -> None:
    run_prepare(configure(file_format=file_format))
    builder = tfds.builder_from_directory(tmp_path / "packed")
    assert builder.info.features["label"].names == ["bright", "dark"]
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 10, "val": 2}
    assert builder.info.splits["train"].shard_lengths == [3, 4, 3]
    found = 0
    for split in ("train", "val"):
        source = builder.as_data_source(split) if file_format == "array_record" else builder.as_dataset(split)
        for example in source:
            path, video = (getattr(example[key], "numpy", lambda v=example[key]: v)() for key in ("path", "video"))
            assert (small_videos / os.fsdecode(path)).read_bytes() == video
            assert os.fsdecode(path).split("/")[0] == ["bright", "dark"][int(example["label"])]
            found += 1
    assert found == 12


def test_report_says_what_was_done_and_how_to_use_it(configure, tmp_path: Path, capsys) -> None:
    run_prepare(configure())
    said = capsys.readouterr().out
    output = tmp_path / "packed"
    assert re.search(r"about 0.1 MB will be written, [\d,.]+ MB are free in", said)
    assert f"packs 12 videos (0.1 MB) of folder into 4 files, format tfrecord, in {output}" in said
    assert f"{output} has 12 videos, 0.1 MB; each was compared with its file. Train with dataset=folder" in said
    assert not (tmp_path / "packed.partial").exists()
    description = json.loads((output / "vswin.json").read_text())
    assert description["num_shards"] == {"train": 3, "val": 1}
    assert set(description["versions"]) == {"vswin", "tensorflow-datasets", "av"}


def test_nothing_is_overwritten(configure, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "mine").touch()
    with pytest.raises(InputError, match=r"packed is there already, and nothing is overwritten"):
        run_prepare(configure())
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_dir": None}, "output_dir=null: name the folder"),
        ({"shards": 11}, "shards=11, but there are 10 videos to put into them"),
        ({"file_format": "parquet"}, "file_format=parquet: one of array_record, tfrecord"),
        ({"short_side": 255}, "short_side=255: an even number of pixels"),
        ({"root": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(configure, tmp_path: Path, changes: dict, message: str) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        run_prepare(configure(**changes))
    assert sorted(tmp_path.iterdir()) == before


def test_packed_data_is_not_packed_again(configure, tmp_path: Path) -> None:
    run_prepare(configure())
    with pytest.raises(InputError, match="is packed already; name the folder of the video files"):
        run_prepare(configure(root=str(tmp_path / "packed"), output_dir=str(tmp_path / "again")))


def test_missing_array_record_is_said(configure, monkeypatch) -> None:
    monkeypatch.setattr(record_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need the package array_record, .* or pack the data with file_format=tfreco"):
        run_prepare(configure(file_format="array_record"))


def test_missing_beam_is_said(configure, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"Apache Beam cannot be imported .*`pip install apache-beam`, or leave beam="):
        run_prepare(configure(beam=[]))


def test_space_is_looked_at_first(configure, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(
        InputError, match=r"takes about 0.1 MB more, and 0.0 MB are free in .*; name another output_dir"
    ):
        run_prepare(configure())
    assert not (tmp_path / "packed.partial").exists()


def test_work_goes_on_where_it_ended(configure, tmp_path: Path, monkeypatch, capsys) -> None:
    original, failing = write.make_example, "dark/3.avi"

    def make(entry, *arguments):
        if entry.name == failing:
            raise OSError(5, "Input/output error", entry.file)
        return original(entry, *arguments)

    monkeypatch.setattr(write, "make_example", make)
    monkeypatch.setattr(prepare.os, "cpu_count", lambda: 1)
    with pytest.raises(InputError, match=r"packing ended: .*Input/output error.* the same command goes on from there"):
        run_prepare(configure())
    work = tmp_path / "packed.partial"
    finished = {path.name: path.stat().st_mtime_ns for path in work.glob("*-of-*")}
    assert 1 <= len(finished) < 4
    assert not list(work.glob(".*"))
    failing = ""
    run_prepare(configure())
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "packed").glob("*-of-*")}
    assert len(after) == 4
    assert finished.items() <= after.items()
    assert f"goes on with the unfinished work in {work}" in capsys.readouterr().out


def test_unfinished_work_on_another_plan_is_kept_apart(configure, small_videos, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(write, "make_example", lambda *arguments: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(InputError, match="packing ended"):
        run_prepare(configure())
    monkeypatch.undo()
    for changed in ("settings", "videos"):
        if changed == "videos":
            os.utime(small_videos / "dark" / "0.avi", (1, 1))
        with pytest.raises(InputError, match=r"packed.partial holds unfinished work on another plan"):
            run_prepare(configure(shards=2) if changed == "settings" else configure())
    shutil.rmtree(tmp_path / "packed.partial")
    run_prepare(configure())


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "other file"])
def test_what_differs_from_its_file_is_found_and_made_anew(
    configure, small_videos, tmp_path: Path, monkeypatch, file_format: str, damage: str
) -> None:
    original, work = write.write_shards, tmp_path / "packed.partial"

    def write_and_damage(*arguments):
        original(*arguments)
        path = work / f"packed_videos-train.{file_format}-00001-of-00003"
        content = path.read_bytes()
        if damage == "flipped bit":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif damage == "cut off":
            path.write_bytes(content[:-100])
        else:
            video = small_videos / "bright" / "5.avi"
            video.write_bytes(video.read_bytes() + b"more")

    with monkeypatch.context() as patch:
        patch.setattr(write, "write_shards", write_and_damage)
        with pytest.raises(InputError, match=r"is not what was to be packed: .* It is removed; the same command makes"):
            run_prepare(configure(file_format=file_format))
    assert not (tmp_path / "packed").exists()
    assert len(list(work.glob("*-of-*"))) == 3
    if damage != "other file":
        run_prepare(configure(file_format=file_format))
        assert (tmp_path / "packed" / "vswin.json").exists()


def test_larger_videos_are_re_encoded_and_others_kept(configure, small_videos, tmp_path: Path, capsys) -> None:
    (small_videos / "dark" / "broken.avi").write_bytes(b"broken" * 100)
    run_prepare(configure(short_side=32, val_fraction=0.17))
    said = capsys.readouterr().out
    assert "12 were re-encoded to a shorter side of 32 pixels, 1 were no larger, or could not be decoded" in said
    encoding = json.loads((tmp_path / "packed" / "vswin.json").read_text())["encoding"]
    assert encoding == {"codec": "libx264", "crf": 18, "preset": "medium", "pixels": "yuv420p"}


def test_a_decoder_that_crashes_costs_a_video_its_re_encoding_alone(configure, small_videos, tmp_path, monkeypatch):
    """A name that is not UTF-8 crashes OpenCV with a real segmentation fault where it is not refused."""
    content = (small_videos / "dark" / "0.avi").read_bytes()
    crash = os.path.join(os.fsencode(small_videos), b"dark", b"crash\xe9.avi")
    Path(os.fsdecode(crash)).write_bytes(content)
    unchecked = "import vswin.data.inspection\nvswin.data.inspection.check_file = lambda path, content: None\n"
    (tmp_path / "sitecustomize.py").write_text(unchecked)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)  # for the processes that decode
    run_prepare(configure(short_side=32, isolate=True))
    table = (tmp_path / "packed" / "videos.csv").read_text(errors="surrogateescape")
    rows = {row["path"]: row for row in csv.DictReader(table.splitlines())}
    kept = {path for path, row in rows.items() if int(row["num_bytes"]) == len(content)}
    assert kept == {"dark/crash\udce9.avi"}, rows
    assert len(rows) == 13


def test_beam_does_not_go_with_isolated_decoding(configure):
    with pytest.raises(InputError, match=r"dataset\.isolate=true does not go with beam"):
        run_prepare(configure(beam=[], isolate=True))


def test_data_set_of_one_split_is_packed(configure, small_videos, tmp_path: Path) -> None:
    lines = [f"{name}/{number}.avi {label}" for label, name in enumerate(("bright", "dark")) for number in range(6)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    config = configure()
    config.dataset.train_list = config.dataset.val_list = str(tmp_path / "list.txt")
    run_prepare(config)
    builder = tfds.builder_from_directory(tmp_path / "packed")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 12, "val": 12}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_killed_work_is_continued(configure, small_videos, tmp_path: Path, stop: signal.Signals) -> None:
    code = """
import os, sys, time
from vswin.cli import main
from vswin.data.packed import write
original = write.make_example
def slow(entry, *arguments):
    time.sleep(0.5)
    return original(entry, *arguments)
write.make_example = slow
os.cpu_count = lambda: 1
sys.argv = ["vswin", "data", "prepare", *sys.argv[1:]]
main()
"""
    keys = {
        "dataset": "folder",
        "dataset.root": small_videos,
        "dataset.val_fraction": 0.17,
        "output_dir": tmp_path / "packed",
        "shards": 3,
        "file_format": "tfrecord",
    }
    command = [sys.executable, "-c", code, *(f"{key}={value}" for key, value in keys.items())]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in running.stdout:
        if "is written" in line:
            break
    running.send_signal(stop)
    running.communicate(timeout=60)
    assert running.returncode in (-signal.SIGKILL, 130)
    finished = list((tmp_path / "packed.partial").glob("packed_videos-*-of-*"))
    assert 1 <= len(finished) <= 2
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is there already" in done.stdout
    assert len(list(tf.data.TFRecordDataset([str(p) for p in (tmp_path / "packed").glob("*-of-*")]))) == 12
    assert not list((tmp_path / "packed").glob(".*"))
