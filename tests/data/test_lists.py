"""Tests of vswin.data.lists: both forms, every kind of mistake, and a split that does not depend on the place."""

import random

import pytest

from vswin.data.lists import (
    ListEntry,
    find_class_names,
    label_videos,
    read_list,
    read_ucf101_list,
    split_train_val,
)
from vswin.data.records import VideoRecord
from vswin.errors import InputError


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def make_files(root, *names):
    for name in names:
        write(root / name, "")


def entries_of(*pairs):
    return [ListEntry(f"l:{number}", path, label) for number, (path, label) in enumerate(pairs, start=1)]


def test_text_lists(tmp_path):
    path = write(tmp_path / "l.txt", "# mine\r\n\r\na b/c d.mp4 \t 12\r\n  e.mp4 0  \r\n", "utf-8-sig")
    assert read_list(path) == [
        ListEntry(f"{path}:3", "a b/c d.mp4", "12"),
        ListEntry(f"{path}:4", "e.mp4", "0"),
    ]


@pytest.mark.parametrize("header", ["", "path,label\n", "Path, Label\r\n"])
def test_csv_lists(tmp_path, header):
    path = write(tmp_path / "l.CSV", header + '# mine\n"a, b.mp4",air drumming\n\nc.mp4 , yoga\n', "utf-8-sig")
    first = 3 if header else 2
    assert read_list(path) == [
        ListEntry(f"{path}:{first}", "a, b.mp4", "air drumming"),
        ListEntry(f"{path}:{first + 2}", "c.mp4", "yoga"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "a.mp4 0\nb.mp4\n", r"l\.txt:2: expected `path label`, found 'b.mp4'"),
        ("l.csv", "a.mp4,0\nb.mp4 1\n", r"l\.csv:2: expected `path,label`, found 'b.mp4 1'"),
        ("l.csv", "a.mp4,0,7\n", r"l\.csv:1: expected"),
        ("l.csv", "a.mp4,\n", r"l\.csv:1: expected"),
        ("l.txt", "a.mp4 0\nb.mp4 run\n", r"l\.txt:2: the label 'run', but '0' at .*l\.txt:1"),
        ("l.txt", "# nothing\n\n", "names no videos"),
    ],
)
def test_malformed_lists(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_list(write(tmp_path / name, text))


def test_unreadable_lists(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read"):
        read_list(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match=r"l\.txt cannot be read: 'utf-8'"):
        read_list(write(tmp_path / "l.txt", "é.mp4 0", "latin-1"))


def test_class_names_from_labels():
    named = entries_of(("a", "run"), ("b", "jump"), ("c", "run"))
    numbered = entries_of(("a", "2"), ("b", "0"), ("c", "0"))
    assert find_class_names(named, None) == ("jump", "run")
    assert find_class_names(numbered, None) == ("0", "1", "2")
    assert find_class_names(numbered, 5) == ("0", "1", "2", "3", "4")
    with pytest.raises(InputError, match="one kind in both"):
        find_class_names(named + numbered, None)
    with pytest.raises(InputError, match=r"l:1: label 20210304, in a data set of 1 videos"):
        find_class_names(entries_of(("a", "20210304")), None)


def test_labels_and_paths(tmp_path):
    make_files(tmp_path, "v/a b.mp4", "v/c.mp4")
    absolute = str(tmp_path / "v" / "c.mp4")
    by_name = label_videos(entries_of(("v/a b.mp4", "run"), (absolute, "jump")), ("jump", "run"), str(tmp_path))
    by_index = label_videos(entries_of(("v/a b.mp4", "1"), (absolute, "0")), ("jump", "run"), str(tmp_path))
    assert by_name == by_index == [VideoRecord(str(tmp_path / "v" / "a b.mp4"), 1), VideoRecord(absolute, 0)]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("2", "l:1: label 2 is out of range, the 2 classes count from 0"),
        ("-1", "l:1: label -1 is out of range"),
        ("archry", r"l:1: unknown class 'archry'; did you mean 'archery'\?"),
        ("drumming", r"l:1: unknown class 'drumming'.*spaces need a \.csv"),
    ],
)
def test_wrong_labels(tmp_path, label, message):
    make_files(tmp_path, "a.mp4")
    with pytest.raises(InputError, match=message):
        label_videos(entries_of(("a.mp4", label)), ("air drumming", "archery"), str(tmp_path))


def test_indices_must_agree_with_class_folders(tmp_path):
    make_files(tmp_path, "air_drumming/a.mp4", "5/b.mp4")
    classes = ("air drumming", "archery")
    assert label_videos(entries_of(("air_drumming/a.mp4", "0")), classes, str(tmp_path))[0].label == 0
    with pytest.raises(InputError, match=r"lies in 'air_drumming', but class 1 is 'archery'; .*another order"):
        label_videos(entries_of(("air_drumming/a.mp4", "1")), classes, str(tmp_path))
    # a folder called like an index says nothing about classes that have no other names
    numbers = tuple("0123456")
    assert label_videos(entries_of(("5/b.mp4", "1")), numbers, str(tmp_path))[0].label == 1


def test_absent_files_are_counted_and_five_are_named(tmp_path):
    make_files(tmp_path, "v/0.mp4")
    entries = entries_of(*((f"v/{number}.mp4", "0") for number in range(7)), ("w/7.mp4", "0"))
    with pytest.raises(InputError, match="7 of the 8 videos") as caught:
        label_videos(entries, ("a", "b"), str(tmp_path))
    named = str(caught.value).splitlines()[1:]
    assert named == [f"  l:{number + 1}: {tmp_path / 'v' / f'{number}.mp4'}" for number in range(1, 6)]


def test_paths_relative_to_here(tmp_path, monkeypatch):
    make_files(tmp_path, "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert label_videos(entries_of(("a.mp4", "0")), ("a", "b"), "") == [VideoRecord("a.mp4", 0)]


def test_ucf101_lists(tmp_path):
    path = write(tmp_path / "trainlist01.txt", "Run/v_Run_g08_c01.avi 2\r\nHop/v_Hop_g09_c02.avi 1\r\n\r\n")
    assert read_ucf101_list(path, ("Hop", "Run"), is_flat=False) == [
        ListEntry(f"{path}:1", "Run/v_Run_g08_c01.avi", "Run"),
        ListEntry(f"{path}:2", "Hop/v_Hop_g09_c02.avi", "Hop"),
    ]
    test_list = write(tmp_path / "testlist01.txt", "Run/v_Run_g01_c01.avi\n")
    assert [entry.path for entry in read_ucf101_list(test_list, ("Hop", "Run"), is_flat=True)] == ["v_Run_g01_c01.avi"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Run/v.avi 1", r"x\.txt:1: label 1 for 'Run'"),
        ("Fly/v.avi 1", r"x\.txt:1: label 1 for 'Fly'"),
        ("v_Run_g01_c01.avi", r"x\.txt:1: expected `Class/video.avi`"),
        ("Run/v.avi 2 3", r"x\.txt:1: expected"),
    ],
)
def test_wrong_ucf101_lists(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_ucf101_list(write(tmp_path / "x.txt", line), ("Hop", "Run"), is_flat=False)


def test_a_missing_ucf101_list(tmp_path):
    with pytest.raises(InputError, match=r"x\.txt cannot be read"):
        read_ucf101_list(tmp_path / "x.txt", ("Hop", "Run"), is_flat=False)


def videos(root, counts):
    return [
        VideoRecord(f"{root}/{label}/video{number}.mp4", label)
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def test_split_takes_a_share_of_each_class():
    records = videos("/data", (10, 20, 2, 1))
    train, val = split_train_val(records, 0.25, "/data")
    assert sorted(train + val) == sorted(records)
    assert [sum(record.label == label for record in val) for label in range(4)] == [2, 5, 1, 0]
    assert train == [record for record in records if record in train]


def test_a_class_keeps_a_training_video():
    train, val = split_train_val(videos("/data", (3,)), 0.99, "/data")
    assert (len(train), len(val)) == (1, 2)


def test_split_depends_on_neither_place_nor_order():
    here = videos("/data", (9, 9))
    there = videos("/mnt/elsewhere", (9, 9))
    random.Random(0).shuffle(there)
    expected = {record.path.removeprefix("/data") for record in split_train_val(here, 0.3, "/data")[1]}
    found = {record.path.removeprefix("/mnt/elsewhere") for record in split_train_val(there, 0.3, "/mnt/elsewhere")[1]}
    assert found == expected
    # Pinned: another release must not move videos from training to validation.
    assert sorted(expected) == [
        *("/0/video1.mp4", "/0/video2.mp4", "/0/video5.mp4"),
        *("/1/video2.mp4", "/1/video3.mp4", "/1/video8.mp4"),
    ]


def test_recordings_stay_together():
    records = [
        VideoRecord(f"/data/Run/v_Run_g{group:02d}_c{clip:02d}.avi", 0)
        for group in range(1, 11)
        for clip in range(1, 5)
    ]
    train, val = split_train_val(records, 0.2, "/data")
    assert (len(train), len(val)) == (32, 8)
    groups = [{record.path.split("_")[2] for record in part} for part in (train, val)]
    assert not groups[0] & groups[1]
