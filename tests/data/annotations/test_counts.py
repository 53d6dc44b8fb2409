"""Tests of vswin.data.annotations.counts: figures of the owners, and of the data set we make."""

import json

import pytest

from vswin.config import DATA_DIR
from vswin.data.annotations.counts import official_counts
from vswin.data.motion import MOTIONS, MotionPlan

TOTALS = {"ucf101": 13_320, "hmdb51": 5_100}


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_splits_divide_the_whole(split):
    for name, total in TOTALS.items():
        counts = official_counts(name, split)
        assert counts is not None
        assert sum(counts.values()) == total


def test_counts_of_data_sets_without_splits():
    assert official_counts("sthv2") == {"train": 168_913, "val": 24_777}
    assert official_counts("kinetics400") == {"train": 246_535, "val": 19_907}
    assert official_counts("kinetics600") == {"train": 392_622, "val": 30_001}
    assert official_counts("kinetics400", 2) is None
    assert official_counts("folder") is None


def test_the_counts_of_motion_are_those_that_are_made():
    plan = MotionPlan()
    assert official_counts("motion") == {
        "train": plan.train_per_class * len(MOTIONS),
        "val": plan.val_per_class * len(MOTIONS),
    }


@pytest.mark.parametrize("path", sorted(DATA_DIR.glob("*/counts.json")), ids=lambda path: path.parent.name)
def test_every_file_of_counts_is_complete(path):
    for split, counts in json.loads(path.read_text()).items():
        assert split in "123"
        assert sorted(counts) == ["train", "val"]
