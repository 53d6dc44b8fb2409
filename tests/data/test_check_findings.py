"""Tests of vswin.data.check_findings: what counts as wrong, on facts that are made up."""

from dataclasses import replace

from vswin.data.catalog import Catalog
from vswin.data.check_files import FileFacts
from vswin.data.check_findings import Balance, Finding, count_kinds, find_problems, measure_balance, usual_size
from vswin.data.labels import MissingVideo
from vswin.data.records import VideoRecord
from vswin.schema import ClipConfig

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


def test_balance():
    videos = [VideoRecord("x", label) for label, count in enumerate((3, 1, 4, 1, 0)) for _ in range(count)]
    assert measure_balance(videos, "abcde") == Balance(("e", 0), 1, ("c", 4))
    assert measure_balance(videos[:4], "ab") == Balance(("b", 1), 2, ("a", 3))


def test_the_usual_size():
    facts = [FileFacts(1, 9, 4, 3)] * 3 + [FileFacts(1, 9, 3, 4)]
    assert usual_size(facts) == (4, 3, 0.75)


def test_kinds_keep_their_order():
    findings = [
        Finding(kind, "train", "", "", detail) for kind, detail in (("broken", "1"), ("short", "2"), ("broken", "3"))
    ]
    assert {kind: [finding.detail for finding in found] for kind, found in count_kinds(findings).items()} == {
        "broken": ["1", "3"],
        "short": ["2"],
    }
