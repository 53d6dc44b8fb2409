"""Tests of `vswin.evaluation.published`: which measurement is comparable with which published row."""

import pytest

from tests.conftest import make_group
from vswin.evaluation.published import compare, verdict
from vswin.runs.figures import difference_points

TINY = "swin_tiny_patch244_window877_kinetics400_1k"
STHV2 = "swin_base_patch244_window1677_sthv2"


def make_clip(**changes):
    """Returns the official Kinetics test protocol with changes."""
    return make_group("clip", **{"resize": 224} | changes)


def test_official_protocol_finds_the_row():
    # views_per_step is no part of the protocol.
    for clip in (make_clip(), make_clip(views_per_step=1)):
        comparison = compare(TINY, "kinetics400", clip, "prob", 19_796)
        assert comparison.published.name == TINY
        assert (comparison.published.top1, comparison.published.top5) == (78.8, 93.6)
        assert (comparison.reason, comparison.note) == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        *({"num_frames": 16}, {"frame_stride": 4}, {"resize": 256}, {"crop": 192}, {"num_clips": 1}, {"num_crops": 1}),
        *({"sampling": "segments"}, {"spacing": "end_to_end"}),
    ],
)
def test_every_other_setting_has_no_published_number_and_says_which(change):
    comparison = compare(TINY, "kinetics400", make_clip(**change), "prob", 19_796)
    assert comparison.published is None
    (key,) = change
    assert comparison.reason == f"the published protocol has clip.{key}={getattr(make_clip(), key)}"


def test_something_something_is_tested_with_segments():
    segments = make_clip(sampling="segments", num_clips=1, frame_stride=1)
    assert compare(STHV2, "sthv2", segments, "prob", 24_777).published.top1 == 69.6
    reason = compare(STHV2, "sthv2", make_clip(), "prob", 24_777).reason
    assert reason == "the published protocol has clip.sampling=segments, clip.num_clips=1"


def test_other_data_set_file_and_selection_have_no_published_number():
    assert "tested on kinetics400, not on ucf101" in compare(TINY, "ucf101", make_clip(), "prob", 3_783).reason
    reason = compare("outputs/run/checkpoints/best.safetensors", "kinetics400", make_clip(), "prob", 19_796).reason
    assert reason == "outputs/run/checkpoints/best.safetensors is not the name of a published model"
    assert "17,900 videos of the 19,907" in compare(TINY, "kinetics400", make_clip(), "prob", 17_900).reason
    averaged = compare(TINY, "kinetics400", make_clip(), "score", 19_796)
    assert averaged.reason == "the published protocol has average=prob"


def test_where_the_hub_page_differs_the_official_value_is_used_and_the_page_shown():
    base = compare("swin_base_patch244_window877_kinetics400_1k", "kinetics400", make_clip(), "prob", 19_796)
    assert base.published.top5 == 94.6
    assert base.note.startswith("the TF-Hub page gives 96.6 % top-5 (official: 94.6 %): a slip of the page")
    # The name of the page is an alias.
    alias = compare("swin_base_patch244_window877_kinetics600_1k", "kinetics600", make_clip(), "prob", 29_000)
    assert alias.published.name == "swin_base_patch244_window877_kinetics600_22k"
    assert "kinetics600_1k" in alias.note


@pytest.mark.parametrize(
    ("measured", "interval", "words"),
    [
        (0.788, None, "within ±0.5 points"),
        (0.793, None, "within ±0.5 points"),
        (0.783, None, "within ±0.5 points"),
        (0.7931, None, "above"),
        (0.7829, None, "below"),
        (0.77, (0.75, 0.784), "below, but too few videos to tell"),
        (0.80, (0.792, 0.81), "above, but too few videos to tell"),
        (0.77, (0.75, 0.782), "below"),
        (0.80, (0.794, 0.81), "above"),
    ],
)
def test_verdict(measured, interval, words):
    assert verdict(measured, 0.788, interval or (measured, measured)) == words
    assert difference_points(0.7829, 0.788) == -0.51
