"""Tests of vswin.data.check: the command on real files, good and bad, and which facts count as wrong."""

import csv
import io
import itertools
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from tests.conftest import make_group
from vswin.cli import main
from vswin.data import check as check_module
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.check import (
    FileFacts,
    Finding,
    find_problems,
    inspect_file,
    print_findings,
    print_summary,
    write_clean_lists,
)
from vswin.data.matching import UnusedEntry
from vswin.data.samples import Sample

GOOD = FileFacts(2_000_000, 99, 240, 320)
NAMES = ("hop", "run")
FOLDER = ("dataset=folder", "clip=8x1_64px")
CLIP = make_group("clip", num_frames=32, frame_stride=2, resize=256, crop=224)

inspect = partial(inspect_file, decoder="auto", timeout_sec=60)


@pytest.fixture
def vswin(monkeypatch, capsys):
    """Runs `vswin data check`; returns its exit code and output."""
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


def read_report(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["kind"], row["subset"], row["class"], row["path"]) for row in csv.DictReader(file)]


def test_a_data_set_in_order(vswin, small_videos, tmp_path):
    code, text = vswin(*FOLDER, f"dataset.root={small_videos}", "decode=true", f"report={tmp_path / 'r.csv'}")
    assert code == 0
    assert "2 classes, 10 training videos, 2 validation videos" in text
    assert "nothing is wrong" in text
    rows = {line[:16].strip(): line[16:].split() for line in text.splitlines()}
    assert rows["frames"] == ["120", "24"]
    assert rows["usual frame"] == ["48", "x", "40", "(100%)"] * 2
    assert rows["largest class"] == ["5", "(bright)", "1", "(bright)"]
    assert read_report(tmp_path / "r.csv") == []


def test_everything_that_may_be_wrong(vswin, small_videos, tmp_path, write_video, compose_train):
    shutil.copy(small_videos / "bright/0.avi", small_videos / "dark/copy.avi")
    shutil.copy(small_videos / "bright/1.avi", small_videos / "bright/copy.avi")
    shutil.copy(small_videos / "bright/2.avi", small_videos / "bright/val.avi")
    (small_videos / "bright/3.avi").write_text("no video")
    (small_videos / "dark/4.avi").write_bytes((small_videos / "dark/4.avi").read_bytes()[:2000])
    shutil.copy(write_video("short.avi", 5, 48, 64), small_videos / "dark/short.avi")
    shutil.copy(write_video("tiny.avi", 8, 12, 16), small_videos / "dark/tiny.avi")
    train = [f"bright/{name}.avi" for name in (*range(6), 0, "copy")] + [f"dark/{name}.avi" for name in (*range(6), 9)]
    train += ["dark/copy.avi", "dark/short.avi", "dark/tiny.avi"]
    for name, paths in (("t", train), ("v", ["bright/val.avi", "bright/5.avi"])):
        (tmp_path / f"{name}.csv").write_text("".join(f"{path},{path.split('/')[0]}\n" for path in paths))
    keys = (*FOLDER, "clip.crop=32", f"dataset.root={small_videos}")
    lists = (f"dataset.train_list={tmp_path / 't.csv'}", f"dataset.val_list={tmp_path / 'v.csv'}")
    code, text = vswin(*keys, *lists, f"report={tmp_path / 'new' / 'r.csv'}", f"clean_lists={tmp_path / 'clean'}")
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

    clean = tmp_path / "clean"
    assert f"clean lists: dataset.train_list={clean}/train.csv dataset.val_list={clean}/val.csv" in text
    assert (clean / "val.csv").read_text().split() == ["path,label", "bright/val.avi,bright", "bright/5.avi,bright"]
    lists = [f"dataset.train_list={clean}/train.csv", f"dataset.val_list={clean}/val.csv"]
    catalog = load_catalog(compose_train(*keys, *lists).dataset)
    found = [Path(video.path).relative_to(small_videos).as_posix() for video in catalog.train]
    bad = ("bright/3.avi", "dark/4.avi", "dark/9.avi")
    assert [path for path in dict.fromkeys(train) if path not in bad] == found
    assert vswin(*keys, *lists)[0] == 0


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


def test_folders_of_pictures_of_jester(vswin, tmp_path):
    for video, number in itertools.product(("100023", "100024"), range(1, 37)):
        path = tmp_path / "videos" / video / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((100, 176, 3), number * int(video) % 255, np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/jester-v1-train.csv").write_text("100023;Swiping Left\n")
    (tmp_path / "labels/jester-v1-validation.csv").write_text("100024;Shaking Hand\n")
    code, text = vswin("dataset=jester", f"dataset.root={tmp_path / 'videos'}", "decode=true")
    assert code == 0
    assert "27 classes, 1 training video, 1 validation video" in text
    assert "1 (-14,786 to the official 14,787)" in " ".join(text.split())


def test_names_that_are_not_text_do_no_harm(vswin, small_videos, tmp_path):
    odd = os.fsencode(small_videos / "bright") + b"/\xff[red].avi"
    shutil.copy(small_videos / "bright/0.avi", odd)
    code, text = vswin(*FOLDER, f"dataset.root={small_videos}", f"report={tmp_path / 'r.csv'}")
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
    code, text = vswin(*FOLDER, f"dataset.root={small_videos}", f"report={report}", f"clean_lists={clean}")
    assert code == 130
    assert "of 12 samples were looked at" in text
    assert read_report(report) == [("broken", "train", "bright", str(small_videos / "bright/0.avi"))]
    assert not clean.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are always Unicode there")
def test_a_file_that_crashes_the_decoder_is_found_where_decoding_is_isolated(
    vswin, small_videos, tmp_path, monkeypatch
):
    # OpenCV ends the process at such a name; vswin refuses these names, but not here in the decoding processes.
    crash = os.path.join(os.fsencode(small_videos), b"dark", b"crash\xe9.avi")
    shutil.copy(small_videos / "dark" / "0.avi", crash)
    unchecked = "import vswin.data.inspection as d\nd.check_file = lambda path, content: None\n"
    (tmp_path / "sitecustomize.py").write_text(unchecked)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    for decode in ("false", "true"):
        keys = (f"dataset.root={small_videos}", f"report={tmp_path / 'r.csv'}", f"decode={decode}")
        code, text = vswin(*FOLDER, *keys, "dataset.isolate=true")
        assert code == 1
        assert "decoder crashed (SIGSEGV)" in text
        assert (tmp_path / "r.csv").read_bytes().count(b"\nbroken,") == 1


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=80, highlight=False)


def rows_of(console):
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_summary(console, compose_train):
    catalog = Catalog(("hop", "run [fast]"), [Sample("a", (0,)), Sample("b", (1,))], [Sample("c", (1,))])
    facts = {"a": GOOD, "b": FileFacts(5, reason="empty"), "c": GOOD._replace(num_bytes=3 * 10**9)}
    print_summary(console, compose_train("dataset=folder").dataset, catalog, facts)
    assert rows_of(console) == [
        "                  training             validation",
        "listed            2                    1",
        "there             2                    1",
        "usable            1                    1",
        "size on disk      2.0 MB               3.0 GB",
        "frames            99                   99",
        "frames per video  99 to 99, median 99  99 to 99, median 99",
        "usual frame       320 x 240 (100%)     320 x 240 (100%)",
        "smallest class    1 (hop)              0 (hop)",
        "median class      1                    0",
        "largest class     1 (hop)              1 (run [fast])",
    ]


def test_the_first_findings_of_each_kind(console):
    findings = [Finding("broken", "train", "hop", f"/data/v/hop/[b]{number}.mp4", "empty") for number in range(1234)]
    findings.append(Finding("empty class", "val", "run", "", "no validation videos"))
    print_findings(console, findings, "/data/v")
    assert rows_of(console) == [
        "broken: 1,234",
        *(f"  hop/[b]{number}.mp4: empty" for number in range(3)),
        "  and 1,231 more",
        "empty class: 1",
        "  run: no validation videos",
    ]


def test_clean_lists(tmp_path):
    root = tmp_path / "v"
    train = [Sample(f"{root}/hop, a.mp4", (0,)), Sample("/elsewhere/b.mp4", (1,)), Sample(f"{root}/c.mp4", (1,))]
    facts = {video.path: GOOD for video in train} | {f"{root}/c.mp4": FileFacts(0, reason="empty")}
    # A class with a number for a name is written as an index, since a list would read the number as one.
    for names, labels in ((("hop", "run"), ("hop", "run")), (("1", "0"), ("0", "1"))):
        catalog = Catalog(names, train, [Sample(f"{root}/c.mp4", (1,))])
        written = write_clean_lists(tmp_path / "lists", catalog, facts, str(root))
        assert written == [tmp_path / "lists" / "train.csv"]
        assert written[0].read_text() == f'path,label\n"hop, a.mp4",{labels[0]}\n/elsewhere/b.mp4,{labels[1]}\n'


def find(facts, hashes=None, val=(), missing=(), clip=CLIP):
    """Takes files of training videos by class: {"hop/a": facts}."""
    train = [Sample(path, (NAMES.index(path.split("/")[0]),)) for path in facts]
    catalog = Catalog(NAMES, train, list(val), missing={"val": tuple(missing)})
    findings = find_problems(catalog, facts, hashes or {}, clip)
    return [(finding.kind, finding.subset, finding.path, finding.detail) for finding in findings]


def test_missing_and_broken_and_short_and_small():
    facts = {
        "hop/a": FileFacts(1, 62, 240, 320),
        "hop/b": FileFacts(1, reason="truncated (1 of 9)"),
        "run/c": FileFacts(1, 63, 111, 320),
        "run/d": FileFacts(1, 63, 320, 112),
    }
    missing = [UnusedEntry("val.csv:7", "run/z", (1,))]
    assert find(facts, missing=missing) == [
        ("missing", "val", "run/z", "val.csv:7"),
        ("broken", "train", "hop/b", "truncated (1 of 9)"),
        ("short", "train", "hop/a", "62 frames, a clip spans 63"),
        ("small", "train", "run/c", "320 x 111, less than half of the crop of 224"),
    ]
    clip = replace(CLIP, sampling="segments", num_clips=1)
    facts = {"hop/a": FileFacts(1, 31, 240, 320), "run/b": FileFacts(1, 32, 240, 320)}
    assert find(facts, clip=clip) == [("short", "train", "hop/a", "31 frames, a clip spans 32")]


def test_other_sizes_are_odd_where_nearly_all_have_one():
    facts = {f"hop/{number}": FileFacts(1, 99, 240, 320) for number in range(9)}
    facts["run/x"] = FileFacts(1, 99, 320, 240)
    assert find(facts) == [("other size", "train", "run/x", "240 x 320, nearly all are 320 x 240")]
    facts["run/y"] = FileFacts(1, 99, 256, 256)
    assert find(facts) == []


@pytest.mark.parametrize("decode", [False, True])
def test_facts_of_a_good_file(write_video, decode):
    path = write_video("good.avi", 15, height=48, width=64)
    facts = inspect(path, decode=decode)
    assert facts[1:] == (15, 48, 64, "", "")
    assert facts.num_bytes > 1000


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "FileNotFoundError"),
        ("empty", "empty (0 bytes)"),
        ("text", "not a video"),
        ("truncated mp4", "truncated"),
        ("one frame avi", "one frame"),
        ("unknown codec", "unknown codec"),
    ],
)
def test_reasons_of_bad_files(bad_files, name, reason):
    facts = inspect(bad_files[name], decode=False)
    assert facts.reason.startswith(reason)
    assert facts[1:4] == (0, 0, 0)


def test_damage_after_the_beginning_is_found_by_decoding_everything(tmp_path, write_video):
    content = bytearray(Path(write_video("damaged.avi", 40)).read_bytes())
    position = content.index(b"movi")
    for number in range(40):
        position = content.index(b"00dc", position)
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        if number >= 20:
            content[position + 8 : position + 8 + length] = bytes(length)
        position += 8 + length
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    assert inspect(str(path), decode=False)[1:] == (40, 48, 64, "", "")
    assert inspect(str(path), decode=True).reason == "truncated (20 of 40 frames are there)"


def test_a_decoder_may_fail_or_take_too_long(write_video, monkeypatch):
    path = write_video("good.avi", 15)
    assert "too slow" in inspect_file(path, "auto", 1e-9, decode=False).reason
    assert inspect_file(path, "auto", 1e-9, decode=True).reason == ""
    monkeypatch.setattr("vswin.data.decode.VideoReader", lambda *_, **__: 1 / 0)
    assert inspect(path, decode=False).reason == "ZeroDivisionError: division by zero"
