"""Tests of `vswin.evaluation.published`: which measurement may stand beside which published row."""

import pytest

from vswin.config import ClipConfig
from vswin.evaluation.published import compare, difference_points, verdict

TINY = "swin_tiny_patch244_window877_kinetics400_1k"
STHV2 = "swin_base_patch244_window1677_sthv2"


def make_clip(**changes):
    """Gives the official Kinetics test protocol with changes."""
    settings = {"num_frames": 32, "frame_stride": 2, "resize": 224, "crop": 224, "num_clips": 4}
    settings |= {"num_crops": 3, "sampling": "dense", "views_per_step": 5}
    return ClipConfig(**settings | changes)


def test_official_protocol_finds_the_row():
    comparison = compare(TINY, "kinetics400", make_clip(), 19_796)
    assert comparison.published.name == TINY
    assert (comparison.published.top1, comparison.published.top5) == (78.8, 93.6)
    assert (comparison.reason, comparison.note) == ("", "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_frames", 16),
        ("frame_stride", 4),
        ("resize", 256),
        ("crop", 192),
        ("num_clips", 1),
        ("num_crops", 1),
        ("sampling", "segments"),
    ],
)
def test_every_other_setting_has_no_published_number_and_says_which(key, value):
    comparison = compare(TINY, "kinetics400", make_clip(**{key: value}), 19_796)
    assert comparison.published is None
    official = getattr(make_clip(), key)
    assert comparison.reason == f"the published protocol has clip.{key}={official}"


def test_views_per_step_is_no_part_of_the_protocol():
    assert compare(TINY, "kinetics400", make_clip(views_per_step=1), 19_796).published is not None


def test_something_something_is_tested_with_segments():
    segments = make_clip(sampling="segments", num_clips=1, frame_stride=1)
    assert compare(STHV2, "sthv2", segments, 24_777).published.top1 == 69.6
    reason = compare(STHV2, "sthv2", make_clip(), 24_777).reason
    assert reason == "the published protocol has clip.sampling=segments, clip.num_clips=1"


def test_other_data_set_file_and_selection_have_no_published_number():
    assert "tested on kinetics400, not on ucf101" in compare(TINY, "ucf101", make_clip(), 3_783).reason
    reason = compare("outputs/run/checkpoints/best.h5", "kinetics400", make_clip(), 19_796).reason
    assert reason == "outputs/run/checkpoints/best.h5 is not the name of a published model"
    assert "17999 videos of about 20000" in compare(TINY, "kinetics400", make_clip(), 17_999).reason


def test_where_the_hub_page_differs_the_official_value_is_used_and_the_page_shown():
    base = compare("swin_base_patch244_window877_kinetics400_1k", "kinetics400", make_clip(), 19_796)
    assert base.published.top5 == 94.6
    assert base.note == "the TF-Hub page gives 96.6 % top-5 (official: 94.6 %)"


def test_hub_name_is_an_alias():
    comparison = compare("swin_base_patch244_window877_kinetics600_1k", "kinetics600", make_clip(), 29_000)
    assert comparison.published.name == "swin_base_patch244_window877_kinetics600_22k"
    assert "kinetics600_1k" in comparison.note


@pytest.mark.parametrize(
    ("measured", "points", "words"),
    [
        (0.788, 0.0, "within ±0.5 points"),
        (0.793, 0.5, "within ±0.5 points"),
        (0.783, -0.5, "within ±0.5 points"),
        (0.7931, 0.51, "above"),
        (0.7829, -0.51, "below"),
    ],
)
def test_verdict(measured, points, words):
    assert difference_points(measured, 78.8) == points
    assert verdict(measured, 78.8) == words
