"""Tests of vswin.data.annotations.ucf101: the official lists and others, and where they are looked for."""

import pytest

from vswin.data.annotations.class_names import ClassLookup, read_class_names
from vswin.data.annotations.entries import ListEntry, NotFoundError
from vswin.data.annotations.ucf101 import find_lists, read_annotations
from vswin.errors import InputError

CLASSES = ClassLookup(read_class_names("ucf101"))


def read(path):
    return [(entry.path, entry.label) for entry in read_annotations(path, CLASSES)]


def test_official_lists(write):
    train = write(
        "trainlist01.txt", "Archery/v_Archery_g08_c01.avi 3\r\nYoYo/v_YoYo_g25_c02.avi 101 \r\n\r\n", "utf-8-sig"
    )
    assert read_annotations(train, CLASSES) == [
        ListEntry(str(train), 1, "Archery/v_Archery_g08_c01.avi", "Archery"),
        ListEntry(str(train), 2, "YoYo/v_YoYo_g25_c02.avi", "YoYo"),
    ]
    test = write("testlist01.txt", "\r\nArchery/v_Archery_g01_c01.avi\r\nYoYo\\v_YoYo_g01_c01.AVI\r\n")
    assert read(test) == [("Archery/v_Archery_g01_c01.avi", "Archery"), ("YoYo/v_YoYo_g01_c01.AVI", "YoYo")]


def test_a_list_without_folders_takes_classes_from_names(write):
    test = write("testlist01.txt", "v_HandStandPushups_g01_c01.avi\nv_YoYo_g01_c01.avi\n")
    assert [label for _, label in read(test)] == ["HandstandPushups", "YoYo"]


def test_handstand_pushups_are_spelt_in_two_ways(write):
    # The folder and the class have a small s, the files a capital one; some lists have it in both.
    train = write(
        "trainlist01.txt",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 37\nHandStandPushups/v_HandStandPushups_g08_c02.avi 37\n",
    )
    assert [label for _, label in read(train)] == ["HandstandPushups"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "Archery/v_Archery_g08_c01.avi 2\nYoYo/v_YoYo_g08_c01 100\n",
        "Archery/v_Archery_g08_c01.avi Archery\n",
        "path,label\nArchery/v_Archery_g08_c01.avi,2\n",
        "mine/1.avi 3\n",
    ],
)
def test_other_lists_are_left_to_the_reader_of_lists(write, text):
    assert read_annotations(write("train.txt", text), CLASSES) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("YoYo/v_YoYo_g08_c01.avi 100", r"x\.txt:2: label 100 for 'YoYo', which is 101; .*count from 1"),
        ("YoYoo/v_YoYo_g08_c01.avi 101", r"x\.txt:2: unknown class 'YoYoo'; did you mean 'YoYo'"),
        ("YoYo/v_YoYo_g08_c01.avi 101 7", r"x\.txt:2: expected `Class/video\.avi`"),
        ("YoYo", r"x\.txt:2: expected `Class/video\.avi`"),
    ],
)
def test_wrong_official_lists(write, line, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write("x.txt", f"Archery/v_Archery_g08_c01.avi 3\n{line}\n"), CLASSES)


def test_the_numbering_is_compared(write):
    train = write("trainlist01.txt", "Archery/v_Archery_g08_c01.avi 3\n")
    lines = [f"{number} {name}\r\n" for number, name in enumerate(CLASSES.class_names, start=1)]
    write("classInd.txt", "".join(lines))
    assert len(read(train)) == 1
    write("classInd.txt", "".join(lines[1:]))
    with pytest.raises(InputError, match=r"classInd\.txt numbers the classes otherwise"):
        read_annotations(train, CLASSES)


@pytest.mark.parametrize(
    "folder", ["splits", "ucfTrainTestlist", "annotations", "UCF-101", "UCF-101/ucfTrainTestlist", "."]
)
def test_lists_are_found(tmp_path, write, make_files, folder):
    make_files("UCF-101/Archery/v_Archery_g01_c01.avi")
    write(f"{folder}/trainlist03.txt", "")
    train, test = find_lists(tmp_path / "UCF-101", 3)
    assert (train.name, test.name) == ("trainlist03.txt", "testlist03.txt")
    assert train.resolve() == (tmp_path / folder / "trainlist03.txt").resolve()


def test_without_lists_the_way_to_them_is_shown(tmp_path, make_files):
    with pytest.raises(NotFoundError, match=r"the folder .*videos cannot be found.*UCF101\.rar.*splits.*dataset\.root"):
        find_lists(tmp_path / "videos", 1)
    make_files("videos/a.avi")
    with pytest.raises(NotFoundError, match=r"the lists \(trainlist01\.txt\) cannot be found.*train_list"):
        find_lists(tmp_path / "videos", 1)
    with pytest.raises(InputError, match=r"dataset\.split=4: UCF101 has the splits 1, 2 and 3"):
        find_lists(tmp_path / "videos", 4)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"x\.txt cannot be read"):
        read_annotations(tmp_path / "x.txt", CLASSES)
