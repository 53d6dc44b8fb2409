"""Tests of vswin.data.annotations.labels: labels, folders that contradict them, and files that lie elsewhere."""

import pytest

from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ListEntry
from vswin.data.annotations.file_index import FileIndex
from vswin.data.annotations.labels import MissingVideo, label_videos
from vswin.data.records import VideoRecord
from vswin.errors import InputError

CLASSES = ClassLookup(("air drumming", "archery"))


def entries_of(*pairs):
    return [ListEntry("l", number, path, label) for number, (path, label) in enumerate(pairs, start=1)]


def find(tmp_path, *pairs, classes=CLASSES, search=False):
    files = FileIndex(tmp_path) if search else None
    return label_videos(entries_of(*pairs), "train", classes, str(tmp_path), files)


def test_labels_and_paths(tmp_path, make_files):
    make_files("v/a b.mp4", "v/c.mp4")
    absolute = str(tmp_path / "v" / "c.mp4")
    by_name = find(tmp_path, ("v/a b.mp4", "archery"), (absolute, "air_drumming"))
    by_index = find(tmp_path, ("v/a b.mp4", "1"), (absolute, "0"))
    assert by_name == by_index == ([VideoRecord(str(tmp_path / "v" / "a b.mp4"), 1), VideoRecord(absolute, 0)], [], [])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("2", "l:1: label 2 is out of range, the 2 classes count from 0"),
        ("-1", "l:1: label -1 is out of range"),
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


def test_a_folder_called_like_an_index_says_nothing(tmp_path, make_files):
    make_files("5/b.mp4")
    assert find(tmp_path, ("5/b.mp4", "1"), classes=ClassLookup("0123456"))[0][0].label == 1


def test_absent_files_are_listed(tmp_path, make_files):
    make_files("v/0.mp4")
    videos, missing, _ = find(tmp_path, ("v/0.mp4", "0"), ("v/1.mp4", "1"), ("w/7.mp4", "0"))
    assert [video.label for video in videos] == [0]
    assert missing == [
        MissingVideo("l:2", str(tmp_path / "v" / "1.mp4"), 1),
        MissingVideo("l:3", str(tmp_path / "w" / "7.mp4"), 0),
    ]


def test_paths_relative_to_here(tmp_path, make_files, monkeypatch):
    make_files("a.mp4", "v/b.mp4")
    monkeypatch.chdir(tmp_path)
    videos, _, _ = label_videos(entries_of(("a.mp4", "0"), ("v/b.mp4", "0")), "val", CLASSES, "")
    assert [video.path for video in videos] == ["a.mp4", "v/b.mp4"]


def test_a_backslash_separates_folders_unless_it_is_part_of_a_name(tmp_path, make_files):
    make_files("v/a.mp4", "w\\b.mp4")
    videos, _, _ = find(tmp_path, ("v\\a.mp4", "0"), ("w\\b.mp4", "1"))
    assert [video.path for video in videos] == [str(tmp_path / "v" / "a.mp4"), str(tmp_path / "w\\b.mp4")]


@pytest.mark.parametrize(
    "written",
    [
        "/home/them/kinetics/val/archery/a.mp4",
        r"C:\videos\archery\a.mp4",
        "archery/a.avi",
        "a.mp4",
        "A.MP4",
        "other_folder/a.webm",
    ],
)
def test_files_that_lie_elsewhere_are_found_by_name(tmp_path, make_files, written):
    make_files("val/archery/a.mp4")
    assert find(tmp_path, (written, "1"), search=True) == (
        [VideoRecord(str(tmp_path / "val" / "archery" / "a.mp4"), 1)],
        [],
        [],
    )
    assert len(find(tmp_path, (written, "1"))[1]) == 1


def test_files_in_the_folder_of_another_class_are_not_taken(tmp_path, make_files):
    make_files("val/archery/a.mp4")
    assert len(find(tmp_path, ("a.mp4", "0"), search=True)[1]) == 1


def test_of_several_files_the_one_in_the_likest_folders_is_taken(tmp_path, make_files):
    make_files("small/train/archery/a.mp4", "large/train/archery/a.mp4", "large/val/archery/a.mp4")
    for written, expected in {
        "/x/large/train/a.mp4": "large/train/archery",
        "/x/small/a.mp4": "small/train/archery",
        "/x/a.mp4": "large/train/archery",
    }.items():
        assert find(tmp_path, (written, "1"), search=True)[0][0].path == str(tmp_path / expected / "a.mp4")
