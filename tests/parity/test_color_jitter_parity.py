"""Colour jitter against torchvision."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from vswin.data.augment import scale_brightness, scale_contrast, scale_saturation, shift_hue

GOLDEN = json.loads(Path(__file__).with_name("color_jitter.json").read_text())


@pytest.fixture
def ramp() -> np.ndarray:
    y, x = np.mgrid[:80, :112]
    frame = np.stack([(3 * x + y) % 256, 20 + (x * y) % 190, x * 199 // 111 + y * 50 // 79], -1).astype(np.uint8)
    assert zlib.crc32(frame.tobytes()) == GOLDEN["frame"]
    return frame


def test_brightness_contrast_and_saturation_give_the_bytes_of_torchvision(ramp):
    changes = {"brightness": scale_brightness, "contrast": scale_contrast, "saturation": scale_saturation}
    for name, change in changes.items():
        for factor, crc in GOLDEN[name]:
            assert zlib.crc32(change(ramp, factor).tobytes()) == crc, (name, factor)


def test_hue_gives_the_pixels_of_torchvision_but_for_rounding(ramp):
    small = np.ascontiguousarray(ramp[::20, ::16])
    for shift, pixels in GOLDEN["hue"]:
        difference = np.abs(shift_hue(small, shift).astype(int) - pixels)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02
