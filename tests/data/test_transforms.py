import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswin.data.transforms import (
    Box,
    BoxCutter,
    center_crop,
    crop,
    flip,
    random_resized_crop_box,
    resize_frame,
    resize_short_side,
    three_crops,
)


def coordinate_frames(height: int, width: int, num_frames: int = 2) -> np.ndarray:
    """Pixel (t, y, x) is (y, x, t)."""
    t, y, x = np.mgrid[:num_frames, :height, :width]
    return np.stack([y, x, t], axis=-1).astype(np.uint8)


def corner(frames: np.ndarray) -> tuple[int, int]:
    return int(frames[0, 0, 0, 0]), int(frames[0, 0, 0, 1])


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((240, 320), 224, (224, 299)),
        ((240, 320), 256, (256, 341)),
        ((320, 240), 224, (299, 224)),
        ((45, 33), 66, (90, 66)),
        ((64, 64), 32, (32, 32)),
    ],
)
def test_short_side_gets_the_size(shape: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    assert resize_short_side(np.zeros((*shape, 3), np.uint8), size).shape == (*expected, 3)


def test_resize_is_bilinear_with_half_pixel_centres() -> None:
    frame = np.array([[0, 100], [0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    assert resize_frame(frame, 2, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    # Every fourth column is bright; without antialiasing the sampled columns halfway between stay dark.
    stripes = np.tile(np.array([200, 0, 0, 0], np.uint8), 4)[None, :, None].repeat(3, axis=2)
    assert resize_frame(stripes, 1, 4)[0, :, 0].tolist() == [0, 0, 0, 0]


def test_crop_cuts_the_box() -> None:
    cut = crop(coordinate_frames(9, 14), Box(top=2, left=5, height=3, width=4))
    assert cut.shape == (2, 3, 4, 3)
    assert corner(cut) == (2, 5)
    assert cut[1, -1, -1].tolist() == [4, 8, 1]


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(8, 13, (0, 2)), (13, 8, (2, 0)), (9, 11, (0, 1)), (8, 8, (0, 0))]
)
def test_center_crop_rounds_down(height: int, width: int, expected: tuple[int, int]) -> None:
    cut = center_crop(coordinate_frames(height, width), 8)
    assert cut.shape == (2, 8, 8, 3)
    assert corner(cut) == expected


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (8, 14, [(0, 0), (0, 6), (0, 3)]),
        (8, 13, [(0, 0), (0, 4), (0, 2)]),  # odd spare length: the right crop ends one pixel early
        (14, 8, [(0, 0), (6, 0), (3, 0)]),
        (13, 8, [(0, 0), (4, 0), (2, 0)]),
        (10, 14, [(1, 0), (1, 6), (1, 3)]),
        (8, 8, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_three_crops_start_end_middle(height: int, width: int, expected: list[tuple[int, int]]) -> None:
    crops = three_crops(coordinate_frames(height, width), 8)
    assert crops.shape == (3, 2, 8, 8, 3)
    assert [corner(frames) for frames in crops] == expected


def test_flip_mirrors_columns_only() -> None:
    frames = coordinate_frames(4, 6)
    flipped = flip(frames)
    assert flipped[1, 2, :, 1].tolist() == [5, 4, 3, 2, 1, 0]
    assert np.array_equal(flipped[..., 0], frames[..., 0])
    assert np.array_equal(flip(flipped), frames)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1000))
def test_random_box_lies_inside(height: int, width: int, seed: int) -> None:
    box = random_resized_crop_box(height, width, (0.08, 1.0), (3 / 4, 4 / 3), np.random.default_rng(seed))
    assert box.top >= 0
    assert box.left >= 0
    assert 1 <= box.height <= height - box.top
    assert 1 <= box.width <= width - box.left


def test_random_box_follows_area_and_aspect() -> None:
    boxes = [
        random_resized_crop_box(256, 340, (0.2, 0.5), (1 / 2, 2.0), np.random.default_rng(seed)) for seed in range(500)
    ]
    areas = np.array([box.height * box.width for box in boxes]) / (256 * 340)
    ratios = np.log([box.width / box.height for box in boxes])
    assert 0.19 < areas.min() < 0.22
    assert 0.48 < areas.max() < 0.51
    assert abs(areas.mean() - 0.35) < 0.02
    assert abs(ratios.min() + np.log(2)) < 0.05
    assert abs(ratios.max() - np.log(2)) < 0.05
    assert abs(ratios.mean()) < 0.1  # log-uniform: as often wide as tall
    assert {box.left == 0 for box in boxes} == {True, False}


@pytest.mark.parametrize(("height", "width", "expected"), [(20, 20, (0, 0)), (20, 61, (0, 20)), (61, 20, (20, 0))])
def test_whole_frame_can_be_drawn_and_where_no_box_fits_it_is_the_centred_square(height, width, expected) -> None:
    box = random_resized_crop_box(height, width, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == Box(*expected, 20, 20)


def make_cutter(size: int, side: int, seed: int) -> BoxCutter:
    return BoxCutter(size, side, (0.01, 1), (0.5, 2), np.random.default_rng(seed))


@given(st.integers(0, 2**32 - 1))
def test_a_box_of_frames_of_its_size_is_cut_as_in_two_steps(seed: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    cutter = make_cutter(40, 16, seed)
    for frame in frames:
        assert np.array_equal(cutter(frame), resize_frame(crop(frame[None], cutter.box)[0], 16, 16))


@pytest.mark.parametrize("scale", [0.5, 2, 3])
def test_a_box_is_cut_at_the_same_position_of_larger_and_smaller_frames(scale: float) -> None:
    y, x = np.mgrid[: round(40 * scale), : round(60 * scale)] / scale
    cutter = BoxCutter(40, 10, (0.2, 0.3), (1, 2), np.random.default_rng(1))
    cut = cutter(np.stack([4 * y, 4 * x, x], axis=-1).astype(np.uint8))
    top, left, height, width = cutter.box
    middles = (np.arange(10) + 0.5) / 10
    assert np.abs(cut[:, 5, 0] / 4 - top - height * middles).max() < 1.3
    assert np.abs(cut[5, :, 2] - left - width * middles).max() < 1.3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_box_of_any_frame_can_be_cut(height: int, width: int, seed: int) -> None:
    frame = np.full((height, width, 3), 7, np.uint8)
    assert np.array_equal(make_cutter(32, 5, seed)(frame), np.full((5, 5, 3), 7, np.uint8))


def test_a_box_is_drawn_once_for_all_frames() -> None:
    frame = coordinate_frames(30, 40)[0]
    cutter = make_cutter(20, 8, 0)
    assert all(np.array_equal(cutter(frame), cutter(frame)) for _ in range(3))
    assert cutter.box == random_resized_crop_box(20, 27, (0.01, 1), (0.5, 2), np.random.default_rng(0))
