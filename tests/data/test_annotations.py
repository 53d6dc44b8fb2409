"""Tests of vswin.data.annotations: the owners' files of every data set, where they are, and what may be wrong."""

import json

import pytest

from tests.conftest import make_group
from vswin.config.load import CONFIG_DIR, DATA_DIR
from vswin.data.annotations import ANNOTATED, NotFoundError, find_annotations, read_annotations
from vswin.data.class_names import ClassLookup, read_class_names
from vswin.data.lists import ListEntry
from vswin.data.samples import Part, Segment
from vswin.errors import InputError

CLASSES = {name: ClassLookup(read_class_names(name)) for name in ANNOTATED}
ARCHERY, YOYO = "Archery/v_Archery_g08_c01.avi", "YoYo/v_YoYo_g25_c02.avi"
# As in the archive: each line ends with a space.
CLAP = (
    "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 \n"
    "Bob&Sue;(again)_clap_u_cm_np1_fr_bad_2.avi 2 \n"
    "AMADEUS_clap_u_nm_np1_fr_goo_8.avi 0 \n"
)
KINETICS = "label,youtube_id,time_start,time_end,split\n"
STH_NUMBERS = {name: str(number) for number, name in enumerate(CLASSES["sthv2"].class_names)}

CHARADES = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\r\n"


def read(name, path, subset="train", split=1, notes=None):
    config = make_group("dataset", name=name, root="", split=split)
    return read_annotations(config, path, subset, CLASSES[name], [] if notes is None else notes)


def pairs(*arguments, **options):
    return [(entry.path, entry.label) for entry in read(*arguments, **options)]


def find(name, root, split=1):
    return find_annotations(make_group("dataset", name=name, root=str(root), split=split), CLASSES[name])


def test_every_data_set_is_described():
    described = {path.parent.name for path in DATA_DIR.glob("*/classes.txt")} - {"motion"}
    assert described == set(ANNOTATED)
    for name in ANNOTATED:
        assert (CONFIG_DIR / "dataset" / f"{name}.yaml").is_file()
        assert (DATA_DIR / name / "README.md").is_file()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("ucf101", r"the lists \(trainlist01\.txt\).*UCF101\.rar.*splits.*dataset\.root.*train_list"),
        ("hmdb51", r"the lists \(\*_test_split1\.txt\).*hmdb51_org\.rar.*test_train_splits\.rar"),
        ("kinetics400", r"Kinetics-400: the lists .*cvdfoundation/kinetics-dataset.*val_list"),
        ("kinetics600", r"Kinetics-600: the lists .*cvdfoundation/kinetics-dataset"),
        ("kinetics700", r"Kinetics-700: the lists .*cvdfoundation/kinetics-dataset"),
        ("sthv2", r"Something-Something v2: the lists .*qualcomm\.com.*labels\.json.*train_list"),
        ("diving48", r"Diving48: the lists .*svcl\.ucsd\.edu.*Diving48_V2_train\.json.*train_list"),
        ("charades", r"Charades: the lists .*allenai\.org.*Charades_v1_test\.csv.*train_list"),
        ("jester", r"Jester: the lists .*qualcomm\.com.*jester-v1-validation\.csv.*train_list"),
    ],
)
def test_what_is_not_there_is_explained(name, how, tmp_path, make_files):
    with pytest.raises(NotFoundError, match=rf"the folder {tmp_path}/nowhere cannot be found\. From https?://"):
        find(name, tmp_path / "nowhere")
    make_files("videos/train/a.avi")
    with pytest.raises(NotFoundError, match=how):
        find(name, tmp_path / "videos")
    if name in ("ucf101", "hmdb51"):
        with pytest.raises(InputError, match=r"dataset\.split=4: (UCF101|HMDB51) has the splits 1, 2 and 3"):
            find(name, tmp_path / "videos", 4)


@pytest.mark.parametrize(
    ("name", "folder", "train", "val"),
    [
        ("ucf101", "splits", "trainlist02.txt", "testlist02.txt"),
        ("ucf101", "videos/ucfTrainTestlist", "trainlist02.txt", "testlist02.txt"),
        ("hmdb51", "testTrainMulti_7030_splits", "clap_test_split2.txt", "clap_test_split2.txt"),
        ("hmdb51", "videos", "clap_test_split2.txt", "clap_test_split2.txt"),
        ("kinetics400", "annotations", "train.csv", "val.csv"),
        ("kinetics400", "kinetics400", "train.csv", "validate.csv"),
        ("kinetics400", ".", "kinetics_train.csv", "kinetics_val.csv"),
        ("kinetics600", "videos/annotations", "train.json", "validate.json"),
        ("sthv2", "labels", "train.json", "validation.json"),
        ("sthv2", ".", "something-something-v2-train.json", "something-something-v2-validation.json"),
        ("sthv2", "videos", "sthv2_train_list_videos.txt", "sthv2_val_list_videos.txt"),
        ("kinetics700", "kinetics700_2020", "train.csv", "validate.csv"),
        ("diving48", "annotations", "Diving48_V2_train.json", "Diving48_V2_test.json"),
        ("charades", "annotations", "Charades_v1_train.csv", "Charades_v1_test.csv"),
        ("diving48", ".", "diving48_train_list_videos.txt", "diving48_val_list_videos.txt"),
        ("jester", "annotations", "jester-v1-train.csv", "jester-v1-validation.csv"),
    ],
)
def test_lists_are_found(tmp_path, write, make_files, name, folder, train, val):
    make_files("videos/a.mp4")
    paths = [write(f"{folder}/{file}", CLAP) for file in (train, val)]
    found = [path.resolve() for path in find(name, tmp_path / "videos", 2)]
    if name == "hmdb51":
        assert found == [(tmp_path / folder).resolve()] * 2
        return
    assert found == paths
    paths[0].unlink()
    assert find(name, tmp_path / "videos", 2)[0] is None


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("ucf101", "train.txt", "Archery/v_Archery_g08_c01.avi 2\nYoYo/v_YoYo_g08_c01 100\n"),
        ("ucf101", "train.txt", "path,label\nArchery/v_Archery_g08_c01.avi,2\n"),
        ("hmdb51", "hmdb51_train_split_1_videos.txt", "clap/#20_clap_0.avi 3\nwave/x.avi 50\n"),
        ("kinetics400", "train.txt", "abseiling/x_000095_000105.mp4 0\nzumba/y.mp4 399\n"),
        ("sthv2", "train.csv", "path,label\n78687.webm,36\n"),
        ("diving48", "train.txt", "_8Vy3dlHg2w_00000.mp4 37\n"),
        ("jester", "train.txt", "100023.webm 0\n"),
        ("charades", "train.csv", "path,labels\n46GP8.mp4,Closing a door;Opening a door\n"),
        ("jester", "train.txt", "100023 37 0\n"),
    ],
)
def test_other_lists_are_left_to_the_reader_of_lists(write, name, file, text):
    assert read(name, write(file, text)) is None


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("ucf101", "x.txt", f"{ARCHERY} 3\n{YOYO} 100\n", r"x\.txt:2: label 100 for 'YoYo', which is 101; .*from 1"),
        ("ucf101", "x.txt", f"{ARCHERY} 3\nYoYoo/v.avi 101\n", r"x\.txt:2: unknown class 'YoYoo'; did you .* 'YoYo'"),
        ("ucf101", "x.txt", f"{ARCHERY} 3\n{YOYO} 101 7\n", r"x\.txt:2: expected `Class/video\.avi`"),
        ("hmdb51", "clap_test_split1.txt", "a.avi 1\nb.avi 3\n", r":2: expected `video\.avi 1`.*found 'b\.avi 3'"),
        ("hmdb51", "clap_test_split1.txt", "a.avi 0 \n", r"names no training videos of split 1"),
        ("hmdb51", "clap_test_split2.txt", CLAP, r"split2\.txt is of split 2, but dataset\.split=1"),
        ("hmdb51", "clapp_test_split1.txt", "a.avi 1\n", r"unknown class 'clapp'; did you mean 'clap'"),
        ("kinetics400", "l.csv", KINETICS + "zumbaa,b,0,10,train", r"l\.csv:2: unknown class 'zumbaa'; .*'zumba'"),
        ("kinetics400", "l.csv", KINETICS + "zumba,,0,10,train", r"l\.csv:2: no id"),
        ("kinetics400", "l.csv", KINETICS + "zumba,b,soon,10,train", r"l\.csv:2: times 'soon' to '10'; seconds"),
        ("kinetics400", "l.csv", KINETICS + "zumba", r"l\.csv:2: expected label,youtube_id,.*, found 'zumba'"),
        ("kinetics400", "l.csv", KINETICS, r"l\.csv names no videos"),
        ("kinetics400", "l.csv", "youtube_id,split\na,test\n", r"l\.csv has no labels \(its columns are youtube_id"),
        ("kinetics400", "l.csv", KINETICS + "zumba,a,0,10,val\n", r"is for validation.*dataset\.train_list is for tr"),
        ("kinetics400", "l.json", '{"a": {"subset": "test"}}', r"l\.json, video a: no label"),
        ("kinetics400", "l.json", '{"a": {"subset"', r"l\.json cannot be read: it is no whole JSON file"),
        ("kinetics400", "l.json", "[{}]", r"l\.json is no annotation file of Kinetics"),
        ("sthv2", "x.json", '[{"id": "8", "template": "Flying [something]"}]', r"x\.json, video 8: unknown class 'Fly"),
        ("sthv2", "x.json", '[{"id": "8"}]', r"x\.json, video 8: no `template`, as in the list of the test videos"),
        ("sthv2", "x.json", '[{"template": "Closing [something]"}]', r"expected objects with `id` and `template`"),
        ("sthv2", "x.json", "[]", "names no videos"),
        ("sthv2", "x.json", json.dumps(STH_NUMBERS), "is an object, as labels.json is.*name train.json"),
        ("diving48", "x.json", '[{"vid_name": "a_1", "label": 48}]', r"a_1: the label is '48'; the 48 classes"),
        ("diving48", "x.json", '[{"vid_name": "a_1"}]', r"x\.json, video a_1: the label is 'None'"),
        ("diving48", "x.json", '[{"id": 1, "label": 4}]', r"expected objects with `vid_name`.*Diving48_V2_train\.json"),
        ("diving48", "x.json", '{"0": ["Back"]}', r"expected objects with `vid_name` and `label`, found '0'"),
        ("diving48", "x.json", "[]", "names no videos"),
        (
            *("diving48", "x.json", '[{"vid_name": "a_1", "label": 4, "start_frame": 9, "end_frame": 9}]'),
            r"x\.json, video a_1: the frames '9' to '9' are no segment",
        ),
        (
            "charades",
            "x.csv",
            CHARADES + "A,,,,,,,,,c157 0.0 1.0,2\n",
            r"x\.csv:2, video A: the action 'c157 0.0 1.0'; ex",
        ),
        (
            "charades",
            "x.csv",
            CHARADES + "A,,,,,,,,,walks,2\n",
            r"x\.csv:2, video A: the action 'walks'; expected `c000",
        ),
        ("charades", "x.csv", CHARADES + "A,c001 0.0 1.0\n", r"x\.csv:2: 2 columns, 11 in the header"),
        ("charades", "x.csv", "id,script\nA,He walks.\n", r"x\.csv has no column `actions`; name Charades_v1_train"),
        ("jester", "x.csv", "1;Swiping Left\n2;Swipe Up\n", r"x\.csv:2: unknown class 'Swipe Up'; .*'Swiping Up'"),
        ("jester", "x.csv", "1\n2\n", r"x\.csv:1: expected `id;class`, found '1;'; the list of the test videos has no"),
        ("jester", "x.csv", "1;Thumb Up\na;Thumb Up\n", r"x\.csv:2: expected `id;class`, found 'a;Thumb Up'"),
    ],
)
def test_wrong_lists(write, name, file, text, message):
    with pytest.raises(InputError, match=message):
        read(name, write(file, text))


def test_ucf101(write):
    path = write("trainlist01.txt", f"{ARCHERY} 3\r\n{YOYO} 101 \r\n\r\n", "utf-8-sig")
    assert read("ucf101", path) == [
        ListEntry(str(path), 1, ARCHERY, "Archery"),
        ListEntry(str(path), 2, YOYO, "YoYo"),
    ]
    path = write("testlist01.txt", "\r\nArchery/v_Archery_g01_c01.avi\r\nYoYo\\v_YoYo_g01_c01.AVI\r\n")
    assert pairs("ucf101", path) == [
        ("Archery/v_Archery_g01_c01.avi", "Archery"),
        ("YoYo/v_YoYo_g01_c01.AVI", "YoYo"),
    ]
    # Without folders the file name decides. The folder and the class have a lower-case s, the files an upper-case S.
    path = write("testlist01.txt", "v_HandStandPushups_g01_c01.avi\nHandStandPushups/v_HandStandPushups_g08_c02.avi\n")
    assert [label for _, label in pairs("ucf101", path)] == ["HandstandPushups"] * 2


def test_hmdb51(tmp_path, write):
    write("s/clap_test_split1.txt", CLAP)
    path = write("s/brush_hair_test_split1.txt", "a b_brush_hair_u.AVI\t2\r\n\r\n", "utf-8-sig")
    write("s/clap_test_split2.txt", "AMADEUS_clap_u_nm_np1_fr_goo_8.avi 1 \n")
    write("s/readme.txt", "Not a list")
    folder = tmp_path / "s"
    assert pairs("hmdb51", folder) == [("clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "clap")]
    assert pairs("hmdb51", folder / "clap_test_split1.txt") == pairs("hmdb51", folder)
    assert read("hmdb51", folder, "val") == [
        ListEntry(str(path), 1, "brush_hair/a b_brush_hair_u.AVI", "brush_hair"),
        ListEntry(str(folder / "clap_test_split1.txt"), 2, "clap/Bob&Sue;(again)_clap_u_cm_np1_fr_bad_2.avi", "clap"),
    ]
    assert pairs("hmdb51", folder, split=2) == [("clap/AMADEUS_clap_u_nm_np1_fr_goo_8.avi", "clap")]
    with pytest.raises(InputError, match=r"names no training videos of split 3"):
        read("hmdb51", folder, split=3)


def test_kinetics(write):
    path = write("train.csv", KINETICS + "abseiling,0347ZoDXyP0,95,105,train\nair drumming,-_1_abcdefg,0,10,train\n")
    assert read("kinetics400", path) == [
        ListEntry(str(path), 2, "0347ZoDXyP0_000095_000105", "abseiling", "0347ZoDXyP0"),
        ListEntry(str(path), 3, "-_1_abcdefg_000000_000010", "air drumming", "-_1_abcdefg"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "label,youtube_id,time_start,time_end,split,is_cc\nabseiling,x,95,105,train,0\n",
        '"label","youtube_id","time_start","time_end","split"\n"abseiling","x","95","105","train"\n',
        "Label, YouTube_ID, Time_Start, Time_End, Split\r\nAbseiling , x , 95 , 105 , Train \r\n\r\n",
        "\n\n# label,youtube_id,time_start,time_end,split\n  \nabseiling,x,95,105,train\n,,,,\n",
        "youtube_id,label,split,time_end,time_start\nx,abseiling,train,105.0,95.0\n",
        "label,youtube_id,time_start,time_end\nabseiling,x,95.4,105.4\n",
        KINETICS + "abseiling,x,95,105\n",
        KINETICS + "abseiling,x,95,105,train\r",
        "\ufeff" + KINETICS + "abseiling,x,95,105,train\n",
    ],
)
def test_variants_of_the_csv_of_kinetics(write, text):
    assert pairs("kinetics400", write("train.csv", text)) == [("x_000095_000105", "abseiling")]


def test_without_times_the_id_is_the_name(write):
    assert pairs("kinetics400", write("train.csv", KINETICS + "zumba,x,,,train\nzumba,y,5,,train\n")) == [
        *[("x", "zumba"), ("y", "zumba")]
    ]


@pytest.mark.parametrize("word", ["val", "Validate"])
def test_a_list_of_all_videos_is_divided_by_its_column(write, word):
    rows = {"a": "train", "b": word, "c": "test"}
    path = write("all.csv", KINETICS + "".join(f"zumba,{name},0,10,{part}\n" for name, part in rows.items()))
    assert pairs("kinetics400", path) == [("a_000000_000010", "zumba")]
    assert pairs("kinetics400", path, "val") == [("b_000000_000010", "zumba")]
    videos = {
        name: {"annotations": {"label": "zumba", "segment": [0.0, 10]}, "subset": part} for name, part in rows.items()
    }
    path = write("all.json", json.dumps(videos))
    assert pairs("kinetics400", path) == [("a_000000_000010", "zumba")]
    assert pairs("kinetics400", path, "val") == [("b_000000_000010", "zumba")]


def test_labelled_test_videos_may_be_evaluated_but_training_videos_not(write):
    path = write("test.csv", KINETICS + "zumba,a,0,10,test\n")
    assert pairs("kinetics400", path, "val") == [("a_000000_000010", "zumba")]
    path = write("train.csv", KINETICS + "zumba,a,0,10,train\n")
    with pytest.raises(InputError, match=r"train\.csv is for training.*dataset\.val_list is for valid.*path,label"):
        read("kinetics400", path, "val")


def test_without_lists_class_folders_will_do(tmp_path, make_files):
    make_files("v/train/air_drumming/a.mp4", "v/train/zumba/b.avi", "v/train/zumba/b.txt", "v/validate/zumba/c.webm")
    folder, notes = tmp_path / "v/train", []
    assert find("kinetics400", tmp_path / "v") == [folder, tmp_path / "v/validate"]
    assert pairs("kinetics400", folder, notes=notes) == [
        *[(f"{folder}/air_drumming/a.mp4", "air drumming"), (f"{folder}/zumba/b.avi", "zumba")]
    ]
    assert notes == [f"left out of the class folders of {folder}: 1 other file (1 .txt)"]
    make_files("v/train/zumbaa/a.mp4")
    with pytest.raises(InputError, match=r"train: unknown class 'zumbaa'"):
        read("kinetics400", folder)


def test_templates_of_sthv2(write):
    video = {"id": 7, "template": "putting [number of] [something] onto [something] "}
    path = write("train.json", json.dumps([video], indent=1), "utf-8-sig")
    assert read("sthv2", path) == [ListEntry(str(path), 0, "7", "Putting number of something onto something", "7")]


def test_every_class_of_sthv2_is_a_template(write):
    videos = [
        {"id": number, "template": name.replace("something", "[something]")} for name, number in STH_NUMBERS.items()
    ]
    assert [label for _, label in pairs("sthv2", write("x.json", json.dumps(videos)))] == list(STH_NUMBERS)


def test_diving48(write):
    videos = [
        {"vid_name": "-mmq0PT-u8k_00155", "label": 0, "start_frame": 0, "end_frame": 48},
        {"vid_name": "_8Vy3dlHg2w_00001", "label": 47, "start_frame": 20, "end_frame": 60},
    ]
    path = write("Diving48_V2_train.json", json.dumps(videos))
    assert read("diving48", path) == [
        ListEntry(str(path), 0, "-mmq0PT-u8k_00155", "Back+15som+05Twis+FREE", "-mmq0PT-u8k_00155"),
        ListEntry(
            *(str(path), 0, "_8Vy3dlHg2w_00001", "Reverse+Dive+NoTwis+TUCK", "_8Vy3dlHg2w_00001"),
            part=Part(Segment(20, 60, in_frames=True)),
        ),
    ]


def test_charades(write):
    rows = '46GP8,HR43,Kitchen,6,7,Yes,"A ""cook"", alone",stove,Cooks.,c092 11.90 21.20;c147 0.00 12.60,24.83\r\n'
    rows += "N11GT,0KZ7,Stairs,6,7,Yes,Runs.,,He runs.,c150 0.00 9.70;c150 11.00 14.00,16.00\r\n"
    path = write("Charades_v1_train.csv", CHARADES + rows + "2B9AZ,A1,Hall,6,7,Yes,Nothing.,,None.,,9.00\r\n")
    cooks = "Watching/Looking outside of a window;Someone is cooking something"
    labels = {"46GP8": cooks, "N11GT": "Someone is running somewhere", "2B9AZ": ""}
    assert read("charades", path) == [
        ListEntry(str(path), line, name, label, name) for line, (name, label) in enumerate(labels.items(), start=2)
    ]


def test_jester(write):
    path = write("jester-v1-train.csv", "34870;Drumming Fingers\r\n56557;Sliding Two Fingers Right\r\n", "utf-8-sig")
    assert read("jester", path) == [
        ListEntry(str(path), 1, "34870", "Drumming Fingers", "34870"),
        ListEntry(str(path), 2, "56557", "Sliding Two Fingers Right", "56557"),
    ]
