"""Frames before normalisation, byte for byte against the official val and test pipelines."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.data.frames import FrameLoader
from vswin.data.sampling import segments, uniform_clips
from vswin.data.views import load_protocol_views, load_views

HERE = Path(__file__).parent
CLIPS = HERE.parent / "clips"
OFFICIAL = json.loads((HERE / "pipelines_uint8.json").read_text())
SAMPLED = json.loads((HERE / "sample_frames_test.json").read_text())

PIPELINES = {
    "kinetics/val": {"num_clips": 1, "num_crops": 1, "resize": 256, "sampling": "dense"},
    "kinetics/test": {"num_clips": 4, "num_crops": 3, "resize": 224, "sampling": "dense"},
    "sthv2/val": {"num_clips": 1, "num_crops": 1, "resize": 256, "sampling": "segments"},
    "sthv2/test": {"num_clips": 1, "num_crops": 3, "resize": 224, "sampling": "segments"},
}


def checksums(views: np.ndarray) -> list[int]:
    return [zlib.crc32(frame.tobytes()) for frame in views.reshape(-1, *views.shape[2:])]


@pytest.mark.parametrize("case", OFFICIAL)
def test_views_equal_official_bytes(case: str) -> None:
    pipeline, name = case.rsplit("/", 1)
    options = PIPELINES[pipeline]
    views = load_views(CLIPS / name, **options)
    assert views.shape == (options["num_clips"] * options["num_crops"], 32, 224, 224, 3)
    assert checksums(views) == OFFICIAL[case]["crc32"]


@pytest.mark.parametrize(
    ("pipeline", "overrides"),
    [
        *{
            "kinetics/test": (),
            "kinetics/val": ("clip.num_clips=1", "clip.num_crops=1", "clip.resize=256"),
            "sthv2/test": ("clip=segments32",),
        }.items()
    ],
)
def test_the_protocol_of_evaluate_py_is_the_official_one(pipeline, overrides, compose_evaluate) -> None:
    clip = compose_evaluate("dataset=kinetics400", *overrides).clip
    views = load_protocol_views(CLIPS / "test.avi", clip, FrameLoader())
    assert checksums(views) == OFFICIAL[f"{pipeline}/test.avi"]["crc32"]


@pytest.mark.parametrize("case", OFFICIAL)
def test_frame_numbers_equal_official(case: str) -> None:
    pipeline, name = case.rsplit("/", 1)
    with VideoReader(CLIPS / name) as reader:
        num_video_frames = reader.num_video_frames
    if PIPELINES[pipeline]["sampling"] == "segments":
        numbers = segments(num_video_frames, 32)
    else:
        numbers = uniform_clips(num_video_frames, 32, 2, PIPELINES[pipeline]["num_clips"])
    assert numbers.ravel().tolist() == OFFICIAL[case]["frame_inds"]


def test_every_sampled_frame_number_equals_official() -> None:
    assert len(SAMPLED) == 114
    for case in SAMPLED:
        if case["uniform"]:
            numbers = segments(case["num_frames"], case["clip_len"])
        else:
            numbers = uniform_clips(case["num_frames"], case["clip_len"], case["frame_interval"], case["num_clips"])
        assert numbers.dtype == np.int64
        assert numbers.ravel().tolist() == case["inds"], case
