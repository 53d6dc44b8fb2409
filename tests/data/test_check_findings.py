"""Tests of vswin.data.check_findings: facts of real files, and which invented facts count as wrong."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from vswin.config.schema import ClipConfig
from vswin.data import decode
from vswin.data.catalog import Catalog
from vswin.data.check_findings import FileFacts, find_problems, hash_file, inspect_file
from vswin.data.labels import MissingVideo
from vswin.data.records import VideoRecord

inspect = partial(inspect_file, decoder="auto", timeout_sec=60)
NAMES = ("hop", "run")
CLIP = ClipConfig(
    num_frames=32,
    frame_stride=2,
    resize=256,
    crop=224,
    num_clips=4,
    num_crops=3,
    sampling="dense",
    spacing="centred",
    views_per_step=4,
)


def find(facts, hashes=None, val=(), missing=(), clip=CLIP):
    """Takes files of training videos by class: {"hop/a": facts}."""
    train = [VideoRecord(path, NAMES.index(path.split("/")[0])) for path in facts]
    catalog = Catalog(NAMES, train, list(val), missing={"val": tuple(missing)})
    findings = find_problems(catalog, facts, hashes or {}, clip)
    return [(finding.kind, finding.subset, finding.path, finding.detail) for finding in findings]


def test_nothing_wrong():
    assert find({"hop/a": FileFacts(1, 63, 240, 320), "run/b": FileFacts(1, 300, 240, 320)}) == []


def test_broken_and_short_and_small():
    facts = {
        "hop/a": FileFacts(1, 62, 240, 320),
        "hop/b": FileFacts(1, reason="truncated (1 of 9)"),
        "run/c": FileFacts(1, 63, 111, 320),
        "run/d": FileFacts(1, 63, 320, 112),
    }
    assert find(facts) == [
        ("broken", "train", "hop/b", "truncated (1 of 9)"),
        ("short", "train", "hop/a", "62 frames, a clip spans 63"),
        ("small", "train", "run/c", "320 x 111, less than half of the crop of 224"),
    ]


def test_segments_need_as_many_frames_as_there_are():
    clip = replace(CLIP, sampling="segments", num_clips=1)
    facts = {"hop/a": FileFacts(1, 31, 240, 320), "run/b": FileFacts(1, 32, 240, 320)}
    assert find(facts, clip=clip) == [("short", "train", "hop/a", "31 frames, a clip spans 32")]


def test_other_sizes_are_odd_where_nearly_all_have_one():
    facts = {f"hop/{number}": FileFacts(1, 99, 240, 320) for number in range(9)}
    facts["run/x"] = FileFacts(1, 99, 320, 240)
    assert find(facts) == [("other size", "train", "run/x", "240 x 320, nearly all are 320 x 240")]
    facts["run/y"] = FileFacts(1, 99, 256, 256)
    assert find(facts) == []


def test_missing_videos():
    missing = [MissingVideo("val.csv:7", "run/z", 1)]
    assert find({"hop/a": FileFacts(1, 99, 240, 320), "run/b": FileFacts(1, 99, 240, 320)}, missing=missing) == [
        ("missing", "val", "run/z", "val.csv:7")
    ]


def test_same_content_in_several_places():
    good = FileFacts(1, 99, 240, 320)
    facts = dict.fromkeys(("hop/a", "hop/b", "run/c", "run/d"), good)
    val = [VideoRecord("run/e", 1), VideoRecord("hop/f", 0), VideoRecord("run/d", 1)]
    hashes = {"hop/a": "1", "hop/b": "1", "run/c": "1", "run/e": "1", "run/d": "2"}
    assert find(facts, hashes, val) == [
        ("in training and validation", "val", "run/e", "as hop/a, training, hop"),
        ("in training and validation", "val", "run/d", "as the same file, training, run"),
        ("two labels", "train", "run/c", "as hop/a, training, hop"),
        ("same content", "train", "hop/b", "as hop/a, training, hop"),
    ]


def test_a_file_that_is_listed_twice_is_broken_once():
    again = MissingVideo("train.csv:2", "hop/a", 0)
    catalog = Catalog(NAMES, [VideoRecord("hop/a", 0), VideoRecord("run/b", 1)], [], repeated={"train": (again,)})
    facts = {"hop/a": FileFacts(1, reason="empty"), "run/b": FileFacts(1, 99, 240, 320)}
    findings = find_problems(catalog, facts, {}, CLIP)
    assert [finding.kind for finding in findings] == ["broken", "listed twice"]


def test_empty_classes():
    assert find({"run/a": FileFacts(1, 99, 240, 320)}) == [("empty class", "train", "", "no training videos")]


def test_files_that_were_not_looked_at_are_not_judged():
    catalog = Catalog(NAMES, [VideoRecord("a", 0), VideoRecord("b", 1)], [])
    assert find_problems(catalog, {}, {}, CLIP) == []


@pytest.mark.parametrize("decode", [False, True])
def test_facts_of_a_good_file(write_video, decode):
    path = write_video("good.avi", 15, height=48, width=64)
    facts = inspect(path, decode=decode)
    assert facts[1:] == (15, 48, 64, "")
    assert facts.num_bytes > 1000


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "FileNotFoundError"),
        ("empty", "empty (0 bytes)"),
        ("text", "not a video"),
        ("folder", "not a video (a folder)"),
        ("audio", "not a video (sound only)"),
        ("truncated avi", "truncated"),
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
    place = content.index(b"movi")
    for number in range(40):
        place = content.index(b"00dc", place)
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        if number >= 20:
            content[place + 8 : place + 8 + length] = bytes(length)
        place += 8 + length
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    assert inspect(str(path), decode=False)[1:] == (40, 48, 64, "")
    assert inspect(str(path), decode=True).reason == "truncated (20 of 40 frames are there)"


def test_a_decoder_that_fails_otherwise_does_not_end_the_check(write_video, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(decode, "VideoReader", fail)
    assert inspect(write_video("good.avi", 15), decode=False).reason == "RuntimeError: no memory"


def test_the_time_limit_is_for_beginnings_alone(write_video):
    path = write_video("good.avi", 15)
    assert "too slow" in inspect_file(path, "auto", 1e-9, decode=False).reason
    assert inspect_file(path, "auto", 1e-9, decode=True).reason == ""


def test_hashes_are_of_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    shutil.copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(b"x" * 2_999_999 + b"y")
    digests = [hash_file(str(tmp_path / name)) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert hash_file(str(tmp_path / "gone")) == str(tmp_path / "gone")
