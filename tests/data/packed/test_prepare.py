import csv
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from tests.conftest import make_group
from vswin.config.compose import compose_config
from vswin.config.schema import DataPrepareConfig
from vswin.data import prepare
from vswin.data.prepare import run_prepare
from vswin.errors import InputError

Configure = Callable[..., DataPrepareConfig]


@pytest.fixture
def configure(small_videos: Path, tmp_path: Path) -> Configure:
    """Configures packing: 10 training videos in 3 files, and 2 validation videos."""

    def make(**changes: object) -> DataPrepareConfig:
        dataset = {"root": str(small_videos), "val_fraction": 0.17}
        dataset |= {
            key: changes.pop(key) for key in list(changes) if key in ("root", "val_fraction", "name", "isolate")
        }
        values = {"output_dir": str(tmp_path / "packed"), "shards": 3, "short_side": None, **changes}
        config = compose_config("data_prepare", [], DataPrepareConfig)
        return replace(config, dataset=make_group("dataset", **dataset), **values)

    return make


def test_plain_tfds_reads_the_packed_data_set(configure, small_videos, tmp_path: Path) -> None:
    run_prepare(configure())
    builder = tfds.builder_from_directory(tmp_path / "packed")
    assert builder.info.features["label"].names == ["bright", "dark"]
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 10, "val": 2}
    assert builder.info.splits["train"].shard_lengths == [3, 4, 3]
    found = 0
    for split in ("train", "val"):
        for example in builder.as_data_source(split):
            name = os.fsdecode(example["path"])
            assert (small_videos / name).read_bytes() == example["video"]
            assert name.split("/")[0] == ["bright", "dark"][int(example["label"])]
            found += 1
    assert found == 12


def test_report_says_what_was_done_and_how_to_use_it(configure, tmp_path: Path, capsys) -> None:
    run_prepare(configure())
    said = capsys.readouterr().out
    output = tmp_path / "packed"
    assert re.search(r"about 0.1 MB will be written, [\d,.]+ MB are free in", said)
    assert f"packs 12 videos (0.1 MB) of folder into 4 files in {output}" in said
    assert f"{output} has 12 videos, 0.1 MB; each was compared with its file. Train with dataset=folder" in said
    assert not (tmp_path / "packed.partial").exists()
    description = json.loads((output / "vswin.json").read_text())
    assert sorted(path.name for path in output.iterdir() if "-of-" not in path.name) == [
        *("dataset_info.json", "features.json", "label.labels.txt", "videos.csv", "vswin.json")
    ]
    assert len(list(output.glob("packed_videos-*.array_record-*-of-*"))) == 4
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


def test_missing_packages_are_said(configure, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"Apache Beam cannot be imported .*`pip install apache-beam`, or leave beam="):
        run_prepare(configure(beam=[]))
    with pytest.raises(InputError, match=r"dataset\.isolate=true does not go with beam"):
        run_prepare(configure(beam=[], isolate=True))
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"packing needs the package array_record, .*: pip install array_record"):
        run_prepare(configure())


def test_space_is_looked_at_first(configure, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(
        InputError, match=r"takes about 0.1 MB more, and 0.0 MB are free in .*; name another output_dir"
    ):
        run_prepare(configure())
    assert not (tmp_path / "packed.partial").exists()


def failing_at(monkeypatch, name: str, error: OSError) -> None:
    """Makes the reading of one video fail during packing."""
    original = prepare._read

    def read(entry, *arguments):
        if entry.name == name:
            raise error
        return original(entry, *arguments)

    monkeypatch.setattr(prepare, "_read", read)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_work_goes_on_where_it_ended(configure, tmp_path: Path, monkeypatch, capsys, num_threads: int) -> None:
    monkeypatch.setattr(prepare, "count_cores", lambda: num_threads)
    with monkeypatch.context() as patch:
        failing_at(patch, "dark/3.avi", OSError(5, "Input/output error", "3.avi"))
        with pytest.raises(InputError, match=r"packing ended: .*Input/output error.* the same command goes on from t"):
            run_prepare(configure())
    work = tmp_path / "packed.partial"
    finished = {path.name: path.stat().st_mtime_ns for path in work.glob("*-of-?????")}
    assert len(finished) < 4
    assert not list(work.glob(".*"))
    run_prepare(configure())
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "packed").glob("*-of-*")}
    assert len(after) == 4
    assert finished.items() <= after.items()
    said = capsys.readouterr().out
    assert f"continues the unfinished work in {work}" in said
    assert (f"{len(finished)} of 4 files are there already" in said) == bool(finished)
    assert not list((tmp_path / "packed").glob(".*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "vswin.json"}


def test_files_are_the_same_whoever_writes_them(configure, tmp_path: Path, monkeypatch) -> None:
    for number in (1, 3):
        monkeypatch.setattr(prepare, "count_cores", lambda number=number: number)
        run_prepare(configure(output_dir=str(tmp_path / f"by_{number}")))
    assert contents(tmp_path / "by_1") == contents(tmp_path / "by_3")


def test_unfinished_work_on_another_plan_is_kept_apart(configure, small_videos, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, "dark/3.avi", OSError("full"))
        with pytest.raises(InputError, match="packing ended"):
            run_prepare(configure())
    for changed in ("settings", "videos", "list"):
        if changed == "videos":
            os.utime(small_videos / "dark" / "0.avi", (1, 1))
        if changed == "list":
            (small_videos / "dark" / "0.avi").unlink()
        with pytest.raises(InputError, match=r"packed.partial holds unfinished work on another plan"):
            run_prepare(configure(short_side=32) if changed == "settings" else configure())
    shutil.rmtree(tmp_path / "packed.partial")
    run_prepare(configure())


@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "changed video", "other order"])
def test_what_differs_from_its_video_is_found_and_made_anew(
    configure, small_videos, tmp_path: Path, monkeypatch, damage: str
) -> None:
    adapter = tfds.core.file_adapters.ArrayRecordFileAdapter
    original = adapter.write_examples

    def write_and_damage(path, records):
        original(path, records)
        if "train.array_record-00001-" not in path.name:
            return
        content = path.read_bytes()
        if damage == "flipped bit":
            path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
        elif damage == "cut off":
            path.write_bytes(content[:-100])
        elif damage == "changed video":
            for video in small_videos.glob("*/*.avi"):
                video.write_bytes(video.read_bytes() + b"more")
        else:
            records = ArrayRecordDataSource([str(path)])
            original(path, [("", records[number]) for number in reversed(range(len(records)))])

    with monkeypatch.context() as patch:
        patch.setattr(adapter, "write_examples", write_and_damage)
        with pytest.raises(
            InputError, match=r"is not what was to be packed: .* It is not kept; the same command makes"
        ):
            run_prepare(configure())
    assert not (tmp_path / "packed").exists()
    assert not list((tmp_path / "packed.partial").glob("*train*-00001-of-00003"))
    if damage != "changed video":
        run_prepare(configure())
        assert (tmp_path / "packed" / "vswin.json").exists()


def test_a_full_disk_is_said_and_leaves_no_halves(configure, small_videos, tmp_path: Path) -> None:
    """A limit on the file size fails like a full disk, in the library's own threads."""
    with (small_videos / "dark" / "0.avi").open("ab") as file:
        file.write(os.urandom(3_000_000))
    code = f"""
import resource, signal, sys
from vswin.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
sys.argv = ["vswin", "data", "prepare", "dataset=folder", "dataset.root={small_videos}", "shards=2",
            "output_dir={tmp_path / "packed"}"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert re.search(r"packing ended: write.* failed: .* the same command goes on from there", done.stderr), done.stderr
    assert not list((tmp_path / "packed.partial").glob(".*"))
    assert not (tmp_path / "packed").exists()


def test_larger_videos_are_re_encoded_and_others_kept(configure, small_videos, tmp_path: Path, capsys) -> None:
    (small_videos / "dark" / "broken.avi").write_bytes(b"broken" * 100)
    run_prepare(configure(short_side=32, val_fraction=0.17))
    said = capsys.readouterr().out
    assert "12 were re-encoded to a shorter side of 32 pixels, 1 were no larger, or could not be decoded" in said
    encoding = json.loads((tmp_path / "packed" / "vswin.json").read_text())["encoding"]
    assert encoding == {"codec": "libx264", "crf": 18, "preset": "medium", "pixels": "yuv420p"}


def test_a_decoder_that_crashes_costs_a_video_its_re_encoding_alone(configure, small_videos, tmp_path, monkeypatch):
    """Without our check, OpenCV really crashes at a name that is not UTF-8, with a segmentation fault."""
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


def test_re_encoded_videos_must_have_all_their_frames(configure, small_videos, ffmpeg, tmp_path, monkeypatch) -> None:
    original = prepare._read

    def read_and_lengthen(entry, *arguments):
        content = original(entry, *arguments)
        if entry.name == "dark/3.avi":
            ffmpeg("-stream_loop", "1", "-i", entry.file, "-c", "copy", str(tmp_path / "longer.avi"))
            (tmp_path / "longer.avi").replace(entry.file)
        return content

    monkeypatch.setattr(prepare, "_read", read_and_lengthen)
    with pytest.raises(InputError, match=r"3.avi has 24 frames, packed are 12"):
        run_prepare(configure(short_side=20))


def test_videos_that_are_no_files_and_names_outside_the_root(configure, small_videos, tmp_path: Path) -> None:
    lines = [f"{small_videos}/dark/{number}.avi,{number % 2}" for number in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    (tmp_path / "root").mkdir()
    config = configure(root=str(tmp_path / "root"), shards=2)
    config.dataset.train_list = config.dataset.val_list = str(tmp_path / "list.csv")
    run_prepare(config)
    with (tmp_path / "packed" / "videos.csv").open() as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert names == [os.path.relpath(f"{small_videos}/dark/{number}.avi", tmp_path / "root") for number in range(4)] * 2
    (small_videos / "dark" / "0.avi").unlink()
    os.mkfifo(small_videos / "dark" / "0.avi")
    config.output_dir = str(tmp_path / "again")
    with pytest.raises(InputError, match=r"1 of the 4 videos are no files that can be read, e.g. .*0.avi; `vswin data"):
        run_prepare(config)


class Steps(list):
    """Stands for Beam's pipeline and collections, and runs each step immediately."""

    def __or__(self, step):
        return Steps(pickle.loads(pickle.dumps(element)) for element in step(self))

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_beam_packs_what_the_cores_do(configure, tmp_path: Path, monkeypatch) -> None:
    """Elements and function are pickled, as for remote workers."""
    beam = types.SimpleNamespace(
        Pipeline=lambda options: Steps(),
        Create=lambda elements: lambda steps: elements,
        Reshuffle=lambda: lambda steps: steps[::-1],
        Map=lambda function: lambda steps: list(map(pickle.loads(pickle.dumps(function)), steps)),
        options=types.SimpleNamespace(pipeline_options=types.SimpleNamespace(PipelineOptions=list)),
    )
    run_prepare(configure(output_dir=str(tmp_path / "by_cores")))
    monkeypatch.setattr(prepare, "_import_beam", lambda: beam)
    run_prepare(configure(beam=["--runner=DirectRunner"], output_dir=str(tmp_path / "by_beam")))
    assert contents(tmp_path / "by_cores") == contents(tmp_path / "by_beam")


def test_beam_itself_packs_the_same_files(configure, tmp_path: Path) -> None:
    pytest.importorskip("apache_beam", reason="Apache Beam is an optional, large dependency")
    run_prepare(configure(output_dir=str(tmp_path / "by_cores")))
    run_prepare(configure(beam=["--runner=DirectRunner"], output_dir=str(tmp_path / "by_beam")))
    assert contents(tmp_path / "by_cores") == contents(tmp_path / "by_beam")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_killed_work_is_continued(small_videos, tmp_path: Path, stop: signal.Signals) -> None:
    code = """
import sys, time
from vswin.cli import main
from vswin.data import prepare
original = prepare._read
def slow(*arguments):
    time.sleep(0.5)
    return original(*arguments)
prepare._read = slow
prepare.count_cores = lambda: 1
sys.argv = ["vswin", "data", "prepare", *sys.argv[1:]]
main()
"""
    keys = {
        "dataset": "folder",
        "dataset.root": small_videos,
        "dataset.val_fraction": 0.17,
        "output_dir": tmp_path / "packed",
        "shards": 3,
    }
    command = [sys.executable, "-c", code, *(f"{key}={value}" for key, value in keys.items())]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in running.stdout:
        if "is written" in line:
            break
    running.send_signal(stop)
    running.communicate(timeout=60)
    assert running.returncode in (-signal.SIGKILL, 130)
    finished = list((tmp_path / "packed.partial").glob("packed_videos-*-of-?????"))
    assert 1 <= len(finished) <= 2
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of 4 files are there already" in done.stdout
    splits = tfds.builder_from_directory(tmp_path / "packed").as_data_source()
    assert {name: len(list(records)) for name, records in splits.items()} == {"train": 10, "val": 2}
    assert not list((tmp_path / "packed").glob(".*"))


def test_data_set_of_one_split_is_packed(configure, small_videos, tmp_path: Path) -> None:
    lines = [f"{name}/{number}.avi {label}" for label, name in enumerate(("bright", "dark")) for number in range(6)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    config = configure()
    config.dataset.train_list = config.dataset.val_list = str(tmp_path / "list.txt")
    run_prepare(config)
    builder = tfds.builder_from_directory(tmp_path / "packed")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 12, "val": 12}
