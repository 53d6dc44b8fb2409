"""Tests of vswin.data.annotations.kinetics: CSV and JSON of the owners in all their variants, and folders."""

import json

import pytest

from vswin.data.annotations.class_names import ClassLookup, read_class_names
from vswin.data.annotations.entries import ListEntry, NotFoundError
from vswin.data.annotations.kinetics import find_lists, read_annotations
from vswin.errors import InputError

CLASSES = ClassLookup(read_class_names("kinetics400"))
HEADER = "label,youtube_id,time_start,time_end,split\n"


def read(path, subset="train"):
    return [(entry.path, entry.label) for entry in read_annotations(path, subset, CLASSES)]


def test_the_official_form(write):
    path = write("train.csv", HEADER + "abseiling,0347ZoDXyP0,95,105,train\nair drumming,-_1_abcdefg,0,10,train\n")
    assert read_annotations(path, "train", CLASSES) == [
        ListEntry(str(path), 2, "0347ZoDXyP0_000095_000105", "abseiling", "0347ZoDXyP0"),
        ListEntry(str(path), 3, "-_1_abcdefg_000000_000010", "air drumming", "-_1_abcdefg"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "label,youtube_id,time_start,time_end,split,is_cc\nabseiling,x,95,105,train,0\n",
        '"label","youtube_id","time_start","time_end","split"\n"abseiling","x","95","105","train"\n',
        "Label, YouTube_ID, Time_Start, Time_End, Split\r\nAbseiling , x , 95 , 105 , Train \r\n\r\n",
        "\n\n# label,youtube_id,time_start,time_end,split\n\nabseiling,x,95,105,train\n,,,,\n",
        "youtube_id,label,split,time_end,time_start\nx,abseiling,train,105.0,95.0\n",
        "label,youtube_id,time_start,time_end\nabseiling,x,95.4,105.4\n",
        "label,youtube_id,time_start\nabseiling,x,95\n",
        "abseiling,x,95,105,train\n",
        "abseiling,x,95,105,train,0\n",
        HEADER + "abseiling,x,95,105\n",
        HEADER + "abseiling,x,95,105,train\rabseiling,x,95,105,train\r",
    ],
)
def test_variants_of_the_csv(write, text):
    for encoding in ("utf-8", "utf-8-sig"):
        assert read(write("train.csv", text, encoding)) == [("x_000095_000105", "abseiling")]


def test_without_times_the_id_is_the_name(write):
    assert read(write("train.csv", "label,youtube_id\nzumba,x\n")) == [("x", "zumba")]
    assert read(write("train.csv", HEADER + "zumba,x,,,train\n")) == [("x", "zumba")]


def test_classes_in_quotes_and_brackets(write):
    text = HEADER + (
        '"massaging person\'s head",a,0,10,train\nmassaging_persons_head,b,0,10,train\n'
        '"petting animal (not cat)",c,0,10,train\npetting_animal_(not_cat),d,0,10,train\n'
    )
    labels = [label for _, label in read(write("train.csv", text))]
    assert labels == ["massaging person's head"] * 2 + ["petting animal (not cat)"] * 2


@pytest.mark.parametrize("word", ["val", "validate", "validation", "Validate"])
def test_a_list_of_all_videos_is_divided_by_its_column(write, word):
    path = write("all.csv", HEADER + f"zumba,a,0,10,train\nzumba,b,0,10,{word}\nzumba,c,0,10,test\n")
    assert read(path) == [("a_000000_000010", "zumba")]
    assert read(path, "val") == [("b_000000_000010", "zumba")]


def test_a_list_for_the_other_purpose_is_refused(write):
    path = write("train.csv", HEADER + "zumba,a,0,10,train\n")
    with pytest.raises(
        InputError, match=r"train\.csv is for training.*dataset\.val_list is for validation.*path,label"
    ):
        read(path, "val")
    path = write("val.csv", HEADER + "zumba,a,0,10,validate\n")
    with pytest.raises(InputError, match=r"val\.csv is for validation.*dataset\.train_list is for training"):
        read(path)


def test_labelled_test_videos_may_be_evaluated(write):
    assert read(write("test.csv", HEADER + "zumba,a,0,10,test\n"), "val") == [("a_000000_000010", "zumba")]


def test_the_test_list_without_labels_is_refused(write):
    path = write("test.csv", "youtube_id,time_start,time_end,split\na,0,10,test\n")
    with pytest.raises(
        InputError, match=r"test\.csv has no labels \(its columns are youtube_id, time_start, .*validation"
    ):
        read(path, "val")


def test_repeated_lines_count_once(write, messages):
    lines = "zumba,a,0,10,train\nzumba,b,0,10,train\nzumba,a,0.0,10.0,train\nzumba,a,20,30,train\n"
    path = write("train.csv", HEADER + lines)
    assert [path for path, _ in read(path)] == ["a_000000_000010", "b_000000_000010", "a_000020_000030"]
    assert "repeated lines: 1;" in messages.text


def test_a_clip_of_two_classes_stays_in_both(write):
    path = write("train.csv", HEADER + "zumba,a,0,10,train\nyoga,a,0,10,train\n")
    assert [label for _, label in read(path)] == ["zumba", "yoga"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("zumbaa,b,0,10,train", r"l\.csv:3: unknown class 'zumbaa'; did you mean 'zumba'"),
        ("zumba,,0,10,train", r"l\.csv:3: no id"),
        ("zumba,b,soon,10,train", r"l\.csv:3: times 'soon' to '10'; seconds"),
        ("zumba,b,0,inf,train", r"l\.csv:3: times '0' to 'inf'"),
        ("zumba", r"l\.csv:3: 5 columns are expected, found 'zumba'"),
        (f"zumba,{'b' * 140_000},0,10,train", r"l\.csv cannot be read: line 3: field larger"),
    ],
)
def test_wrong_lines(write, line, message):
    with pytest.raises(InputError, match=message):
        read(write("l.csv", HEADER + f"zumba,a,0,10,train\n{line}\n"))


def test_empty_lists(write):
    with pytest.raises(InputError, match=r"l\.csv names no videos"):
        read(write("l.csv", HEADER))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "abseiling/x_000095_000105.mp4 0\nzumba/y.mp4 399\n"),
        ("train.csv", "/data/k400/abseiling/x_000095_000105.mp4 0\n/data/zumba/y.mp4 399\n"),
        ("train.csv", "abseiling/x_000095_000105.mp4,0\nzumba/y.mp4,399\n"),
        ("train.csv", "path,label\nabseiling/x_000095_000105.mp4,0\nzumba/y.mp4,399\n"),
    ],
)
def test_lists_of_paths_are_left_to_the_reader_of_lists(write, name, text):
    assert read_annotations(write(name, text), "train", CLASSES) is None


def test_json(write):
    videos = {
        "a": {
            "annotations": {"label": "zumba", "segment": [1.0, 11.0]},
            "duration": 10.0,
            "subset": "train",
            "url": "",
        },
        "b": {"annotations": {"label": "yoga", "segment": [2, 12]}, "subset": "validate"},
    }
    path = write("all.json", json.dumps(videos))
    assert read(path) == [("a_000001_000011", "zumba")]
    assert read(path, "val") == [("b_000002_000012", "yoga")]
    with pytest.raises(InputError, match=r"test\.json, video a: no label"):
        read(write("test.json", json.dumps({"a": {"subset": "test"}})))
    with pytest.raises(InputError, match=r"cut\.json cannot be read: it is no whole JSON file"):
        read(write("cut.json", json.dumps(videos)[:-20]))
    with pytest.raises(InputError, match=r"list\.json is no annotation file of Kinetics"):
        read(write("list.json", json.dumps([videos])))


@pytest.mark.parametrize(
    ("folder", "train", "val"),
    [
        ("annotations", "train.csv", "val.csv"),
        ("kinetics400", "train.csv", "validate.csv"),
        (".", "kinetics_train.csv", "kinetics_val.csv"),
        ("k400", "kinetics_400_train.csv", "kinetics_400_validate.csv"),
        ("videos", "kinetics400_train_list_videos.txt", "kinetics400_val_list_videos.txt"),
        ("videos/annotations", "train.json", "validate.json"),
    ],
)
def test_lists_are_found(tmp_path, write, make_files, folder, train, val):
    make_files("videos/a.mp4")
    paths = [write(f"{folder}/{name}", HEADER) for name in (train, val)]
    found = find_lists("kinetics400", tmp_path / "videos", CLASSES)
    assert [path.resolve() for path in found] == paths
    paths[0].unlink()
    assert find_lists("kinetics400", tmp_path / "videos", CLASSES)[0] is None


def test_without_lists_class_folders_will_do(tmp_path, make_files):
    make_files("v/train/air_drumming/a.mp4", "v/train/zumba/b.avi", "v/train/zumba/b.txt", "v/validate/zumba/c.webm")
    train, val = find_lists("kinetics400", tmp_path / "v", CLASSES)
    assert (train, val) == (tmp_path / "v" / "train", tmp_path / "v" / "validate")
    folder = tmp_path / "v" / "train"
    assert read(train) == [(f"{folder}/air_drumming/a.mp4", "air drumming"), (f"{folder}/zumba/b.avi", "zumba")]
    assert [label for _, label in read(val, "val")] == ["zumba"]
    make_files("v/train/zumbaa/a.mp4")
    with pytest.raises(InputError, match=r"train: unknown class 'zumbaa'"):
        read(train)


def test_without_anything_the_way_is_shown(tmp_path, make_files):
    make_files("v/train/a.mp4")
    with pytest.raises(NotFoundError, match=r"Kinetics-400: the lists .*cvdfoundation/kinetics-dataset.*val_list"):
        find_lists("kinetics400", tmp_path / "v", CLASSES)
    with pytest.raises(NotFoundError, match=r"Kinetics-600: the folder .*nowhere"):
        find_lists("kinetics600", tmp_path / "nowhere", CLASSES)
