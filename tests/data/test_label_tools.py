"""Labels of annotation tools: every form as it is exported, converted and read back, and broken or hostile files."""

import contextlib
import csv
import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.data.catalog import load_catalog
from vswin.data.label_tools import read_labels
from vswin.data.label_writers import WRITERS, write_labels
from vswin.data.lists import ListEntry
from vswin.data.samples import Part, Region, Segment
from vswin.errors import InputError
from vswin.tools.convert_labels import run_convert_labels


def seconds(start, end, region=None):
    return Part(Segment(start, end), region)


def frames(start, end, region=None):
    return Part(Segment(start, end, in_frames=True), region)


def timeline(label, start, end, **more):
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {
        "id": "Zk3xQ",
        "from_name": "videoLabels",
        "to_name": "video",
        "type": "timelinelabels",
        "value": value,
        **more,
    }


def task(video, *annotations, **data):
    return {
        "id": 7,
        "data": {"video": video, **data},
        "predictions": [{"result": [timeline("guess", 1, 9)]}],
        "annotations": [
            {"id": 3, "completed_by": {"id": 1, "email": "jane@example.org"}, "was_cancelled": False, "result": some}
            for some in annotations
        ],
        "meta": {},
        "file_upload": "ab12cd34-match.mp4",
    }


CHOICE = {"type": "choices", "from_name": "kind", "to_name": "video", "value": {"choices": ["rally"]}}
BOX = {"type": "videorectangle", "value": {"framesCount": 120, "duration": 5.0, "sequence": [], "labels": ["ball"]}}
LABEL_STUDIO = [
    task("/data/upload/1/ab12cd34-match.mp4", [timeline("serve", 1, 50), timeline("rally", 51, 100)], fps=25),
    task("/data/local-files/?d=clips/other%20match.mp4", [timeline("serve", 11, 20), CHOICE]),
    task("boxes.mp4", [timeline("serve", 1, 48), BOX]),
    task("s3://bucket/clips/third.mp4", [CHOICE], [timeline("serve", 1, 2)], split="test"),
    task("https://host.org/videos/empty.mp4?token=5"),
]
LABEL_STUDIO[3]["annotations"].insert(0, {"was_cancelled": True, "result": [timeline("wrong", 1, 2)]})
JSON_MIN = [
    {
        "video": "/data/upload/1/ab12cd34-match.mp4",
        "id": 7,
        "videoLabels": [{"ranges": [{"start": 1, "end": 50}], "timelinelabels": ["serve"]}],
        "annotator": 1,
        "annotation_id": 3,
        "created_at": "2026-01-01T00:00:00Z",
    },
    {"video": "/data/upload/1/ab12cd34-b.mp4", "choice": "rally", "annotator": 1, "annotation_id": 4},
]
ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [],
    "database": {
        "match": {
            "duration": 82.7,
            "subset": "training",
            "resolution": "1920x1080",
            "url": "https://host.org/watch?v=match",
            "annotations": [{"segment": [17.25, 60.5], "label": "rally"}, {"segment": [0, 3], "label": "serve"}],
        },
        "hidden": {"duration": 9.0, "subset": "testing", "annotations": []},
        "other": {"subset": "validation", "annotations": [{"segment": [1, 2], "label": "serve"}]},
    },
}
VIA = {
    "project": {"pid": "__VIA_PROJECT_ID__", "pname": "Jane's matches", "vid_list": ["1", "2"]},
    "config": {},
    "attribute": {
        "1": {"aname": "TEMPORAL-SEGMENTS", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "serve"}},
        "2": {"aname": "comment", "anchor_id": "FILE1_Z2_XY0", "type": 1, "options": {}},
        "3": {"aname": "class", "anchor_id": "FILE1_Z0_XY0", "type": 2, "options": {"0": "indoor", "1": "double"}},
    },
    "file": {
        "1": {"fid": "1", "fname": "match.mp4", "type": 4, "loc": 1, "src": ""},
        "2": {"fid": "2", "fname": "other.mp4", "type": 4, "loc": 3, "src": "file:///home/jane/other.mp4"},
    },
    "metadata": {
        "1_aaaaaaaa": {"vid": "1", "flg": 0, "z": [0.5, 2.25], "xy": [], "av": {"1": "0", "2": "nice"}},
        "1_bbbbbbbb": {"vid": "1", "flg": 0, "z": [3, 4], "xy": [], "av": {"1": "rally"}},
        "1_cccccccc": {"vid": "1", "flg": 0, "z": [1.0], "xy": [2, 10, 10, 50, 50], "av": {"1": "0"}},
        "2_dddddddd": {"vid": "2", "flg": 0, "z": [], "xy": [], "av": {"3": "0,1"}},
        "2_eeeeeeee": {"vid": "2", "flg": 0, "z": [1, 2], "xy": [], "av": {}},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
}
OSL = {
    "version": "2.0",
    "metadata": {"split": "train", "created_by": "Jane Doe"},
    "labels": {
        "foul": {"type": "single_label", "labels": ["yes", "no"]},
        "action": {"type": "single_label", "labels": ["serve", "rally"]},
    },
    "data": [
        {
            "id": "play_1",
            "inputs": [{"type": "video", "path": "wide/1.mp4", "fps": 25.0}, {"type": "video", "path": "near/1.mp4"}],
            "labels": {"action": {"label": "serve"}, "foul": {"label": "no"}},
        },
        {
            "inputs": [{"type": "video", "path": "game.mp4"}, {"type": "tracking_parquet", "path": "game.parquet"}],
            "events": [
                {"head": "action", "label": "rally", "position_ms": "8500", "gameTime": "1 - 00:08"},
                {"head": "action", "label": "serve", "position_ms": 400},
                {"head": "foul", "label": "yes", "position_ms": 1},
            ],
        },
    ],
}
ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="Jane Doe" DATE="2026-01-01T10:00:00+00:00" FORMAT="3.0" VERSION="3.0">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/jane/match.wav" MIME_TYPE="audio/x-wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/jane/my%20match.mp4" MIME_TYPE="video/mp4" TIME_ORIGIN="500"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="2500"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="4000"/>
  </TIME_ORDER>
  <TIER TIER_ID="speech" PARTICIPANT="Jane Doe" LINGUISTIC_TYPE_REF="default-lt">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>well done</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="Actions" ANNOTATOR="Jane Doe" LINGUISTIC_TYPE_REF="default-lt">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>serve</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE>rally</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a4" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="notes" PARENT_REF="Actions" LINGUISTIC_TYPE_REF="notes">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a2">
      <ANNOTATION_VALUE>fast</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>"""


def box(frame, left, top, outside=0):
    sides = f'xtl="{left}" ytl="{top}" xbr="{left + 100}" ybr="{top + 50}"'
    return f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" {sides} z_order="0"></box>'


CVAT = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><id>5</id><name>match</name><size>300</size><mode>interpolation</mode><frame_filter>step=2</frame_filter>
      <owner><username>jane</username><email>jane@example.org</email></owner></task>
    <source>match.mp4</source>
  </meta>
  <track id="0" label="serve" source="manual">
    {box(10, 20, 30)}{box(14, 40, 10)}{box(16, 40, 10, 1)}{box(30, 0, 0)}{box(32, 5, 5)}
  </track>
  <track id="1" label="ball" source="manual"><points frame="3" outside="0" points="1.0,2.0"></points></track>
  <image id="40" name="frame_000040"><tag label="rally" source="manual"></tag></image>
  <image id="42" name="frame_000042"><tag label="rally" source="manual"></tag></image>
  <tag label="rally" frame="50" source="manual"/>
</annotations>"""

READ = {
    "label-studio": (
        LABEL_STUDIO,
        [
            ("match.mp4", "serve", seconds(0, 2)),
            ("match.mp4", "rally", seconds(2, 4)),
            ("clips/other match.mp4", "serve", frames(10, 20)),
            ("clips/other match.mp4", "rally", Part()),
            ("boxes.mp4", "serve", seconds(0, 2)),
            ("clips/third.mp4", "rally", Part()),
        ],
        "results that are no labels of times or choices: 1, skipped annotations: 1, second annotations of a task: 1, "
        "tasks without annotations: 1",
    ),
    "json-min": (JSON_MIN, [("match.mp4", "serve", frames(0, 50)), ("b.mp4", "rally", Part())], None),
    "activitynet": (
        ACTIVITYNET,
        [
            ("match", "rally", seconds(17.25, 60.5)),
            ("match", "serve", seconds(0, 3)),
            ("other", "serve", seconds(1, 2)),
        ],
        "videos without annotations: 1",
    ),
    "via": (
        VIA,
        [
            ("match.mp4", "serve", seconds(0.5, 2.25)),
            ("match.mp4", "rally", seconds(3, 4)),
            ("other.mp4", "indoor;double", Part()),
        ],
        "further attributes: 1, annotations without a label: 1, shapes and points in time: 1",
    ),
    "osl": (
        OSL,
        [
            ("wide/1.mp4", "serve", Part()),
            ("near/1.mp4", "serve", Part()),
            ("game.mp4", "rally", seconds(7.5, 9.5)),
            ("game.mp4", "serve", seconds(0, 1.4)),
        ],
        "inputs that are no videos: 1, labels of other heads: 1, events of other heads or without a label: 1",
    ),
    "elan": (
        ELAN,
        [("my match.mp4", "serve", seconds(1.5, 3))],
        "further media: 1, annotations of other tiers: 1, annotations that have no times of their own: 1, "
        "annotations without times: 1, annotations without a label: 1",
    ),
    "cvat": (
        CVAT,
        [
            ("match.mp4", "serve", frames(10, 16, Region(20, 10, 140, 80))),
            ("match.mp4", "serve", frames(30, 34, Region(0, 0, 105, 55))),
            ("match.mp4", "rally", frames(50, 52)),
            ("match.mp4", "rally", frames(40, 44)),
        ],
        "tracks that have no boxes or no label: 1",
    ),
}


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(path, content):
    notes: list[str] = []
    return read_labels(save(path, content), str(path.parent), notes), notes


@pytest.mark.parametrize("tool", READ)
def test_exports_are_recognised_by_their_content(tool, tmp_path):
    content, expected, unused = READ[tool]
    entries, notes = read(tmp_path / "train.txt", content)
    key = repr
    assert sorted(((e.path, e.label, e.part) for e in entries), key=key) == sorted(expected, key=key)
    start = f"not used of {tmp_path / 'train.txt'}: "
    found = [set(note.removeprefix(start).split(", ")) for note in notes if note.startswith(start)]
    assert found == ([set(unused.split(", "))] if unused else [])
    several = sum(";" in label for _, label, _ in expected)
    others = [note for note in notes if not note.startswith(start)]
    assert len(others) == (several > 0)
    assert all(f"with several labels: {several}; a combination" in note for note in others)
    assert "jane" not in f"{entries}{notes}".lower()


def test_subsets_and_views_of_one_sample_are_kept(tmp_path):
    assert [e.subset for e in read(tmp_path / "a.json", ACTIVITYNET)[0]] == ["train", "train", "val"]
    assert [e.subset for e in read(tmp_path / "l.json", LABEL_STUDIO)[0]][-2:] == ["", "test"]
    entries, _ = read(tmp_path / "o.json", OSL)
    assert {e.subset for e in entries} == {"train"}
    assert entries[0].group == entries[1].group != entries[2].group == ""


SEGMENTS = [
    ListEntry("l.csv", 2, "clips/a & b.mp4", "serve, <fast>", part=seconds(0.04, 2.2), subset="train"),
    ListEntry("l.csv", 3, "clips/a & b.mp4", "rally", part=seconds(1, 3.64), subset="train"),
]
WHOLE = [ListEntry("l.csv", 2, "a.mp4", "serve"), ListEntry("l.csv", 3, "sub/b.mp4", "rally")]
BOXES = [entry._replace(part=Part(entry.part.segment, Region(0, 5, 100, 50))) for entry in SEGMENTS]


@pytest.mark.parametrize(
    ("to", "entries"),
    [(to, SEGMENTS) for to in ("label-studio", "activitynet", "via", "elan", "cvat")]
    + [(to, WHOLE) for to in ("label-studio", "via", "osl")]
    + [("cvat", BOXES)],
)
def test_written_labels_are_read_back(to, entries, tmp_path):
    notes: list[str] = []
    text = write_labels(entries, to, 25, notes)
    found, unused = read(tmp_path / "out", text)
    assert unused == []

    def timed(entry, rate):
        start, end = entry.part.segment[:2] if entry.part.segment else (-1, -1)
        return entry.path, entry.label, round(start / rate, 6), round(end / rate, 6), entry.part.region

    rate = 25 if to == "cvat" else 1
    assert sorted(timed(e, rate) for e in found) == sorted(timed(e, 1) for e in entries)
    holds_subset = "subset" in WRITERS[to].holds
    assert {e.subset for e in found} == ({e.subset for e in entries} if holds_subset else {""})
    assert bool(notes) == (not holds_subset and entries is not WHOLE)


def test_elan_files_follow_their_schema():
    root = ElementTree.fromstring(write_labels([*SEGMENTS, SEGMENTS[0]], "elan", None, []))
    assert [child.tag for child in root] == ["HEADER", "TIME_ORDER", "TIER", "TIER", "TIER", "LINGUISTIC_TYPE"]
    assert {"AUTHOR", "DATE", "FORMAT", "VERSION"} <= root.attrib.keys()
    times = [int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    assert times == sorted(times) == [40, 40, 1000, 2200, 2200, 3640]
    ids = [item.get("ANNOTATION_ID") for item in root.iter("ALIGNABLE_ANNOTATION")]
    assert len(set(ids)) == 3


def test_a_list_has_only_the_columns_that_its_labels_need():
    assert write_labels(WHOLE, "csv", None, []) == "path,label\na.mp4,serve\nsub/b.mp4,rally\n"
    many = [
        SEGMENTS[0]._replace(part=seconds(7200.123456, 7201), group="Ann"),
        WHOLE[0]._replace(part=frames(3, 9, Region(0.25, 0, 1, 0.5, in_pixels=False))),
    ]
    assert write_labels([WHOLE[0]._replace(part=frames(3, 9))], "csv", 30, []).endswith("\na.mp4,serve,0.1,0.3\n")
    rows = list(csv.reader(write_labels(many, "csv", None, []).splitlines()))
    header = "path,label,start,end,start_frame,end_frame,x1,y1,x2,y2,group,split"
    assert rows[0] == header.split(",")
    assert rows[1][2:] == ["7200.123456", "7201", "", "", "", "", "", "", "Ann", "train"]
    assert rows[2][2:] == ["", "", "3", "9", "0.25", "0", "1", "0.5", "", ""]


@pytest.mark.parametrize(
    ("to", "entries", "message"),
    [
        ("osl", SEGMENTS, r"l\.csv:2#t=0\.04,2\.2: OSL cannot hold a segment"),
        ("activitynet", WHOLE, "ActivityNet cannot hold videos without times"),
        ("via", BOXES, "VIA cannot hold a box"),
        ("elan", [SEGMENTS[0]._replace(part=Part(Segment(3)))], "ELAN cannot hold segments without an end"),
        ("label-studio", SEGMENTS, "times in frames; give the frames per second of the videos with --fps"),
        ("elan", [SEGMENTS[0], SEGMENTS[1]._replace(path="b.mp4")], "one video in each file.* 2 videos"),
        ("elan", [SEGMENTS[0]._replace(label="a\x01")], r"XML cannot hold the character '\\x01'"),
        ("activitynet", [SEGMENTS[0], SEGMENTS[1]._replace(subset="val")], "this one is in two"),
        ("cvat", [WHOLE[0]._replace(part=frames(0, 1e12))], "a tag for each of the 1,000,000,000,000 frames"),
    ],
)
def test_what_a_format_cannot_hold_is_an_error(to, entries, message):
    with pytest.raises(InputError, match=message):
        write_labels(entries, to, None, [])


def test_rounded_times_and_left_out_groups_are_counted():
    notes: list[str] = []
    entry = SEGMENTS[0]._replace(part=seconds(0.05, 0.06), group="Ann", subset="")
    found = json.loads(write_labels([entry], "label-studio", 25, notes))
    assert found[0]["annotations"][0]["result"][0]["value"]["ranges"] == [{"start": 2, "end": 2}]
    assert notes == ["times rounded to whole frames: those of 1 label"]
    notes.clear()
    write_labels([entry], "via", None, notes)
    assert notes == ["left out, because VIA cannot hold it: the group of 1 label"]


def net(segment):
    return {"database": {"match": {"annotations": [{"segment": segment, "label": "serve"}]}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (net([5, 3]), r"video match: the times 5 to 3; a segment starts at 0"),
        (net([-1, 3]), "the times -1 to 3"),
        (net([2, 2]), "the times 2 to 2"),
        (net(["soon", 3]), "expected a number, found 'soon'"),
        (net([True, 3]), "expected a number, found 'True'"),
        (net([1, float("inf")]), "expected a number, found 'inf'"),
        ('{"database": {"m": {"annotations": [{"segment": [1, 1e999], "label": "x"}]}}}', "found 'inf'"),
        (f'{{"database": {{"m": {{"annotations": [{{"segment": [1, 1{"0" * 400}], "label": "x"}}]}}}}}}', "a number"),
        (net([1, 2, 3]), r"the segment '\[1, 2, 3\]'; expected \[start, end\]"),
        ([task("a.mp4", [timeline("x", 9, 3)])], "task 1: the frames 8 to 3"),
        ([task("a.mp4", [timeline("x", 3, 9)], fps=-5)], "-5 frames per second"),
        ([task("a.mp4", [timeline("x", -3, 9)])], "task 1: the frames -3 to 9"),
        ([task("a.mp4")], r"holds no labels of videos \(tasks without annotations: 1\)"),
        ({"data": [{"inputs": [{"type": "video", "path": "a.mp4"}], "events": [{"label": "x"}]}]}, "position_ms"),
        (ELAN.replace('"2500"', '"900"'), "annotation 1: the times 1.5 to 1.4"),
        (ELAN.replace("milliseconds", "PAL-frames"), "times in 'PAL-frames'"),
        (CVAT.replace('ybr="80"', 'ybr="x"'), "track 1: expected a number, found 'x'"),
        (CVAT.replace("<source>match.mp4</source>", ""), "no name of the video"),
        ("<!DOCTYPE a [<!ENTITY b 'ha'><!ENTITY c '&b;&b;&b;'>]><annotations>&c;</annotations>", "DOCTYPE or entities"),
        ("<annotations><track>", "no whole XML file"),
        ("<a>" * 100_000 + "</a>" * 100_000, "XML with the root <a>, but in no form that vswin reads"),
        ('{"data": ' + "[" * 100_000, "no whole JSON file"),
        ({"some": {"other": "form"}}, "JSON, but in no form that vswin reads: Label Studio"),
        ([{"some": 1}], "JSON, but in no form that vswin reads"),
    ],
)
def test_broken_and_hostile_files_are_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "export", content)


@pytest.mark.parametrize("content", [LABEL_STUDIO[:1], JSON_MIN, ACTIVITYNET, VIA, OSL], ids=list("lmavo"))
def test_values_of_another_kind_are_errors_and_never_bugs(content, tmp_path):
    def places(value):
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                yield value, key
                yield from places(value[key])

    content = json.loads(json.dumps(content))
    for parent, key in list(places(content)):
        right = parent[key]
        for wrong in (None, 5, "text", [[1]], {"a": {}}):
            parent[key] = wrong
            with contextlib.suppress(InputError):
                read(tmp_path / "export", content)
        parent[key] = right


def test_a_data_set_takes_exports_and_finds_their_videos_by_name(tmp_path, make_files):
    make_files("videos/2024/a.mp4", "videos/2025/b.mp4")
    export = [task("/data/upload/1/ab12cd34-a.mp4", [CHOICE]), task("/data/upload/1/0b12cd34-b.mp4", [CHOICE])]
    export[1]["annotations"][0]["result"] = [{"type": "choices", "value": {"choices": ["serve"]}}]
    path = save(tmp_path / "export.json", export)
    overrides = ["dataset=folder", f"dataset.root={tmp_path / 'videos'}", f"dataset.val_list={path}"]
    catalog = load_catalog(compose_config("train", overrides, TrainConfig).dataset, is_given=True)
    assert catalog.class_names == ("rally", "serve")
    assert [(video.path.rpartition("/")[2], video.label) for video in catalog.val] == [("a.mp4", 0), ("b.mp4", 1)]


def convert(*words):
    code = "from vswin.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "convert", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_converts_and_says_what_it_did(tmp_path):
    source = save(tmp_path / "match.eaf", ELAN)
    done = convert(source, tmp_path / "labels.csv")
    assert done.returncode == 0, done.stderr
    assert "annotations of other tiers: 1" in done.stdout
    assert done.stdout.endswith("labels.csv: 1 label of 1 video\n")
    assert (tmp_path / "labels.csv").read_text() == "path,label,start,end\nmy match.mp4,serve,1.5,3\n"
    assert "give --overwrite" in convert(source, tmp_path / "labels.csv").stderr
    assert "give --to with one of csv, label-studio" in convert(source, tmp_path / "labels.json").stderr
    done = convert(source, tmp_path / "labels.json", "--to", "label-studio", "--fps", "30")
    assert done.returncode == 0, done.stderr
    assert read_labels(tmp_path / "labels.json", "", [])[0].part == seconds(1.5, 3)


def test_segments_of_a_list_come_back_from_a_tool(tmp_path):
    text = "path,label,start,end\na.mp4,serve,0:01:12.400,1:14\nb.mp4,rally,3,4.24\n"
    (tmp_path / "in.csv").write_text(text)
    for source, output, to in (("in.csv", "tool.json", "label-studio"), ("tool.json", "out.csv", None)):
        run_convert_labels(tmp_path / source, tmp_path / output, to, 25.0, is_overwriting=False)
    assert (tmp_path / "out.csv").read_text() == "path,label,start,end\na.mp4,serve,72.4,74\nb.mp4,rally,3,4.24\n"
