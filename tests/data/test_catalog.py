"""Tests of vswin.data.catalog: each data set as its configuration file describes it, and what may be wrong."""

import dataclasses
import gc
import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from vswin.data import catalog as catalog_module
from vswin.data.annotations import ANNOTATED
from vswin.data.catalog import describe_catalog, hash_videos, load_catalog
from vswin.data.class_names import read_class_names
from vswin.data.matching import UnusedEntry
from vswin.data.motion import MOTIONS, MotionPlan, prepare_motion
from vswin.data.samples import Sample
from vswin.errors import InputError

DATASETS = ("motion", "folder", *ANNOTATED)

CONFIGS = {}  # composed once, since composing takes longer than most tests


@pytest.fixture
def configured(compose_train):
    """Returns the configuration of a data set with other paths."""

    def config_of(name, **overrides):
        config = CONFIGS.get(name) or CONFIGS.setdefault(name, compose_train(f"dataset={name}").dataset)
        paths = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
        return dataclasses.replace(config, **paths)

    return config_of


@pytest.mark.parametrize("name", DATASETS)
def test_each_configuration_is_complete(name, configured):
    config = configured(name)
    assert config.name == name
    assert config.root == f"data/{name}/videos"
    assert not any(value == "???" for value in vars(config).values())
    if name not in ("motion", "folder"):
        assert config.num_classes == len(read_class_names(name))


def test_motion(tmp_path, monkeypatch, configured):
    plan = MotionPlan(train_per_class=2, val_per_class=1)
    monkeypatch.setattr(catalog_module, "prepare_motion", lambda root: prepare_motion(root, plan))
    catalog = load_catalog(configured("motion", root=tmp_path / "videos"))
    assert catalog.class_names == tuple(MOTIONS)
    assert (len(catalog.train), len(catalog.val)) == (16, 8)
    assert catalog.val[2] == Sample(str(tmp_path / "videos" / "val" / "move_right" / "00001.avi"), (2,))
    with pytest.raises(InputError, match=r"no lists.*val_list"):
        load_catalog(configured("motion", root=tmp_path / "videos", val_list="val.txt"))


def test_folder_with_and_without_val(tmp_path, configured, make_files):
    make_files(*(f"a/{name}/{number}.mp4" for name in ("run", "hop") for number in range(5)))
    catalog = load_catalog(configured("folder", root=tmp_path / "a"))
    assert catalog.class_names == ("hop", "run")
    assert [len(catalog.train), len(catalog.val)] == [8, 2]
    assert {record.label for record in catalog.val} == {0, 1}
    make_files("b/train/hop/1.mp4", "b/train/run/2.mp4", "b/val/hop/3.mp4", "b/val/run/4.mp4")
    catalog = load_catalog(configured("folder", root=tmp_path / "b"))
    assert [Path(record.path).name for record in catalog.val] == ["3.mp4", "4.mp4"]


def test_lists_start_from_their_own_folder_without_a_root(tmp_path, configured, make_files, write):
    make_files("a/0.mp4", "a/1.mp4", "b/2.mp4")
    train_list = write("a/train.txt", "0.mp4 0\n1.mp4 1\n")
    val_list = write("b/val.txt", "2.mp4 2\n")
    config = configured("folder", root=tmp_path / "nowhere", train_list=train_list, val_list=val_list)
    catalog = load_catalog(config)
    assert catalog.class_names == ("0", "1", "2")
    assert catalog.val == [Sample(str(tmp_path / "b" / "2.mp4"), (2,))]
    # Without a validation list, some training videos are held out.
    train_list = write("a/train.txt", "0.mp4 0\n1.mp4 0\n")
    config = configured("folder", root=tmp_path / "nowhere", train_list=train_list, num_classes=2)
    assert [len(load_catalog(config).train), len(load_catalog(config).val)] == [1, 1]


def test_kinetics400(tmp_path, configured, make_files, write):
    make_files("v/abseiling/a.mp4", "v/zumba/b.mp4")
    val_list = write("val.txt", "zumba/b.mp4 399\nabseiling/a.mp4 0\n")
    catalog = load_catalog(configured("kinetics400", root=tmp_path / "v", val_list=val_list))
    assert catalog.train == []
    assert [record.label for record in catalog.val] == [399, 0]
    assert len(catalog.class_names) == 400
    shifted = write("shifted.txt", "zumba/b.mp4 398\n")
    with pytest.raises(InputError, match="another order"):
        load_catalog(configured("kinetics400", root=tmp_path / "v", val_list=shifted))


@pytest.mark.parametrize(("list_folder", "is_flat"), [("splits", False), ("videos", True)])
def test_ucf101(tmp_path, list_folder, is_flat, configured, make_files, write):
    for name in ("Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g08_c01.avi", "YoYo/v_YoYo_g08_c01.avi"):
        make_files(f"videos/{name.split('/')[1] if is_flat else name}")
    write(f"{list_folder}/trainlist02.txt", "Archery/v_Archery_g08_c01.avi 3\nYoYo/v_YoYo_g08_c01.avi 101\n")
    write(f"{list_folder}/testlist02.txt", "Archery/v_Archery_g01_c01.avi\n")
    catalog = load_catalog(configured("ucf101", root=tmp_path / "videos", split=2))
    assert [record.label for record in catalog.train] == [2, 100]
    folder = tmp_path / "videos" if is_flat else tmp_path / "videos" / "Archery"
    assert catalog.val == [Sample(str(folder / "v_Archery_g01_c01.avi"), (2,))]
    # Files may be encoded and spelt otherwise.
    make_files("more/HandstandPushups/v_HandstandPushups_g08_c01.MP4")
    val_list = write("more.txt", "HandstandPushups/v_HandStandPushups_g08_c01.avi 37\n")
    assert load_catalog(configured("ucf101", root=tmp_path / "more", val_list=val_list)).val[0].label == 36


KINETICS = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics400_by_the_owners_files(tmp_path, configured, make_files, write):
    make_files("videos/train/air_drumming/-a_000001_000011.mp4", "videos/val/b_000002_000012.webm")
    write("annotations/train.csv", KINETICS + "air drumming,-a,1,11,train\n")
    write("annotations/val.csv", KINETICS + "zumba,b,2,12,validate\n")
    catalog = load_catalog(configured("kinetics400", root=tmp_path / "videos"))
    folder = tmp_path / "videos"
    assert catalog.train == [Sample(str(folder / "train" / "air_drumming" / "-a_000001_000011.mp4"), (1,))]
    assert catalog.val == [Sample(str(folder / "val" / "b_000002_000012.webm"), (399,))]
    assert not any(catalog.missing.values())
    alone = load_catalog(configured("kinetics600", root=folder, val_list=tmp_path / "annotations" / "val.csv"))
    assert (alone.train, [record.label for record in alone.val]) == ([], [599])


def test_a_training_list_without_one_for_validation_is_not_divided_in_silence(tmp_path, configured, make_files, write):
    make_files(*(f"v/{name}_000000_000010.mp4" for name in "abcd"))
    lines = "".join(f"zumba,{name},0,10,train\n" for name in "abcd")
    train_list = write("annotations/train.csv", KINETICS + lines)
    config = configured("kinetics400", root=tmp_path / "v")
    with pytest.raises(InputError, match=r"train\.csv is there, but no list of the validation videos; .*val_list"):
        load_catalog(config)
    catalog = load_catalog(dataclasses.replace(config, train_list=str(train_list)))
    assert (len(catalog.train), len(catalog.val)) == (3, 1)


@pytest.mark.parametrize(("split", "layout"), [(1, "{}/"), (2, ""), (3, "{0}/{0}/")])
def test_hmdb51(tmp_path, configured, split, layout, make_files, write):
    names = {"clap": "#20_clap_u_nm.avi", "wave": "a;(b)&c_wave_u.avi"}
    for class_name, name in names.items():
        make_files(f"videos/{layout.format(class_name)}{name}")
    write(f"splits/clap_test_split{split}.txt", f"{names['clap']} 1 \ngone_clap.avi 0 \n")
    write(f"splits/wave_test_split{split}.txt", f"{names['wave']} 2 \n")
    config = configured("hmdb51", root=tmp_path / "videos", split=split)
    catalog = load_catalog(config)
    assert [(Path(record.path).name, record.label) for record in catalog.train] == [(names["clap"], 4)]
    assert [(Path(record.path).name, record.label) for record in catalog.val] == [(names["wave"], 50)]
    folder = str(tmp_path / "splits")
    assert load_catalog(dataclasses.replace(config, train_list=folder, val_list=folder)) == catalog


def test_sthv2(tmp_path, configured, compose_train, make_files, write):
    make_files("20bn/1.webm", "20bn/2.mp4")
    for number, name in enumerate(("train", "validation"), start=1):
        videos = [{"id": str(number), "label": "x", "template": "Closing [something]", "placeholders": ["x"]}]
        write(f"labels/something-something-v2-{name}.json", json.dumps(videos))
    catalog = load_catalog(configured("sthv2", root=tmp_path / "20bn"))
    assert catalog.train == [Sample(str(tmp_path / "20bn" / "1.webm"), (5,))]
    assert catalog.val == [Sample(str(tmp_path / "20bn" / "2.mp4"), (5,))]
    config = compose_train("dataset=sthv2")
    assert (config.clip.sampling, config.clip.num_clips, config.clip.num_crops) == ("segments", 1, 3)
    assert (config.epochs, config.dataset.allow_flip) == (60, False)


def test_kinetics700(tmp_path, configured, make_files, write):
    make_files("k700-2020/train/zumba/a_000000_000010.mp4", "k700-2020/val/abseiling/b_000004_000014.mp4")
    write("k700-2020/annotations/train.csv", KINETICS + "zumba,a,0,10,train\n")
    write("k700-2020/annotations/val.csv", KINETICS + "abseiling,b,4,14,validate\n")
    catalog = load_catalog(configured("kinetics700", root=tmp_path / "k700-2020"))
    assert [(Path(video.path).name, video.label) for video in (*catalog.train, *catalog.val)] == [
        *[("a_000000_000010.mp4", 699), ("b_000004_000014.mp4", 0)]
    ]


def test_diving48(tmp_path, configured, make_files, write):
    make_files("rgb/_8Vy3dlHg2w_00000.mp4", "rgb/-mmq0PT-u8k_00155.mp4", "rgb/-mmq0PT-u8k_00156.mp4")
    for name, numbers in (("train", (155,)), ("test", (156,))):
        videos = [
            {"vid_name": f"-mmq0PT-u8k_00{number}", "label": 3, "start_frame": 0, "end_frame": 48} for number in numbers
        ]
        write(f"Diving48_V2_{name}.json", json.dumps(videos))
    catalog = load_catalog(configured("diving48", root=tmp_path / "rgb"))
    assert catalog.train == [Sample(str(tmp_path / "rgb" / "-mmq0PT-u8k_00155.mp4"), (3,))]
    assert catalog.val == [Sample(str(tmp_path / "rgb" / "-mmq0PT-u8k_00156.mp4"), (3,))]


def test_charades_has_several_labels_per_video(tmp_path, configured, make_files, write):
    make_files("Charades_v1_480/46GP8.mp4", "Charades_v1_480/N11GT.mp4", "Charades_v1_480/2B9AZ.mp4")
    header = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    write(
        "annotations/Charades_v1_train.csv", header + "N11GT,,,,,,,,,c150 0.0 9.7;c002 1.0 2.0,16\n2B9AZ,,,,,,,,,,9\n"
    )
    write("annotations/Charades_v1_test.csv", header + "46GP8,,,,,,,,,c092 11.90 21.20;c147 0.00 12.60,24.83\n")
    catalog = load_catalog(configured("charades", root=tmp_path / "Charades_v1_480"))
    assert [sample.labels for sample in (*catalog.train, *catalog.val)] == [(2, 150), (), (92, 147)]


def test_several_labels_of_own_videos(tmp_path, configured, make_files, write):
    """A video in several lines has the labels of all; a class without videos is said; names keep their column order."""
    make_files("a.mp4", "b.mp4", "jump/c.mp4")
    path = write("l.csv", "path,label,split\na.mp4,run;jump,train\na.mp4,swim,train\nb.mp4,,train\nc.mp4,run,val\n")
    settings = {"task": "multi_label", "root": tmp_path}
    with pytest.raises(InputError, match=r"c\.mp4"):
        load_catalog(configured("folder", train_list=path, **settings))
    path.write_text(path.read_text().replace("c.mp4", "jump/c.mp4"))
    catalog = load_catalog(configured("folder", train_list=path, **settings))
    assert catalog.class_names == ("jump", "run", "swim")
    assert [sample.labels for sample in (*catalog.train, *catalog.val)] == [(0, 1, 2), (), (1,)]
    notes = "\n".join(catalog.notes)
    assert f"videos that {path} names again: 1; each counts once, with all its labels" in notes
    assert "2 classes without validation videos: jump, swim" in notes
    marks = write("m.csv", "file,swim,run,jump\na.mp4,1,0,0\nb.mp4,0,1,0\njump/c.mp4,1,1,0\n")
    catalog = load_catalog(configured("folder", train_list=marks, val_list=marks, **settings))
    assert catalog.class_names == ("swim", "run", "jump")
    assert [sample.labels for sample in catalog.val] == [(0,), (1,), (0, 1)]
    assert "1 class without training videos: jump" in "\n".join(catalog.notes)
    with pytest.raises(InputError, match=r"l\.csv:4: expected .*dataset\.task=multi_label"):
        load_catalog(configured("folder", train_list=path, root=tmp_path))


def test_jester_reads_folders_of_pictures_and_videos(tmp_path, configured, compose_train, make_files, write):
    make_files(*(f"20bn-jester-v1/{video}/{number:05d}.jpg" for video in (1, 11) for number in (1, 2)))
    make_files("20bn-jester-v1/2.webm", "20bn-jester-v1/more/3/00001.jpg", "20bn-jester-v1/cover.jpg")
    write("annotations/jester-v1-train.csv", "1;Swiping Left\n2;Swiping Right\n")
    write("annotations/jester-v1-validation.csv", "11;No gesture\n3;Thumb Up\n")
    root = tmp_path / "20bn-jester-v1"
    catalog = load_catalog(configured("jester", root=root))
    assert catalog.train == [Sample(str(root / "1"), (0,)), Sample(str(root / "2.webm"), (1,))]
    assert catalog.val == [Sample(str(root / "11"), (25,)), Sample(str(root / "more" / "3"), (20,))]
    config = compose_train("dataset=jester")
    assert (config.clip.sampling, config.dataset.allow_flip) == ("segments", False)


def test_missing_videos_are_an_error_unless_allowed(tmp_path, configured, make_files, write):
    make_files("v/a0.mp4")
    train_list = write("train.csv", KINETICS + "".join(f"zumba,a{number},0,10,train\n" for number in range(7)))
    val_list = write("val.csv", KINETICS + "zumba,a0,0,10,val\n")
    config = configured("kinetics400", root=tmp_path / "v", train_list=train_list, val_list=val_list)
    with pytest.raises(InputError, match=r"6 of the 7 videos of the list .*train\.csv.*allow_missing=true") as caught:
        load_catalog(config)
    named = str(caught.value).splitlines()[1:]
    assert named == [f"  {train_list}:{number + 2}: a{number}_000000_000010" for number in range(1, 6)]
    catalog = load_catalog(dataclasses.replace(config, allow_missing=True))
    numbers = len(catalog.train), len(catalog.val), len(catalog.missing["train"]), len(catalog.missing["val"])
    assert numbers == (1, 1, 6, 0)
    assert catalog.missing["train"][0] == UnusedEntry(f"{train_list}:3", "a1_000000_000010", (399,))
    assert describe_catalog(catalog) == (
        "400 classes, 1 training video, 1 validation video; 6 training videos of the lists are missing"
    )


def test_lists_without_any_video_are_an_error_even_if_missing_ones_are_allowed(tmp_path, configured, make_files, write):
    make_files("v/a_000000_000010.mp4")
    write("train.csv", KINETICS + "zumba,b,0,10,train\n")
    write("val.csv", KINETICS + "zumba,a,0,10,val\n")
    config = configured("kinetics400", root=tmp_path / "v", allow_missing=True)
    with pytest.raises(
        InputError, match=r"1 of the 1 videos of the list .*train\.csv.*dataset\.root.*dataset\.val_list"
    ):
        load_catalog(config)
    config = dataclasses.replace(config, val_list=str(tmp_path / "val.csv"))
    assert len(load_catalog(config).val) == 1


def test_fingerprints_are_of_videos_and_classes_alone():
    here = [Sample("/a/x.mp4", (0,)), Sample("/a/y.mp4", (1,))]
    there = [Sample("/b/c/y.webm", (0,)), Sample("x.avi", (1,))]
    assert hash_videos(here, ("hop", "run")) == hash_videos(there, ("run", "hop"))
    assert hash_videos(here, ("hop", "run")) != hash_videos(there, ("hop", "run"))
    assert hash_videos(here, ("hop", "run")) != hash_videos(here[:1], ("hop", "run"))
    # Pinned: users compare accuracies of several releases by this hash.
    assert hash_videos(here, ("hop", "run")) == "32cb9ffef7efb5ff"


def test_long_lists_load_quickly(tmp_path, configured, write):
    # 1/20 of Kinetics-400; the whole list loads in 5 s and 180 MB.
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"{number:011d}" for number in range(12_000)]
    for name in names:
        os.close(os.open(folder / f"{name}_000000_000010.mp4", os.O_CREAT))
    write("train.csv", KINETICS + "".join(f"zumba,{name},0,10,train\n" for name in names[:11_000]))
    write("val.csv", KINETICS + "".join(f"zumba,{name},0,10,val\n" for name in names[11_000:]))
    config = configured("kinetics400", root=folder)
    tracemalloc.start()
    load_catalog(config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6 / 20
    started = time.process_time()
    catalog = load_catalog(config)
    # Half a second is three times what a slow computer should need.
    assert time.process_time() - started < 0.5
    assert (len(catalog.train), len(catalog.val)) == (11_000, 1_000)
    assert gc.isenabled()


def test_contradictions_are_refused(tmp_path, configured, make_files):
    make_files("v/hop/0.mp4", "v/run/1.mp4")
    config = configured("folder", root=tmp_path / "v")
    with pytest.raises(InputError, match="None of the 2 videos can be held out"):
        load_catalog(config)
    make_files("v/hop/2.mp4")
    with pytest.raises(InputError, match=r"num_classes=3, but the data has 2"):
        load_catalog(dataclasses.replace(config, num_classes=3))
    with pytest.raises(InputError, match=r"val_fraction=0\.0"):
        load_catalog(dataclasses.replace(config, val_fraction=0.0))
    with pytest.raises(InputError, match=r"dataset\.name='ucf10' is unknown; did you mean 'ucf101'"):
        load_catalog(dataclasses.replace(config, name="ucf10"))
