"""Tests of vswin.data.folder: layouts that are read, and layouts that are refused."""

import os

import pytest

from vswin.data.folder import load_folder
from vswin.data.samples import Sample
from vswin.errors import InputError


def test_classes_are_folders_in_sorted_order(tmp_path, make_files):
    make_files("run/b.MP4", "run/a.webm", "jump/x.mov", "jump/notes.txt", "jump/._x.mov", ".git/y.avi")
    class_names, train, val = load_folder(tmp_path)
    assert class_names == ("jump", "run")
    assert train == [
        Sample(str(tmp_path / "jump" / "x.mov"), (0,)),
        Sample(str(tmp_path / "run" / "a.webm"), (1,)),
        Sample(str(tmp_path / "run" / "b.MP4"), (1,)),
    ]
    assert val == []


def test_train_and_val_folders(tmp_path, make_files):
    make_files("train/run/a.avi", "train/jump/b.mkv", "val/run/c.m4v", "val/jump/d.mpg")
    class_names, train, val = load_folder(tmp_path)
    assert class_names == ("jump", "run")
    assert [(os.path.basename(video.path), video.label) for video in train] == [("b.mkv", 0), ("a.avi", 1)]
    assert [(os.path.basename(video.path), video.label) for video in val] == [("d.mpg", 0), ("c.m4v", 1)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no class folders"),
        (["a.mp4", "b.mp4"], r"outside of class folders, e\.g\. a\.mp4; expected <root>/<class>"),
        (["run/a.mp4", "jump/readme.txt"], "no videos of the class 'jump'"),
        (
            ["train/run/a.mp4", "train/jump/a.mp4", "test/run/a.mp4"],
            "no videos of the class 'test'.*<root>/val",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path, make_files, files, message):
    make_files(*files)
    with pytest.raises(InputError, match=message):
        load_folder(tmp_path)
    with pytest.raises(InputError, match=r"no folder .*nowhere; set dataset\.root"):
        load_folder(tmp_path / "nowhere")
