"""Tests of vswin.data.matching: labels, folders that contradict them, and the names and folders of files."""

import os

import pytest

from vswin.data.class_names import ClassLookup
from vswin.data.lists import ListEntry
from vswin.data.matching import FileIndex, UnusedEntry, label_videos
from vswin.data.samples import Sample
from vswin.errors import InputError

CLASSES = ClassLookup(("air drumming", "archery"))


def entries_of(*pairs):
    return [ListEntry("l", number, path, label) for number, (path, label) in enumerate(pairs, start=1)]


def find(tmp_path, *pairs, classes=CLASSES, search=False):
    files = FileIndex(str(tmp_path)) if search else None
    return label_videos(entries_of(*pairs), "train", classes, str(tmp_path), files)


def test_labels_and_paths(tmp_path, make_files):
    make_files("v/a b.mp4", "v/c.mp4")
    absolute = str(tmp_path / "v" / "c.mp4")
    by_name = find(tmp_path, ("v/a b.mp4", "archery"), (absolute, "air_drumming"))
    by_index = find(tmp_path, ("v/a b.mp4", "1"), (absolute, "0"))
    assert by_name == by_index == ([Sample(str(tmp_path / "v" / "a b.mp4"), (1,)), Sample(absolute, (0,))], [], [])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("2", "l:1: label 2 is out of range, the 2 classes count from 0"),
        ("archry", r"l:1: unknown class 'archry'; did you mean 'archery'\?"),
        ("drumming", r"l:1: unknown class 'drumming'.*spaces need a \.csv"),
    ],
)
def test_wrong_labels(tmp_path, make_files, label, message):
    make_files("a.mp4")
    with pytest.raises(InputError, match=message):
        find(tmp_path, ("a.mp4", label))


@pytest.mark.parametrize("path", ["air_drumming/a.mp4", "air_drumming\\a.mp4", "train/Air Drumming/a.mp4"])
def test_indices_must_agree_with_class_folders(tmp_path, make_files, path):
    make_files(path.replace("\\", "/"))
    assert find(tmp_path, (path, "0"))[0][0].label == 0
    with pytest.raises(InputError, match=r"lies in '[Aa]ir.[Dd]rumming', but class 1 is 'archery'; .*another order"):
        find(tmp_path, (path, "1"))
    # A folder named like an index says nothing.
    make_files("5/b.mp4")
    assert find(tmp_path, ("5/b.mp4", "1"), classes=ClassLookup("0123456"))[0][0].label == 1


def test_absent_files_are_listed(tmp_path, make_files):
    make_files("v/0.mp4")
    videos, missing, _ = find(tmp_path, ("v/0.mp4", "0"), ("v/1.mp4", "1"), ("w/7.mp4", "0"))
    assert [video.label for video in videos] == [0]
    assert missing == [
        UnusedEntry("l:2", str(tmp_path / "v" / "1.mp4"), (1,)),
        UnusedEntry("l:3", str(tmp_path / "w" / "7.mp4"), (0,)),
    ]


def test_a_backslash_separates_folders_unless_it_is_part_of_a_name(tmp_path, make_files):
    make_files("v/a.mp4", "w\\b.mp4")
    videos, _, _ = find(tmp_path, ("v\\a.mp4", "0"), ("w\\b.mp4", "1"))
    assert [video.path for video in videos] == [str(tmp_path / "v" / "a.mp4"), str(tmp_path / "w\\b.mp4")]


@pytest.mark.parametrize(
    "written", ["/home/them/kinetics/val/archery/a.mp4", r"C:\videos\archery\a.mp4", "A.MP4", "other_folder/a.webm"]
)
def test_files_that_lie_elsewhere_are_found_by_name(tmp_path, make_files, written):
    make_files("val/archery/a.mp4")
    found = [Sample(str(tmp_path / "val" / "archery" / "a.mp4"), (1,))]
    assert find(tmp_path, (written, "1"), search=True) == (found, [], [])
    assert len(find(tmp_path, (written, "1"))[1]) == 1
    # Files in the folder of another class are not taken.
    assert len(find(tmp_path, ("a.mp4", "0"), search=True)[1]) == 1


def test_of_several_files_the_one_in_the_likest_folders_is_taken(tmp_path, make_files):
    make_files("small/train/archery/a.mp4", "large/train/archery/a.mp4", "large/val/archery/a.mp4")
    for written, expected in {"large/train": "large/train", "small": "small/train", "": "large/train"}.items():
        written, expected = f"/x/{written}/a.mp4", f"{expected}/archery"
        assert find(tmp_path, (written, "1"), search=True)[0][0].path == str(tmp_path / expected / "a.mp4")


def entry_of(video_id, times="_000010_000020", label="zumba"):
    return ListEntry("l.csv", 2, video_id + times, label, video_id)


def find_ids(tmp_path, *entries, subset="val"):
    files = FileIndex(str(tmp_path), entries)
    found = [files.find_id(entry, subset) for entry in entries]
    return [path and os.path.relpath(path, tmp_path) for path in found]


@pytest.mark.parametrize(
    "name",
    [
        "-a_b-_cd123_000010_000020.mp4",
        "val/zumba/-a_b-_cd123_000010_000020.webm",
        "deep/er/-a_b-_cd123_10_20.MKV",
        "-a_b-_cd123.mp4",
    ],
)
def test_names_of_a_video_with_an_id(tmp_path, make_files, name):
    make_files(name, "-a_b-_cd124.mp4", "-a_b-_cd12_000010_000020.mp4", "notes.txt", ".hidden/-a_b-_cd123.avi")
    assert find_ids(tmp_path, entry_of("-a_b-_cd123")) == [name]


@pytest.mark.parametrize(
    "name", ["-a_b-_cd123_000010_000020.txt", "-A_b-_cd123.mp4", "x-a_b-_cd123.mp4", "-a_b-_cd123_000009_000019.mp4"]
)
def test_other_names_are_not_taken(tmp_path, make_files, name):
    make_files(name)
    assert find_ids(tmp_path, entry_of("-a_b-_cd123")) == [None]


def test_times_decide_between_clips_of_one_video(tmp_path, make_files):
    make_files("x_000010_000020.mp4", "x_30_40.mp4", "y.mp4")
    entries = [entry_of("x"), entry_of("x", "_000030_000040"), entry_of("x", "_000070_000080")]
    assert find_ids(tmp_path, *entries) == ["x_000010_000020.mp4", "x_30_40.mp4", None]
    assert find_ids(tmp_path, entry_of("y"), entry_of("y", "_000030_000040")) == [None, None]
    make_files("vid_1_2.mp4", "vid_3_4_000010_000020.mp4")
    assert find_ids(tmp_path, entry_of("vid_1_2"), entry_of("vid_3_4")) == ["vid_1_2.mp4", "vid_3_4_000010_000020.mp4"]


def test_of_several_files_subset_and_class_decide_then_the_name(tmp_path, make_files):
    name = "x_000010_000020.mp4"
    make_files(*(f"{folder}/{name}" for folder in ("train/zumba", "validate/zumba", "validate/yoga", "aside")))
    assert find_ids(tmp_path, entry_of("x")) == [f"validate/zumba/{name}"]
    assert find_ids(tmp_path, entry_of("x"), subset="train") == [f"train/zumba/{name}"]
    assert find_ids(tmp_path, entry_of("x", label="archery")) == [f"validate/yoga/{name}"]
    assert find_ids(tmp_path / "nowhere", entry_of("x")) == [None]


def test_repeated_ids_count_once_but_stay_in_several_classes(tmp_path, make_files):
    make_files("x_000010_000020.mp4")
    entries = [entry_of("x"), entry_of("x"), entry_of("x", label="yoga"), entry_of("y"), entry_of("y")]
    files = FileIndex(str(tmp_path), entries)
    videos, missing, repeated = label_videos(entries, "val", ClassLookup(("yoga", "zumba")), "", files)
    assert [video.label for video in videos] == [1, 0]
    assert [entry.path for entry in missing] == ["y_000010_000020"]
    assert len(repeated) == 2
