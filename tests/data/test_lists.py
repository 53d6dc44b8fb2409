"""Tests of lists: mistakes, rare forms and the split; tests/behaviour/test_lists_and_folders.py has the usual forms."""

import random
from collections import Counter

import pytest

from vswin.data.lists import ListEntry, find_class_names, read_list
from vswin.data.samples import Sample, split_train_val
from vswin.errors import InputError


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def read(path, several=False):
    return read_list(path, str(path.parent), [], several)


def entries_of(*pairs):
    return [ListEntry("l", number, path, label) for number, (path, label) in enumerate(pairs, start=1)]


@pytest.mark.parametrize("header", ["", "path,label\n", "Path, Label\r\n"])
def test_lines_keep_their_numbers(tmp_path, header):
    path = write(tmp_path / "l.CSV", header + '# mine\n"a, b.mp4",air drumming\n\nc.mp4 , yoga\n', "utf-8-sig")
    first = 3 if header else 2
    assert read(path) == [
        ListEntry(str(path), first, "a, b.mp4", "air drumming"),
        ListEntry(str(path), first + 2, "c.mp4", "yoga"),
    ]
    assert read(path)[0].where == f"{path}:{first}"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.txt", "# mine\r\n\r\na b/c d.mp4 \t 12\r\n  e.mp4 0  \r\n", [("a b/c d.mp4", "12"), ("e.mp4", "0")]),
        # SlowFast names lists .csv and separates by spaces.
        ("train.csv", "/data/a b.mp4 12\n/data/c.mp4 0\n", [("/data/a b.mp4", "12"), ("/data/c.mp4", "0")]),
        ("train.txt", "a.mp4,12\nb.mp4,0\n", [("a.mp4", "12"), ("b.mp4", "0")]),
        ("train.txt", "a, b.mp4 12\n", [("a, b.mp4", "12")]),
        ("train.csv", "a b.mp4,12\n", [("a b.mp4", "12")]),
        ("train", "path label\na.mp4\t12\n", [("a.mp4", "12")]),
        # str.splitlines would split here
        ("train.txt", "a\u2028b\x0c.mp4 1\rb.mp4 2\r", [("a\u2028b\x0c.mp4", "1"), ("b.mp4", "2")]),
    ],
)
def test_the_first_line_tells_the_form_of_a_list(tmp_path, name, text, expected):
    entries = read(write(tmp_path / name, text))
    assert [(entry.path, entry.label) for entry in entries] == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "a.mp4 0\nb.mp4\n", r"l\.txt:2: expected `path label`, found 'b.mp4'"),
        ("l.csv", "a.mp4,0\nb.mp4 1\n", r"l\.csv:2: expected `path,label`, found 'b.mp4 1'"),
        ("l.csv", "a.mp4,\n", r"l\.csv:1: expected"),
        ("l.txt", "a.mp4 0\nb.mp4 run\n", r"l\.txt:2: the label 'run', but '0' at .*l\.txt:1"),
        ("l.txt", "# nothing\n\n", "names no videos"),
        ("l.csv", "path,label\n", "names no videos"),
        ("l.csv", "a.mp4,0\n" + "b" * 140_000 + ",0\n", r"l\.csv cannot be read: line 2: field larger"),
    ],
)
def test_malformed_lists(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, text))


def test_unreadable_lists(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read"):
        read(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match=r"l\.txt cannot be read: 'utf-8'"):
        read(write(tmp_path / "l.txt", "é.mp4 0", "latin-1"))


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


def videos(root, counts):
    return [
        Sample(f"{root}/{label}/video{number}.mp4", (label,))
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def test_split_takes_a_fraction_of_each_class_and_leaves_a_training_video():
    records = videos("/data", (10, 20, 2, 1))
    train, val = split_train_val(records, 0.25, "/data")
    assert sorted(train + val) == sorted(records)
    assert [sum(record.label == label for record in val) for label in range(4)] == [2, 5, 1, 0]
    assert train == [record for record in records if record in train]
    assert [len(part) for part in split_train_val(videos("/data", (3,)), 0.99, "/data")] == [1, 2]


def test_split_depends_on_neither_folder_nor_order():
    here = videos("/data", (9, 9))
    there = videos("/mnt/elsewhere", (9, 9))
    random.Random(0).shuffle(there)
    expected = {record.path.removeprefix("/data") for record in split_train_val(here, 0.3, "/data")[1]}
    found = {record.path.removeprefix("/mnt/elsewhere") for record in split_train_val(there, 0.3, "/mnt/elsewhere")[1]}
    assert found == expected
    # Pinned: a new release must not move videos from training to validation.
    assert sorted(expected) == [
        *("/0/video1.mp4", "/0/video2.mp4", "/0/video5.mp4"),
        *("/1/video2.mp4", "/1/video3.mp4", "/1/video8.mp4"),
    ]


def test_recordings_stay_together():
    records = [
        Sample(f"/data/Run/v_Run_g{group:02d}_c{clip:02d}.avi", (0,)) for group in range(1, 11) for clip in range(1, 5)
    ]
    train, val = split_train_val(records, 0.2, "/data")
    assert (len(train), len(val)) == (32, 8)
    groups = [{record.path.split("_")[2] for record in part} for part in (train, val)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.csv", "path,labels\na.mp4,jump;run\nb.mp4,run | jump\nc.mp4,\n", ["jump;run", "run;jump", ""]),
        ("l.csv", "a.mp4,0;2\nb.mp4,\n", ["0;2", ""]),
        ("l.txt", "a.mp4 2\na b 3.mp4 0 2 5\nc.mp4 1;3\n", ["2", "0;2;5", "1;3"]),
        ("l.tsv", "file\tjump high\trun\na.mp4\t1\t0\nb.mp4\t0\t0\n", ["jump high", ""]),
        # as pandas writes them, with an index, a group and a column of other values
        ("l.csv", ",name,jump,run,group,note\n0,a.mp4,True,1.0,p1,x\n1,b.mp4,False,1.0,p2,y\n", ["jump;run", "run"]),
    ],
)
def test_several_labels_are_separated_or_have_columns(tmp_path, name, text, expected):
    entries = read(write(tmp_path / name, text), several=True)
    assert [";".join(entry.labels(several=True)) for entry in entries] == expected


def test_a_column_for_each_class_names_the_classes_in_its_order(tmp_path):
    notes = []
    path = write(tmp_path / "l.csv", "path,swim,fly,num_frames\na.mp4,1,0,40\nb.mp4,0,0,50\n")
    entries = read_list(path, str(tmp_path), notes, several=True)
    assert find_class_names(entries, None, several=True) == ("swim", "fly")
    assert notes == [f"not used of {path}: the column num_frames"]


def test_frames_come_before_the_labels_of_a_folder(tmp_path):
    write(tmp_path / "v" / "img_1.jpg", "")
    (entry,) = read(write(tmp_path / "l.txt", "v 120 3 5\n"), several=True)
    assert (entry.path, entry.label) == ("v", "3;5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,jump,run\na.mp4,1,0\nb.mp4,2,0\n",
            r"l\.csv:3: the column 'jump' is read as a class, and is '2'; write 0",
        ),
        ("path,jump;run\na.mp4,1\n", r"the class 'jump;run' has `;` or `\|` in its name, which separate labels"),
        ("path,note\na.mp4,x\n", "has no column of labels, and no columns of 0 and 1"),
        (
            "path,label\na.mp4,jump;3\n",
            r"l\.csv:2: the label '3', but 'jump' at .*l\.csv:2; labels are all class indices",
        ),
    ],
)
def test_malformed_lists_of_several_labels_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "l.csv", text), several=True)


def test_a_split_keeps_the_rarest_of_several_labels_balanced():
    samples = [Sample(f"./{n}.mp4", (0, 1) if n < 10 else (0,) if n < 40 else ()) for n in range(50)]
    _, val = split_train_val(samples, 0.2, ".")
    assert Counter(sample.labels for sample in val) == {(0, 1): 2, (0,): 6, (): 2}
