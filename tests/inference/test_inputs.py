import os

import pytest

from vswin.errors import InputError
from vswin.inference.inputs import Input, find_camera, find_videos, name_outputs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.mp4", "run/2.avi", "run/10.MKV", "run/notes.txt", "walk/deep/3.webm", ".cache/4.mp4", "._5.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_stands_for_all_videos_below_it_and_names_their_classes(folder):
    assert find_videos(["videos"]) == [
        Input("videos/b.mp4", "b.mp4", ""),
        Input("videos/run/10.MKV", "run/10.MKV", "run"),
        Input("videos/run/2.avi", "run/2.avi", "run"),
        Input("videos/walk/deep/3.webm", "walk/deep/3.webm", "deep"),
    ]


def test_a_pattern_names_classes_from_its_first_wildcard_on(folder):
    found = [Input("videos/run/10.MKV", "run/10.MKV", "run"), Input("videos/run/2.avi", "run/2.avi", "run")]
    assert find_videos(["videos/r*"]) == found
    assert find_videos(["videos/*/*.[aM]*"]) == found
    assert [entry.path for entry in find_videos(["videos/**/*.webm"])] == ["videos/walk/deep/3.webm"]
    assert find_videos(["videos/run/*.avi"]) == [Input("videos/run/2.avi", "2.avi", "")]
    absolute = find_videos([f"{folder}/videos/*/2.avi"])
    assert absolute == [Input(f"{folder}/videos/run/2.avi", "run/2.avi", "run")]


def test_links_in_circles_end_and_each_real_file_comes_once(folder):
    (folder / "videos/run/all").symlink_to(folder / "videos")
    (folder / "videos/run/more").symlink_to(folder / "videos/run")
    (folder / "videos/again.mp4").symlink_to("b.mp4")
    names = ["again.mp4", "run/10.MKV", "run/2.avi", "walk/deep/3.webm"]
    for arguments in (["videos"], ["videos/**/*.*[!t]"], ["videos", "videos/run/../run", "./videos/b.mp4"]):
        assert [entry.name for entry in find_videos(arguments)] == names
    found = find_videos(["videos/**/run/**", "videos/**/2.*"])
    assert [entry.name for entry in found] == ["run/10.MKV", "run/2.avi", "run/notes.txt"]
    assert find_videos(["videos/walk/**"]) == [Input("videos/walk/deep/3.webm", "deep/3.webm", "deep")]


def test_named_files_keep_their_order_and_come_once_whatever_their_names(folder):
    found = find_videos(["videos/run/notes.txt", "videos/run/2.avi", "videos/run"])
    assert [entry.path for entry in found] == ["videos/run/notes.txt", "videos/run/2.avi", "videos/run/10.MKV"]
    (folder / "take[1].mp4").touch()
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    for name in ("take[1].mp4", "dangling.mp4"):
        assert find_videos([name]) == [Input(name, name)]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("gone.mp4", "gone.mp4: there is no such file or folder"),
        ("empty", "empty: there are no videos in this folder"),
        ("videos/*.xyz", r"videos/\*.xyz: no file matches this pattern"),
        ("camera2", "camera2: there is no such file"),
    ],
)
def test_an_argument_that_stands_for_nothing_is_an_error(folder, argument, words):
    with pytest.raises(InputError, match=words):
        find_videos(["videos/b.mp4", argument])


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"the folder videos cannot be read \(Permission denied\)"):
        find_videos(["videos"])


def test_cameras_are_told_from_files(folder):
    assert find_camera(["camera"]) == 0
    assert find_camera(["camera:12"]) == 12
    assert find_camera(["videos", "gone.mp4"]) is None
    (folder / "camera").mkdir()
    assert find_camera(["camera"]) is None
    with pytest.raises(InputError, match="a camera goes alone"):
        find_camera(["camera:1", "videos"])


def test_copies_are_named_after_the_videos_and_never_take_one_name(tmp_path):
    inputs = [Input("v/run/a.avi", "run/a.avi"), *(Input(f"{root}/run/a.mp4", "run/a.mp4") for root in "vwu")]
    names = [path.relative_to(tmp_path) for path in name_outputs(inputs, tmp_path, False).values()]
    assert [str(name) for name in names] == ["run/a.mp4", "run/a.mp4.mp4", "run/a.mp4_2.mp4", "run/a.mp4_3.mp4"]


def test_no_copy_takes_the_place_of_a_file_nor_of_a_video_that_is_read(tmp_path):
    (tmp_path / "a.mp4").touch()
    entry = Input(str(tmp_path / "elsewhere" / "a.avi"), "a.avi")
    with pytest.raises(InputError, match="exists; name another file, or give --overwrite"):
        name_outputs([entry], tmp_path, False)
    assert name_outputs([entry], tmp_path, True) == {entry.path: tmp_path / "a.mp4"}
    with pytest.raises(InputError, match="is one of the videos to read"):
        name_outputs([Input(str(tmp_path / "a.mp4"), "a.mp4")], tmp_path, True)
