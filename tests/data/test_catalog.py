"""Tests of vswin.data.catalog: each data set as its configuration file describes it, and what may be wrong."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from vswin.data import catalog as catalog_module
from vswin.data.catalog import Catalog, describe_catalog, load_catalog, read_class_names
from vswin.data.motion import MOTIONS, MotionPlan, prepare_motion
from vswin.data.records import VideoRecord
from vswin.errors import InputError

DATASETS = ("motion", "folder", "ucf101", "kinetics400")


@pytest.fixture
def configured(compose_train):
    """Makes the configuration of a data set with other paths."""

    def config_of(name, **overrides):
        config = compose_train(f"dataset={name}").dataset
        return dataclasses.replace(config, **{key: str(value) for key, value in overrides.items()})

    return config_of


def make_files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", DATASETS)
def test_each_configuration_is_complete(name, configured):
    config = configured(name)
    assert config.name == name
    assert config.root == f"data/{name}/videos"
    assert not any(value == "???" for value in vars(config).values())


def test_class_lists(configured):
    assert read_class_names("motion") == tuple(MOTIONS)
    ucf101, kinetics400 = read_class_names("ucf101"), read_class_names("kinetics400")
    assert (len(set(ucf101)), ucf101[0], ucf101[-1]) == (101, "ApplyEyeMakeup", "YoYo")
    assert (len(set(kinetics400)), kinetics400[0], kinetics400[-1]) == (400, "abseiling", "zumba")
    assert [configured(name).num_classes for name in ("ucf101", "kinetics400")] == [101, 400]


def test_motion(tmp_path, monkeypatch, configured):
    plan = MotionPlan(train_per_class=2, val_per_class=1)
    monkeypatch.setattr(catalog_module, "prepare_motion", lambda root: prepare_motion(root, plan))
    catalog = load_catalog(configured("motion", root=tmp_path / "videos"))
    assert catalog.class_names == tuple(MOTIONS)
    assert (len(catalog.train), len(catalog.val)) == (16, 8)
    assert catalog.val[2] == VideoRecord(str(tmp_path / "videos" / "val" / "move_right" / "00001.avi"), 2)
    with pytest.raises(InputError, match=r"no lists.*val_list"):
        load_catalog(configured("motion", root=tmp_path / "videos", val_list="val.txt"))


def test_folder_with_and_without_val(tmp_path, configured):
    make_files(tmp_path, *(f"a/{name}/{number}.mp4" for name in ("run", "hop") for number in range(5)))
    catalog = load_catalog(configured("folder", root=tmp_path / "a"))
    assert catalog.class_names == ("hop", "run")
    assert [len(catalog.train), len(catalog.val)] == [8, 2]
    assert {record.label for record in catalog.val} == {0, 1}
    make_files(tmp_path, "b/train/hop/1.mp4", "b/train/run/2.mp4", "b/val/hop/3.mp4", "b/val/run/4.mp4")
    catalog = load_catalog(configured("folder", root=tmp_path / "b"))
    assert [Path(record.path).name for record in catalog.val] == ["3.mp4", "4.mp4"]


def test_folder_with_lists(tmp_path, configured):
    make_files(tmp_path, *(f"v/{number}.mp4" for number in range(4)))
    train_list = write(tmp_path / "train.csv", "path,label\n0.mp4,run fast\n1.mp4,hop\n")
    val_list = write(tmp_path / "val.csv", "2.mp4,hop\n")
    config = configured("folder", root=tmp_path / "v", train_list=train_list, val_list=val_list)
    catalog = load_catalog(config)
    assert catalog.class_names == ("hop", "run fast")
    assert [record.label for record in catalog.train] == [1, 0]
    assert catalog.val == [VideoRecord(str(tmp_path / "v" / "2.mp4"), 0)]


def test_lists_start_from_their_own_folder_without_a_root(tmp_path, configured):
    make_files(tmp_path, "a/0.mp4", "a/1.mp4", "b/2.mp4")
    train_list = write(tmp_path / "a" / "train.txt", "0.mp4 0\n1.mp4 1\n")
    val_list = write(tmp_path / "b" / "val.txt", "2.mp4 2\n")
    config = configured("folder", root=tmp_path / "nowhere", train_list=train_list, val_list=val_list)
    catalog = load_catalog(config)
    assert catalog.class_names == ("0", "1", "2")
    assert catalog.val == [VideoRecord(str(tmp_path / "b" / "2.mp4"), 2)]


def test_a_list_without_val_list_is_divided(tmp_path, configured):
    make_files(tmp_path, *(f"{number}.mp4" for number in range(10)))
    lines = "".join(f"{number}.mp4 {number % 2}\n" for number in range(10))
    catalog = load_catalog(configured("folder", root=tmp_path, train_list=write(tmp_path / "l.txt", lines)))
    assert [len(catalog.train), len(catalog.val)] == [8, 2]


def test_kinetics400(tmp_path, configured):
    make_files(tmp_path, "v/abseiling/a.mp4", "v/zumba/b.mp4")
    val_list = write(tmp_path / "val.txt", "zumba/b.mp4 399\nabseiling/a.mp4 0\n")
    catalog = load_catalog(configured("kinetics400", root=tmp_path / "v", val_list=val_list))
    assert catalog.train == []
    assert [record.label for record in catalog.val] == [399, 0]
    assert len(catalog.class_names) == 400
    with pytest.raises(InputError, match=r"dataset\.val_list.*dataset\.root"):
        load_catalog(configured("kinetics400", root=tmp_path / "v"))
    shifted = write(tmp_path / "shifted.txt", "zumba/b.mp4 398\n")
    with pytest.raises(InputError, match="another order"):
        load_catalog(configured("kinetics400", root=tmp_path / "v", val_list=shifted))


def make_ucf101(folder, list_folder, is_flat=False):
    for name in ("Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g08_c01.avi", "YoYo/v_YoYo_g08_c01.avi"):
        make_files(folder, name.split("/")[1] if is_flat else name)
    write(list_folder / "trainlist02.txt", "Archery/v_Archery_g08_c01.avi 3\nYoYo/v_YoYo_g08_c01.avi 101\n")
    write(list_folder / "testlist02.txt", "Archery/v_Archery_g01_c01.avi\n")


@pytest.mark.parametrize("list_folder", ["splits", "ucfTrainTestlist", "videos"])
@pytest.mark.parametrize("is_flat", [False, True])
def test_ucf101(tmp_path, list_folder, is_flat, configured):
    make_ucf101(tmp_path / "videos", tmp_path / list_folder, is_flat)
    config = dataclasses.replace(configured("ucf101", root=tmp_path / "videos"), split=2)
    catalog = load_catalog(config)
    assert [record.label for record in catalog.train] == [2, 100]
    folder = tmp_path / "videos" if is_flat else tmp_path / "videos" / "Archery"
    assert catalog.val == [VideoRecord(str(folder / "v_Archery_g01_c01.avi"), 2)]


def test_missing_ucf101_says_what_to_do(tmp_path, configured):
    config = configured("ucf101", root=tmp_path / "videos")
    for missing in ("the folder .*videos", r"the lists \(trainlist01\.txt\)"):
        with pytest.raises(InputError, match=missing + r".*UCF101\.php get UCF101\.rar.*splits.*dataset\.root"):
            load_catalog(config)
        (tmp_path / "videos").mkdir(exist_ok=True)


def test_ucf101_checks_split_and_numbering(tmp_path, configured):
    make_ucf101(tmp_path / "videos", tmp_path / "splits")
    config = dataclasses.replace(configured("ucf101", root=tmp_path / "videos"), split=4)
    with pytest.raises(InputError, match=r"dataset\.split=4"):
        load_catalog(config)
    lines = [f"{number} {name}\r\n" for number, name in enumerate(read_class_names("ucf101"), start=1)]
    write(tmp_path / "splits" / "classInd.txt", "".join(lines))
    load_catalog(dataclasses.replace(config, split=2))
    write(tmp_path / "splits" / "classInd.txt", "".join(lines[1:]))
    with pytest.raises(InputError, match=r"classInd\.txt numbers the classes otherwise"):
        load_catalog(dataclasses.replace(config, split=2))


def test_contradictions_are_refused(tmp_path, configured):
    make_files(tmp_path, "v/hop/0.mp4", "v/run/1.mp4")
    config = configured("folder", root=tmp_path / "v")
    with pytest.raises(InputError, match="None of the 2 videos can be held out"):
        load_catalog(config)
    make_files(tmp_path, "v/hop/2.mp4")
    with pytest.raises(InputError, match=r"num_classes=3, but the data has 2"):
        load_catalog(dataclasses.replace(config, num_classes=3))
    with pytest.raises(InputError, match=r"val_fraction=0\.0"):
        load_catalog(dataclasses.replace(config, val_fraction=0.0))
    with pytest.raises(InputError, match=r"needs dataset\.train_list"):
        load_catalog(dataclasses.replace(config, val_list="val.txt"))
    with pytest.raises(InputError, match=r"dataset\.name='ucf10' is unknown; did you mean 'ucf101'"):
        load_catalog(dataclasses.replace(config, name="ucf10"))


def test_description():
    records = [VideoRecord("a.mp4", 0)] * 3200
    assert describe_catalog(Catalog(("a", "b"), records, records[:400])) == (
        "2 classes, 3,200 training videos, 400 validation videos"
    )


def test_no_tensorflow_is_imported():
    code = "import sys, vswin.data.catalog; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
