"""Tests of vswin.data.annotations.sthv2: templates, the map of the labels, and other lists."""

import json

import pytest

from vswin.data.annotations.class_names import ClassLookup, read_class_names
from vswin.data.annotations.entries import ListEntry, NotFoundError
from vswin.data.annotations.sthv2 import find_lists, read_annotations
from vswin.errors import InputError

CLASSES = ClassLookup(read_class_names("sthv2"))
VIDEO = {
    "id": "78687",
    "label": "holding potato next to vicks vaporub bottle",
    "template": "Holding [something] next to [something]",
    "placeholders": ["potato", "vicks vaporub bottle"],
}
LABELS = {name: str(number) for number, name in enumerate(CLASSES.class_names)}


def read(path):
    return [(entry.path, entry.label) for entry in read_annotations(path, CLASSES)]


def write_json(write, name, content, **options):
    return write(name, json.dumps(content, **options), "utf-8-sig")


def test_the_class_is_the_template_without_brackets(write):
    path = write_json(write, "train.json", [VIDEO], indent=1)
    assert read_annotations(path, CLASSES) == [
        ListEntry(str(path), 0, "78687", "Holding something next to something", "78687")
    ]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Putting [number of] [something] onto [something]", "Putting number of something onto something"),
        ("Taking [one of many similar things on the table]", "Taking one of many similar things on the table"),
        (
            "Putting [something], [something] and [something] on the table",
            "Putting something, something and something on the table",
        ),
        ("Pretending to put [something] onto [something]", "Pretending to put something onto something"),
        ("Poking a hole into [some substance]", "Poking a hole into some substance"),
        ("pushing [something] from left to right ", "Pushing something from left to right"),
        (
            "[Something] colliding with [something] and both come to a halt",
            "Something colliding with something and both come to a halt",
        ),
    ],
)
def test_templates(write, template, expected):
    assert read(write_json(write, "train.json", [{"id": 7, "template": template}])) == [("7", expected)]


def test_every_class_is_a_template(write):
    videos = [
        {"id": str(number), "template": name.replace("something", "[something]")} for name, number in LABELS.items()
    ]
    assert [label for _, label in read(write_json(write, "x.json", videos))] == list(CLASSES.class_names)


def test_a_video_that_is_listed_twice_counts_once(write, messages):
    assert len(read(write_json(write, "train.json", [VIDEO, VIDEO]))) == 1
    assert "repeated videos: 1;" in messages.text


@pytest.mark.parametrize("name", ["labels.json", "something-something-v2-labels.json"])
def test_the_map_of_the_labels_is_compared(write, name):
    path = write_json(write, "train.json", [VIDEO])
    write_json(write, name, dict(reversed(LABELS.items())))
    assert len(read(path)) == 1
    write_json(write, name, {key: int(number) for key, number in LABELS.items()})
    assert len(read(path)) == 1
    for changed, message in (
        (
            {**LABELS, "Closing something": "6", "Covering something with something": "5"},
            "'Closing something' the number 6, but it is 5",
        ),
        ({key: str(int(number) + 1) for key, number in LABELS.items()}, "the number 1, but it is 0"),
        ({**LABELS, "Flying something": "174"}, "unknown class 'Flying something'; did you mean"),
        ({key: number for key, number in LABELS.items() if number != "173"}, "has 173 classes of 174"),
        (["Closing something"], "expected an object"),
    ):
        write_json(write, name, changed)
        with pytest.raises(InputError, match=message):
            read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([VIDEO, {"id": "8", "template": "Flying [something]"}], r"x\.json, video 8: unknown class 'Flying something'"),
        ([{"id": "8"}], r"x\.json, video 8: no `template`, as in the list of the test videos"),
        ([{"template": "Closing [something]"}], r"expected objects with `id` and `template`"),
        ([], "names no videos"),
        (LABELS, "which is the map of the labels; name train.json"),
        ({"videos": []}, "is no list of videos, it is an object"),
    ],
)
def test_wrong_lists(write, content, message):
    with pytest.raises(InputError, match=message):
        read(write_json(write, "x.json", content))


def test_a_list_that_was_cut_off(write):
    with pytest.raises(InputError, match=r"x\.json cannot be read: it is no whole JSON file"):
        read(write("x.json", json.dumps([VIDEO] * 3)[:-50]))


@pytest.mark.parametrize("text", ["78687.webm 36\n", "path,label\n78687.webm,36\n", "videos/78687.mp4 36\n"])
def test_lists_of_paths_are_left_to_the_reader_of_lists(write, text):
    assert read_annotations(write("train.csv", text), CLASSES) is None


@pytest.mark.parametrize(
    ("folder", "train", "val"),
    [
        ("labels", "train.json", "validation.json"),
        ("annotations", "something-something-v2-train.json", "something-something-v2-validation.json"),
        (".", "something-something-v2-train.json", "something-something-v2-validation.json"),
        ("videos", "sthv2_train_list_videos.txt", "sthv2_val_list_videos.txt"),
    ],
)
def test_lists_are_found(tmp_path, write, make_files, folder, train, val):
    make_files("videos/78687.webm")
    paths = [write(f"{folder}/{name}", "[]") for name in (train, val)]
    assert [path.resolve() for path in find_lists(tmp_path / "videos")] == paths


def test_without_lists_the_way_to_them_is_shown(tmp_path, make_files):
    make_files("videos/78687.webm")
    with pytest.raises(
        NotFoundError, match=r"Something-Something v2: the lists .*qualcomm\.com.*labels\.json.*train_list"
    ):
        find_lists(tmp_path / "videos")
