"""Tests of vswin.data.annotations.hmdb51: 51 files a split, with all the characters that occur in its names."""

import pytest

from vswin.data.annotations.class_names import ClassLookup, read_class_names
from vswin.data.annotations.entries import ListEntry, NotFoundError
from vswin.data.annotations.hmdb51 import find_lists, read_annotations
from vswin.errors import InputError

CLASSES = ClassLookup(read_class_names("hmdb51"))

# In the form of the archive: a space ends each line.
CLAP = (
    "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 \n"
    "Bob&Sue;(again)_clap_u_cm_np1_fr_bad_2.avi 2 \n"
    "AMADEUS_clap_u_nm_np1_fr_goo_8.avi 0 \n"
)


def read(path, subset="train", split=1):
    return [(entry.path, entry.label) for entry in read_annotations(path, subset, split, CLASSES)]


def test_uses_tell_training_from_test(tmp_path, write):
    write("s/clap_test_split1.txt", CLAP)
    path = write("s/brush_hair_test_split1.txt", "a b_brush_hair_u.AVI\t2\r\n\r\n", "utf-8-sig")
    write("s/clap_test_split2.txt", "AMADEUS_clap_u_nm_np1_fr_goo_8.avi 1 \n")
    write("s/readme.txt", "Not a list")
    assert read(tmp_path / "s") == [("clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "clap")]
    assert read_annotations(tmp_path / "s", "val", 1, CLASSES) == [
        ListEntry(str(path), 1, "brush_hair/a b_brush_hair_u.AVI", "brush_hair"),
        ListEntry(
            str(tmp_path / "s" / "clap_test_split1.txt"), 2, "clap/Bob&Sue;(again)_clap_u_cm_np1_fr_bad_2.avi", "clap"
        ),
    ]
    assert [path for path, _ in read(tmp_path / "s", split=2)] == ["clap/AMADEUS_clap_u_nm_np1_fr_goo_8.avi"]


def test_one_class_alone_may_be_named(write):
    path = write("clap_test_split1.txt", CLAP)
    assert len(read(path)) == 1
    with pytest.raises(InputError, match=r"clap_test_split1\.txt is of split 1, but dataset\.split=2"):
        read(path, split=2)


def test_other_lists_are_left_to_the_reader_of_lists(write):
    path = write("hmdb51_train_split_1_videos.txt", "clap/#20_clap_0.avi 3\nwave/x.avi 50\n")
    assert read_annotations(path, "train", 1, CLASSES) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("clap_test_split1.txt", "a.avi 1\nb.avi 3\n", r"split1\.txt:2: expected `video\.avi 1`.*found 'b\.avi 3'"),
        ("clap_test_split1.txt", "a.avi\n", r"split1\.txt:1: expected"),
        ("clap_test_split1.txt", "a.avi 0 \n", r"names no training videos of split 1"),
        ("clap_test_split1.txt", "", r"names no videos"),
        ("clapp_test_split1.txt", "a.avi 1\n", r"unknown class 'clapp'; did you mean 'clap'"),
    ],
)
def test_wrong_lists(tmp_path, write, name, text, message):
    write(f"s/{name}", text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "s")


def test_a_folder_without_lists_of_the_split(tmp_path, write):
    write("s/clap_test_split1.txt", CLAP)
    with pytest.raises(InputError, match=r"names no training videos of split 3"):
        read(tmp_path / "s", split=3)


@pytest.mark.parametrize(
    "folder", ["splits", "testTrainMulti_7030_splits", "videos/testTrainMulti_7030_splits", "videos", "."]
)
def test_lists_are_found(tmp_path, write, make_files, folder):
    make_files("videos/clap/a.avi")
    write(f"{folder}/clap_test_split2.txt", CLAP)
    train, test = find_lists(tmp_path / "videos", 2)
    assert train == test
    assert train.resolve() == (tmp_path / folder).resolve()


def test_without_lists_the_way_to_them_is_shown(tmp_path, make_files):
    with pytest.raises(NotFoundError, match=r"the folder .*videos cannot be found.*hmdb51_org\.rar"):
        find_lists(tmp_path / "videos", 1)
    make_files("videos/a.avi")
    with pytest.raises(NotFoundError, match=r"<class>_test_split1\.txt\) cannot be found.*test_train_splits\.rar"):
        find_lists(tmp_path / "videos", 1)
    with pytest.raises(InputError, match=r"dataset\.split=0"):
        find_lists(tmp_path / "videos", 0)
