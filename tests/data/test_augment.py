import re
from collections import Counter

import numpy as np
import pytest

from vswin.data import augment
from vswin.data.augment import (
    RAND_AUGMENT,
    Operation,
    apply_operations,
    draw_color_jitter,
    draw_operation,
    draw_rand_augment,
    scale_brightness,
    scale_contrast,
    scale_saturation,
    shift_hue,
)

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)[..., None].repeat(3, axis=2)  # level = 32 y + x
NUM_DRAWS = 4000


def test_pointwise_operations_on_a_ramp():
    levels = np.arange(256)
    assert RAND_AUGMENT["invert"][1](RAMP)[..., 0].ravel().tolist() == (255 - levels).tolist()
    assert augment.solarize(RAMP, 197)[..., 1].ravel().tolist() == [*range(197), *range(58, -1, -1)]
    assert augment.solarize(RAMP, 256).tolist() == RAMP.tolist()
    assert RAND_AUGMENT["posterize"][1](RAMP, 2)[..., 2].ravel().tolist() == (levels // 64 * 64).tolist()
    assert RAND_AUGMENT["posterize"][1](RAMP, 8).tolist() == RAMP.tolist()
    assert augment.enhance_brightness(RAMP, 0.5)[..., 0].ravel().tolist() == (levels // 2).tolist()


def test_autocontrast_stretches_each_channel_by_itself():
    frame = np.stack([np.full((2, 4), 9), [[10, 20, 30, 40]] * 2, [[0, 0, 0, 255]] * 2], -1).astype(np.uint8)
    stretched = augment.autocontrast(frame)
    assert stretched[0].T.tolist() == [[9] * 4, [0, 85, 170, 255], [0, 0, 0, 255]]


def test_equalized_levels_are_about_equally_frequent():
    dark = (np.arange(128 * 128).reshape(128, 128) % 64).astype(np.uint8)[..., None].repeat(3, axis=2)
    levels, counts = np.unique(augment.equalize(dark), return_counts=True)
    assert len(levels) == 64
    assert levels[-1] > 240
    assert set(counts.tolist()) == {3 * 256}


def test_a_shift_uncovers_gray():
    moved = augment.translate(RAMP, 0.25, 0)
    assert moved[:, 8:].tolist() == RAMP[:, :-8].tolist()
    assert (moved[:, :8] == 128).all()
    moved = augment.translate(RAMP, -0.25, 1)
    assert moved[:-2].tolist() == RAMP[2:].tolist()
    assert (moved[-2:] == 128).all()


def test_a_quarter_turn_goes_clockwise():
    square = np.zeros((9, 9, 3), np.uint8)
    square[0, 4] = 255
    assert np.argwhere(augment.rotate(square, 90)[..., 0] == 255).tolist() == [[4, 8]]


def test_shear_moves_rows_by_their_height_and_columns_by_their_place():
    column, row = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    column[:, 20], row[20] = 255, 255
    expected = [20, 20 + round(39 * np.tanh(np.deg2rad(10)))]
    assert np.argmax(augment.shear(column, 10, 0)[..., 0] == 255, axis=1)[[0, 39]].tolist() == expected
    assert np.argmax(augment.shear(row, 10, 1)[..., 0] == 255, axis=0)[[0, 39]].tolist() == expected


@pytest.mark.parametrize(("x", "y", "rows", "columns"), [(0.5, 0.5, (3, 5), (15, 17)), (0.0, 1.0, (7, 8), (0, 1))])
def test_cutout_is_square_and_ends_at_the_edges(x, y, rows, columns):
    cut = augment.cutout(RAMP, x, y, 0.25)
    expected = RAMP.copy()
    expected[slice(*rows), slice(*columns)] = 128
    assert cut.tolist() == expected.tolist()
    assert cut is not RAMP


def test_the_sides_are_cut_in_proportion():
    frame = np.zeros((20, 40, 3), np.uint8)
    frame[2:-4, 4:-8] = 200
    assert (augment.crop_sides(frame, top=0.1, right=0.2, bottom=0.2, left=0.1) == 200).all()
    assert augment.crop_sides(frame, 0, 0, 0, 0).tolist() == frame.tolist()


def frame_of(*pixels: tuple[int, int, int]) -> np.ndarray:
    return np.array([pixels], np.uint8)


def test_brightness_scales_and_cuts_off():
    frame = frame_of((0, 10, 200), (255, 3, 128))
    assert scale_brightness(frame, 1.5).tolist() == [[[0, 15, 255], [255, 4, 192]]]
    assert scale_brightness(frame, 0).max() == 0


def test_contrast_scales_about_the_mean_gray():
    frame = frame_of((50, 50, 50), (151, 151, 151))
    # Gray levels are truncated to 49 and 150, as the weights add up to 0.9999; their mean is 99.5.
    assert scale_contrast(frame, 0.5)[0, :, 0].tolist() == [74, 125]
    assert scale_contrast(frame, 0).tolist() == [[[99] * 3] * 2]


def test_saturation_scales_about_the_gray_of_the_pixel():
    # 0.2989 * 200 + 0.587 * 100 = 118.48
    assert scale_saturation(frame_of((200, 100, 0)), 0).tolist() == [[[118] * 3]]
    assert scale_saturation(frame_of((200, 100, 0)), 0.5).tolist() == [[[159, 109, 59]]]


@pytest.mark.parametrize(
    ("shift", "expected"), [(1 / 3, (0, 200, 0)), (-1 / 3, (0, 0, 200)), (0.5, (0, 200, 200)), (0.0, (200, 0, 0))]
)
def test_hue_turns_red_round_the_circle(shift, expected):
    assert np.abs(shift_hue(frame_of((200, 0, 0)), shift).astype(int) - expected).max() <= 1
    assert shift_hue(frame_of((90, 90, 90)), shift).tolist() == [[[90, 90, 90]]]


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
    assert seen["shifted by in x: share"] == seen["shifted by in y: share"] == {-0.077, 0.077}
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


def test_all_frames_of_a_clip_meet_the_same_operations():
    frame = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for seed in range(20):
        drawn = draw_rand_augment("official", 4, 20, np.random.default_rng(seed))
        clip = apply_operations(np.stack([frame] * 3), drawn)
        assert (clip == clip[:1]).all()
        assert clip.shape == (3, 40, 56, 3)


def test_none_draws_nothing_and_leaves_the_frames_alone():
    rng = np.random.default_rng(3)
    assert draw_rand_augment("none", 4, 7, rng) == []
    assert rng.random() == np.random.default_rng(3).random()
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert apply_operations(frames, []) is frames
