import threading
from pathlib import Path

import pytest
import tensorflow as tf

from vswin.data.packed import write
from vswin.data.packed.examples import read_bytes
from vswin.data.packed.plan import Plan, make_plan
from vswin.data.packed.record_files import open_records
from vswin.data.packed.write import write_shards
from vswin.data.records import VideoRecord
from vswin.errors import InputError

CLASSES = ["bright", "dark"]


@pytest.fixture
def plan(small_videos: Path) -> Plan:
    records = [VideoRecord(str(path), 1) for path in sorted((small_videos / "dark").iterdir())]
    return make_plan({"train": records}, str(small_videos), 3)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_files_hold_their_part_of_the_list(plan, tmp_path: Path, file_format: str) -> None:
    counts = []
    write_shards(plan, tmp_path, CLASSES, file_format, None, 2, counts.append)
    assert sum(counts) == 6
    for shard in plan.shards:
        path = tmp_path / f"packed_videos-train.{file_format}-{shard.number:05d}-of-00003"
        names = [read_bytes(r.read, r.num_bytes, "path").decode() for r in open_records(path, file_format).scan()]
        assert names == [entry.name for entry in shard.entries]


def test_files_are_the_same_whoever_writes_them(plan, tmp_path: Path) -> None:
    for name, num_threads in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        write_shards(plan, tmp_path / name, CLASSES, "tfrecord", None, num_threads, lambda count: None)
    one, three = (
        [path.read_bytes() for path in sorted((tmp_path / name).glob("packed_*"))] for name in ("one", "three")
    )
    assert one == three
    assert len(one) == 3


def test_finished_files_are_kept_and_others_written_anew(plan, tmp_path: Path) -> None:
    finished = tmp_path / "packed_videos-train.tfrecord-00001-of-00003"
    finished.write_bytes(b"finished")
    (tmp_path / ".packed_videos-train.tfrecord-00000-of-00003.99.partial").write_bytes(b"half")
    counts = []
    write_shards(plan, tmp_path, CLASSES, "tfrecord", None, 1, counts.append)
    assert finished.read_bytes() == b"finished"
    assert len(list(tmp_path.glob("packed_*"))) == 3
    assert not list(tmp_path.glob(".*"))
    assert sorted(counts) == [1, 1, 1, 1, 2]


def test_one_failure_ends_all_and_leaves_no_halves(plan, tmp_path: Path, monkeypatch) -> None:
    original, others_wait = write.make_example, threading.Event()

    def make(entry, *arguments):
        if entry.name.endswith("0.avi"):
            raise OSError(28, "No space left on device")
        others_wait.wait(0.05)
        return original(entry, *arguments)

    monkeypatch.setattr(write, "make_example", make)
    with pytest.raises(InputError, match=r"No space left on device.*Finished files stay; the same command goes on"):
        write_shards(plan, tmp_path, CLASSES, "tfrecord", None, 3, lambda count: None)
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "packed_videos-train.tfrecord-00000-of-00003").exists()


def test_errors_of_tensorflow_are_told_as_well(plan, tmp_path: Path, monkeypatch) -> None:
    def fail(path: str) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "disk quota exceeded")

    monkeypatch.setattr(write.tf.io, "TFRecordWriter", fail)
    with pytest.raises(InputError, match="packing ended: disk quota exceeded"):
        write_shards(plan, tmp_path, CLASSES, "tfrecord", None, 1, lambda count: None)
