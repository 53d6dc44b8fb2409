"""Tests of vswin.data.annotations.file_index: the names under which videos with ids lie about."""

import os

import pytest

from vswin.data.annotations.entries import ListEntry
from vswin.data.annotations.file_index import FileIndex, Folders


def entry_of(video_id, times="_000010_000020", label="zumba"):
    return ListEntry("l.csv", 2, video_id + times, label, video_id)


def find(tmp_path, *entries, subset="val"):
    files = FileIndex(tmp_path, entries)
    found = [files.find(entry, subset) for entry in entries]
    return [path and os.path.relpath(path, tmp_path) for path in found]


@pytest.mark.parametrize(
    "name",
    [
        "-a_b-_cd123_000010_000020.mp4",
        "-a_b-_cd123_000010_000020.MKV",
        "val/zumba/-a_b-_cd123_000010_000020.webm",
        "deep/er/and/deeper/-a_b-_cd123_000010_000020.avi",
        "-a_b-_cd123_10_20.mp4",
        "-a_b-_cd123_0010_0020.mp4",
        "-a_b-_cd123.mp4",
        # times by another clock; there is no other candidate
        "-a_b-_cd123_000009_000019.mp4",
    ],
)
def test_names_of_a_video_with_an_id(tmp_path, make_files, name):
    make_files(name, "-a_b-_cd124.mp4", "-a_b-_cd12_000010_000020.mp4", "notes.txt", ".hidden/-a_b-_cd123.avi")
    assert find(tmp_path, entry_of("-a_b-_cd123")) == [name]


@pytest.mark.parametrize("name", ["-a_b-_cd123_000010_000020.txt", "-A_b-_cd123.mp4", "x-a_b-_cd123.mp4"])
def test_other_names_are_not_taken(tmp_path, make_files, name):
    make_files(name)
    assert find(tmp_path, entry_of("-a_b-_cd123")) == [None]


def test_times_decide_between_clips_of_one_video(tmp_path, make_files):
    make_files("x_000010_000020.mp4", "x_30_40.mp4", "x_000050_000060.mp4")
    assert find(tmp_path, entry_of("x"), entry_of("x", "_000030_000040")) == ["x_000010_000020.mp4", "x_30_40.mp4"]
    assert find(tmp_path, entry_of("x", "_000070_000080")) == [None]


def test_no_two_clips_get_one_file(tmp_path, make_files):
    make_files("x_000010_000020.mp4", "y.mp4")
    assert find(tmp_path, entry_of("x"), entry_of("x", "_000030_000040")) == ["x_000010_000020.mp4", None]
    assert find(tmp_path, entry_of("y"), entry_of("y", "_000030_000040")) == [None, None]


def test_an_id_that_looks_like_one_with_times(tmp_path, make_files):
    make_files("vid_1_2.mp4", "vid_3_4_000010_000020.mp4")
    assert find(tmp_path, entry_of("vid_1_2"), entry_of("vid_3_4")) == ["vid_1_2.mp4", "vid_3_4_000010_000020.mp4"]


def test_of_several_files_subset_and_class_decide_then_the_name(tmp_path, make_files):
    name = "x_000010_000020.mp4"
    make_files(*(f"{folder}/{name}" for folder in ("train/zumba", "validate/zumba", "validate/yoga", "aside")))
    assert find(tmp_path, entry_of("x")) == [f"validate/zumba/{name}"]
    assert find(tmp_path, entry_of("x"), subset="train") == [f"train/zumba/{name}"]
    assert find(tmp_path, entry_of("x", label="archery")) == [f"validate/yoga/{name}"]


def test_linked_folders_are_walked_and_circles_end(tmp_path, make_files):
    make_files("elsewhere/x.mp4", "root/a/y.mp4")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "circle").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "gone").symlink_to(tmp_path / "nowhere")
    assert find(tmp_path / "root", entry_of("x"), entry_of("y")) == ["link/x.mp4", "a/y.mp4"]


def test_without_a_folder_there_are_no_files(tmp_path):
    assert find(tmp_path / "nowhere", entry_of("x")) == [None]


def test_folders_are_looked_up_as_they_are_written(tmp_path, make_files):
    make_files("a.mp4", "v/b.mp4")
    folders = Folders(str(tmp_path))
    (tmp_path / "w").symlink_to("v")
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "v" / "b.mp4")
    assert folders.find("v/b.mp4") == (b, b)
    assert folders.find("w/../v/b.mp4") == (str(tmp_path / "w" / ".." / "v" / "b.mp4"), b)
    assert folders.find("w/b.mp4") == (str(tmp_path / "w" / "b.mp4"), b)
    assert folders.find("a.mp4") == folders.find(a) == (a, a)
    assert [folders.find(path) for path in ("b.mp4", "v/", "/a.mp4", "x/b.mp4")] == [None] * 4
