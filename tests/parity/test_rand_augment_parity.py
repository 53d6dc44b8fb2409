"""Pixels and magnitudes of RandAugment against those of imgaug 0.4.0, which the official recipe uses."""

import json
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from vswin.data import augment
from vswin.data.augment import RAND_AUGMENT, draw_operation, draw_rand_augment
from vswin.data.decode import VideoReader

GOLDEN = json.loads(Path(__file__).with_name("rand_augment.json").read_text())
DEMO = Path(__file__).parents[1] / "clips" / "demo.mp4"


def ramp(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [(3 * x + y) % 256, 20 + (x * y) % 190, x * 199 // (width - 1) + y * 50 // (height - 1)]
    return np.stack(channels, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def frames() -> dict[str, np.ndarray]:
    with VideoReader(str(DEMO)) as reader:
        demo = reader.read(np.array([30]), partial(cv2.resize, dsize=(224, 224), interpolation=cv2.INTER_LINEAR))
    flat = np.full((64, 64, 3), (7, 128, 255), np.uint8)
    return {"ramp_80x112": ramp(80, 112), "ramp_48x40": ramp(48, 40), "flat_64x64": flat, "demo_30_224": demo[0]}


def crc(frame: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(frame).tobytes())


def test_the_frames_are_those_that_imgaug_was_given(frames):
    assert {name: crc(frame) for name, frame in frames.items()} == GOLDEN["frames"]


def test_there_are_imgaugs_eighteen_operations():
    names = list(GOLDEN["ops"])
    assert list(RAND_AUGMENT) == [*names[:15], "cutout", *names[15:]]


@pytest.mark.parametrize("name", GOLDEN["ops"])
def test_an_operation_of_a_magnitude_gives_the_pixels_of_imgaug_in_both_signs(name, frames):
    for magnitude, expected in GOLDEN["ops"][name].items():
        drawn = [draw_operation(name, int(magnitude), np.random.default_rng(seed)) for seed in range(6)]
        for frame_name, crcs in expected.items():
            seen = {crc(operation.change(frames[frame_name])) for operation in drawn}
            assert sorted(seen) == crcs, (magnitude, frame_name)


def test_cutout_fills_the_square_of_imgaug(frames):
    for _, name, x, y, size, expected in GOLDEN["cutout"]:
        assert crc(augment.cutout(frames[name], x, y, size)) == expected


def test_cutout_of_a_magnitude_has_the_size_of_imgaug():
    for magnitude, _, _, _, size, _ in GOLDEN["cutout"]:
        drawn = draw_operation("cutout", magnitude, np.random.default_rng(0))
        assert drawn.change.keywords["size"] == pytest.approx(size)


def test_the_sides_are_cut_as_by_imgaug(frames):
    for name, top, right, bottom, left, expected in GOLDEN["crop"]:
        assert crc(augment.crop_sides(frames[name], top, right, bottom, left)) == expected


def test_the_mirror_image_is_that_of_imgaug(frames):
    drawn = [draw_rand_augment("official", 0, 0, np.random.default_rng(seed))[0] for seed in range(20)]
    mirror = next(operation for operation in drawn if operation.text == "mirrored by RandAugment")
    for name, expected in GOLDEN["flip"].items():
        assert crc(mirror.change(frames[name])) == expected
