import numpy as np
import pytest

from vswin.data.augment import (
    apply_operations,
    draw_color_jitter,
    scale_brightness,
    scale_contrast,
    scale_saturation,
    shift_hue,
)


def frame_of(*pixels: tuple[int, int, int]) -> np.ndarray:
    return np.array([pixels], np.uint8)


def test_brightness_scales_and_cuts_off():
    frame = frame_of((0, 10, 200), (255, 3, 128))
    assert scale_brightness(frame, 1.5).tolist() == [[[0, 15, 255], [255, 4, 192]]]
    assert scale_brightness(frame, 0).max() == 0


def test_contrast_scales_about_the_mean_gray():
    frame = frame_of((50, 50, 50), (151, 151, 151))
    # Gray levels are cut to whole numbers, 49 and 150 as the weights add up to 0.9999; their mean is 99.5.
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
