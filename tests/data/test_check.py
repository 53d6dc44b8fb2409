"""Tests of vswin.data.check: the whole command on real files, good and bad."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vswin.cli import main
from vswin.data import check as check_module
from vswin.data.catalog import load_catalog


@pytest.fixture
def vswin(monkeypatch, capsys):
    """Runs `vswin data check` and gives its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*overrides):
        monkeypatch.setattr(sys, "argv", ["vswin", "data", "check", *map(str, overrides)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def listed(small_videos, tmp_path):
    """Makes lists of the small videos, with the keys that name them."""

    def make(train, val):
        for name, paths in (("t", train), ("v", val)):
            lines = [f"{path},{path.split('/')[0]}\n" for path in paths]
            (tmp_path / f"{name}.csv").write_text("".join(lines))
        return (
            "dataset=folder",
            "clip=8x1_64px",
            "clip.crop=32",
            f"dataset.root={small_videos}",
            f"dataset.train_list={tmp_path / 't.csv'}",
            f"dataset.val_list={tmp_path / 'v.csv'}",
        )

    return make


def read_report(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["kind"], row["subset"], row["class"], row["path"]) for row in csv.DictReader(file)]


def test_a_data_set_in_order(vswin, small_videos, tmp_path):
    code, text = vswin(
        "dataset=folder", "clip=8x1_64px", f"dataset.root={small_videos}", "decode=true", f"report={tmp_path / 'r.csv'}"
    )
    assert code == 0
    assert "2 classes, 10 training videos, 2 validation videos" in text
    assert "nothing is wrong" in text
    rows = {line[:16].strip(): line[16:].split() for line in text.splitlines()}
    assert rows["frames"] == ["120", "24"]
    assert rows["usual frame"] == ["48", "x", "40", "(100%)"] * 2
    assert rows["largest class"] == ["5", "(bright)", "1", "(bright)"]
    assert read_report(tmp_path / "r.csv") == []


def test_everything_that_may_be_wrong(vswin, listed, small_videos, tmp_path, write_video):
    shutil.copy(small_videos / "bright/0.avi", small_videos / "dark/copy.avi")
    shutil.copy(small_videos / "bright/1.avi", small_videos / "bright/copy.avi")
    shutil.copy(small_videos / "bright/2.avi", small_videos / "bright/val.avi")
    (small_videos / "bright/3.avi").write_text("no video")
    (small_videos / "dark/4.avi").write_bytes((small_videos / "dark/4.avi").read_bytes()[:2000])
    shutil.copy(write_video("short.avi", 5, 48, 64), small_videos / "dark/short.avi")
    shutil.copy(write_video("tiny.avi", 8, 12, 16), small_videos / "dark/tiny.avi")
    train = [f"bright/{name}.avi" for name in (*range(6), 0, "copy")] + [f"dark/{name}.avi" for name in (*range(6), 9)]
    keys = listed([*train, "dark/copy.avi", "dark/short.avi", "dark/tiny.avi"], ["bright/val.avi", "bright/5.avi"])
    code, text = vswin(*keys, f"report={tmp_path / 'new' / 'r.csv'}", f"clean_lists={tmp_path / 'clean'}")
    assert code == 1
    found = read_report(tmp_path / "new" / "r.csv")
    assert [(kind, subset, name, Path(path).name) for kind, subset, name, path in found] == [
        ("missing", "train", "dark", "9.avi"),
        ("broken", "train", "bright", "3.avi"),
        ("broken", "train", "dark", "4.avi"),
        ("in training and validation", "val", "bright", "val.avi"),
        ("in training and validation", "val", "bright", "5.avi"),
        ("two labels", "train", "dark", "copy.avi"),
        ("listed twice", "train", "bright", "0.avi"),
        ("same content", "train", "bright", "copy.avi"),
        ("empty class", "val", "dark", ""),
        ("short", "train", "dark", "short.avi"),
        ("small", "train", "dark", "tiny.avi"),
    ]
    assert "bright/3.avi: not a video (" in text
    assert "dark/4.avi: truncated (" in text
    assert f"bright/val.avi: as {small_videos}/bright/2.avi, training, bright" in text
    assert "bright/5.avi: as the same file, training, bright" in text
    assert "dark/short.avi: 5 frames, a clip spans 8" in text
    assert "dark/tiny.avi: 16 x 12, less than half of the crop of 32" in text


def test_clean_lists_read_back_without_the_bad_videos(vswin, listed, small_videos, tmp_path, compose_train):
    (small_videos / "bright/3.avi").write_text("no video")
    train = [f"{name}/{number}.avi" for name in ("bright", "dark") for number in range(5)]
    keys = listed([*train, "dark/gone.avi"], ["bright/5.avi", "dark/5.avi"])
    clean = tmp_path / "clean"
    code, text = vswin(*keys, f"clean_lists={clean}")
    assert code == 1
    assert f"clean lists: dataset.train_list={clean}/train.csv dataset.val_list={clean}/val.csv" in text
    assert (clean / "val.csv").read_text().split() == ["path,label", "bright/5.avi,bright", "dark/5.avi,dark"]
    lists = [f"dataset.train_list={clean}/train.csv", f"dataset.val_list={clean}/val.csv"]
    catalog = load_catalog(compose_train(*keys[:4], *lists).dataset)
    assert [Path(video.path).relative_to(small_videos).as_posix() for video in catalog.train] == [
        path for path in train if path != "bright/3.avi"
    ]
    assert vswin(*keys[:4], *lists)[0] == 0


def test_counts_are_compared_with_the_official_ones(vswin, small_videos, tmp_path):
    for number, folder in enumerate(("clap", "wave")):
        shutil.copytree(small_videos / ("bright", "dark")[number], tmp_path / "v" / folder)
    (tmp_path / "splits").mkdir()
    uses = (1, 1, 1, 1, 1, 2)
    for name in ("clap", "wave"):
        lines = [f"{number}.avi {use} \n" for number, use in enumerate(uses)]
        (tmp_path / "splits" / f"{name}_test_split2.txt").write_text("".join(lines))
    code, text = vswin("dataset=hmdb51", f"dataset.root={tmp_path / 'v'}", "dataset.split=2")
    assert code == 0
    assert "10 (-3,560 to the official 3,570)" in " ".join(text.split())
    assert "2 (-1,528 to the official 1,530)" in " ".join(text.split())
    assert "empty class: 98" in text
    assert "short: 12" in text
    assert "and 9 more" in text


def test_names_that_are_not_text_do_no_harm(vswin, small_videos, tmp_path):
    odd = os.fsencode(small_videos / "bright") + b"/\xff[red].avi"
    shutil.copy(small_videos / "bright/0.avi", odd)
    code, text = vswin(
        "dataset=folder", "clip=8x1_64px", f"dataset.root={small_videos}", f"report={tmp_path / 'r.csv'}"
    )
    assert code == 1
    assert "bright/\\udcff[red].avi: unusable name (not UTF-8; rename the file)" in text
    assert b"/\xff[red].avi," in (tmp_path / "r.csv").read_bytes()


def test_nothing_at_all_is_an_error(vswin, tmp_path):
    code, _ = vswin("dataset=ucf101", f"dataset.root={tmp_path / 'nowhere'}")
    assert code.startswith("error: UCF101: the folder")
    code, _ = vswin("dataset=ucf101", "dataset.source=tfds")
    assert "there are no files to check" in code


def test_an_interruption_leaves_what_was_found(vswin, small_videos, tmp_path, monkeypatch):
    inspect_file = check_module.inspect_file
    (small_videos / "bright/0.avi").write_text("no video")

    def interrupted(path, **options):
        if "dark" in path:
            raise KeyboardInterrupt
        return inspect_file(path, **options)

    monkeypatch.setattr(check_module, "inspect_file", interrupted)
    report, clean = tmp_path / "r.csv", tmp_path / "clean"
    code, text = vswin(
        *("dataset=folder", "clip=8x1_64px", f"dataset.root={small_videos}", f"report={report}", f"clean_lists={clean}")
    )
    assert code == 130
    assert "of 12 files were looked at" in text
    assert read_report(report) == [("broken", "train", "bright", str(small_videos / "bright/0.avi"))]
    assert not clean.exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_a_summary(small_videos, tmp_path):
    for number in range(2000):
        shutil.copy(small_videos / "bright/0.avi", small_videos / "bright" / f"copy{number}.avi")
    command = [sys.executable, "-c", "from vswin.cli import main; main()", "data", "check", "dataset=folder"]
    process = subprocess.Popen(
        [*command, f"dataset.root={small_videos}", f"report={tmp_path / 'r.csv'}"],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},  # the path may be long
    )
    line = process.stdout.readline()
    assert "2 classes" in line
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted:" in text
    assert "usable" in text
    assert (tmp_path / "r.csv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are always Unicode there")
def test_a_file_that_crashes_the_decoder_is_found_where_decoding_is_isolated(
    vswin, small_videos, tmp_path, monkeypatch
):
    # OpenCV ends the process at such a name, which is refused for that; in the processes that decode, here it is not.
    crash = os.path.join(os.fsencode(small_videos), b"dark", b"crash\xe9.avi")
    shutil.copy(small_videos / "dark" / "0.avi", crash)
    unchecked = "import vswin.data.inspection as d\nd.check_file = lambda path, content: None\n"
    (tmp_path / "sitecustomize.py").write_text(unchecked)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    overrides = ("dataset=folder", "clip=8x1_64px", f"dataset.root={small_videos}", f"report={tmp_path / 'r.csv'}")
    for decode in ("false", "true"):
        code, text = vswin(*overrides, "dataset.isolate=true", f"decode={decode}")
        assert code == 1
        assert "decoder crashed (SIGSEGV)" in text
        assert (tmp_path / "r.csv").read_bytes().count(b"\nbroken,") == 1
