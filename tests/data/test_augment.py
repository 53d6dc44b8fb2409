"""How changes of colour and shape are drawn; tests/parity compares their pixels with imgaug and torchvision."""

import re
from collections import Counter

import numpy as np
import pytest

from vswin.data.augment import (
    RAND_AUGMENT,
    Operation,
    apply_operations,
    draw_color_jitter,
    draw_operation,
    draw_rand_augment,
)

NUM_DRAWS = 4000


def test_factors_are_uniform_in_their_ranges_and_the_order_is_random():
    orders, factors = set(), {"brightness": [], "contrast": [], "saturation": [], "hue": []}
    for seed in range(500):
        drawn = draw_color_jitter([0.4, 0.3, 1.5, 0.1], np.random.default_rng(seed))
        names = [operation.change.func.__name__.split("_")[1] for operation in drawn]
        orders.add(tuple(names))
        for name, operation in zip(names, drawn, strict=True):
            factors[name].append(next(iter(operation.change.keywords.values())))
    assert len(orders) == 24
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.7, 1.3), "saturation": (0, 2.5), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        values, margin = np.array(factors[name]), 0.02 * (high - low)
        assert low <= values.min() < low + margin
        assert high - margin < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 4 * margin


def test_what_has_no_strength_is_left_out_and_frames_share_the_draw():
    assert draw_color_jitter([0, 0, 0, 0], np.random.default_rng(0)) == []
    (only,) = draw_color_jitter([0, 0, 0, 0.2], np.random.default_rng(0))
    assert only.text.startswith("hue jittered by")
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    clip = apply_operations(np.stack([frame, frame]), draw_color_jitter([0.4] * 4, np.random.default_rng(1)))
    assert (clip[0] == clip[1]).all()
    assert (clip[0] != frame).any()


@pytest.fixture(scope="module")
def official() -> list[list[Operation]]:
    return [draw_rand_augment("official", 4, 7, np.random.default_rng(seed)) for seed in range(NUM_DRAWS)]


def name(operation: Operation) -> str:
    """Returns the words of an operation, e.g. "rotated by deg"."""
    return " ".join(re.sub(r"[-+.,%\d]", "", operation.text).split())


def test_four_different_operations_follow_the_crop_in_any_order(official):
    followers = [[name(operation) for operation in drawn][-4:] for drawn in official]
    assert all(len(set(names)) == 4 for names in followers)
    counts = Counter(each for names in followers for each in names)
    assert len(counts) == 18
    # For 4,000 draws with p = 4 / 18, five standard deviations are 131.
    assert all(abs(count - NUM_DRAWS * 4 / 18) < 131 for count in counts.values())
    first = Counter(names[0] for names in followers)
    assert all(abs(count - NUM_DRAWS / 18) < 73 for count in first.values())
    assert all(name(drawn[-5]) == "sides cut by" for drawn in official)


def test_official_mirrors_every_second_clip_and_no_flip_none(official):
    num_mirrored = sum(name(drawn[0]) == "mirrored by RandAugment" for drawn in official)
    assert abs(num_mirrored - NUM_DRAWS / 2) < 158
    assert {len(drawn) for drawn in official} == {5, 6}
    others = [draw_rand_augment("no_flip", 4, 7, np.random.default_rng(seed)) for seed in range(200)]
    assert {len(drawn) for drawn in others} == {5}
    assert not any(name(operation) == "mirrored by RandAugment" for drawn in others for operation in drawn)


def test_magnitude_7_has_the_values_of_imgaug_and_both_signs(official):
    seen: dict[str, set[float]] = {}
    for drawn in official:
        for operation in drawn:
            for key, value in getattr(operation.change, "keywords", {}).items():
                if isinstance(value, int | float):
                    seen.setdefault(f"{name(operation)}: {key}", set()).add(round(value, 4))
    factors = [f"{what} x: factor" for what in ("colour", "contrast", "brightness", "sharpness")]
    assert all(seen[factor] == {0.79, 1.21} for factor in factors)
    assert seen["rotated by deg: degrees"] == {-7, 7}
    assert seen["rows sheared by deg: degrees"] == seen["columns sheared by deg: degrees"] == {-4.0107, 4.0107}
    assert seen["shifted by in x: fraction"] == seen["shifted by in y: fraction"] == {-0.077, 0.077}
    assert seen["posterized to bits: bits"] == {7}
    assert seen["solarized from: threshold"] == {197}
    assert seen["cutout of: size"] == {0.1458}
    for side in ("top", "right", "bottom", "left"):
        assert min(seen[f"sides cut by: {side}"]) < 0.0003
        assert 0.031 < max(seen[f"sides cut by: {side}"]) <= 7 / 224


def test_magnitude_0_changes_next_to_nothing_and_30_stays_in_range():
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for each in RAND_AUGMENT:
        changed = draw_operation(each, 30, np.random.default_rng(1)).change(frame)
        assert (changed.shape, changed.dtype) == (frame.shape, np.uint8)
    weakest = [draw_operation(each, 0, np.random.default_rng(1)) for each in RAND_AUGMENT]
    idle = {name(operation) for operation in weakest if (operation.change(frame) == frame).all()}
    by_themselves = {"autocontrast", "equalized", "inverted", "blurred", "smoothed"}
    assert {name(operation) for operation in weakest} - idle <= by_themselves
