"""Tests of vswin.data.class_names: the bundled lists and counts, and spellings."""

import json

import pytest

from vswin.config.load import DATA_DIR
from vswin.data.class_names import ClassLookup, official_counts, read_class_names
from vswin.data.motion import MOTIONS, MotionPlan
from vswin.errors import InputError

DATASETS = {
    "ucf101": (101, "ApplyEyeMakeup", "YoYo"),
    "hmdb51": (51, "brush_hair", "wave"),
    "kinetics400": (400, "abseiling", "zumba"),
    "kinetics600": (600, "abseiling", "zumba"),
    "kinetics700": (700, "abseiling", "zumba"),
    "charades": (157, "Holding some clothes", "Someone is eating something"),
    "diving48": (48, "Back+15som+05Twis+FREE", "Reverse+Dive+NoTwis+TUCK"),
    "jester": (27, "Swiping Left", "Doing other things"),
    "sthv2": (174, "Approaching something with your camera", "Wiping something off of something"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_class_lists_are_whole_and_letters_alone_tell_classes_apart(name):
    class_names = read_class_names(name)
    assert (len(class_names), class_names[0], class_names[-1]) == DATASETS[name]
    if name not in ("jester", "charades"):  # have the order of their owners
        assert list(class_names) == sorted(class_names, key=str.lower if name == "ucf101" else None)
    lookup = ClassLookup(class_names)
    assert [lookup.find(class_name) for class_name in class_names] == list(range(len(class_names)))


@pytest.mark.parametrize(
    "spelling",
    [
        "massaging person's head",
        "Massaging Person\u2019s Head",
        '"massaging person\'s head" ',
    ],
)
def test_spellings_of_a_kinetics_class(spelling):
    assert ClassLookup(read_class_names("kinetics400")).find(spelling) == 196


def test_brackets_make_classes_when_words_in_them_do():
    lookup = ClassLookup(read_class_names("kinetics600"))
    assert lookup.find("passing_American_football_(in_game)") == 308
    assert lookup.find("passing American football (not in game)") == 309
    assert lookup.find("passing American football") == -1


def test_names_of_your_own_classes_are_exact():
    lookup = ClassLookup(["jump", "Jump", "ju_mp", "1"], is_exact=True)
    assert [lookup.find(name) for name in ("jump", "Jump", "ju_mp", "JUMP")] == [0, 1, 2, -1]


def test_folders_name_classes_but_numbers_do_not():
    lookup = ClassLookup(["air drumming", "3", "..."])
    assert lookup.find_folder("/data/train/air_drumming") == 0
    assert lookup.find_folder("3") == -1
    assert lookup.find_folder("") == -1


def test_an_unknown_class_is_answered_with_the_nearest():
    lookup = ClassLookup(read_class_names("kinetics400"))
    with pytest.raises(InputError, match=r"train\.csv:7: unknown class 'abseilling'; did you mean 'abseiling'"):
        lookup.expect("abseilling", "train.csv:7")
    assert lookup.explain("???") == "unknown class '???'"


def test_counts():
    for name, total in {"ucf101": 13_320, "hmdb51": 5_100}.items():
        assert [sum(official_counts(name, split).values()) for split in (1, 2, 3)] == [total] * 3
    assert official_counts("sthv2") == {"train": 168_913, "val": 24_777}
    assert official_counts("kinetics400") == {"train": 246_535, "val": 19_907}
    assert official_counts("kinetics600") == {"train": 392_622, "val": 30_001}
    assert official_counts("charades") == {"train": 7_985, "val": 1_863}
    assert official_counts("diving48") == {"train": 15_027, "val": 1_970}
    assert official_counts("jester") == {"train": 118_562, "val": 14_787}
    assert official_counts("kinetics400", 2) is official_counts("kinetics700") is official_counts("folder") is None
    plan = MotionPlan()
    made = {"train": plan.train_per_class * len(MOTIONS), "val": plan.val_per_class * len(MOTIONS)}
    assert official_counts("motion") == made
    for path in DATA_DIR.glob("*/counts.json"):
        for split, counts in json.loads(path.read_text()).items():
            assert split in "123"
            assert sorted(counts) == ["train", "val"]
