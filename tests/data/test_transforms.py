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
    resize,
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
    ("height", "width", "size", "expected"),
    [
        (240, 320, 224, (224, 299)),
        (240, 320, 256, (256, 341)),
        (320, 240, 224, (299, 224)),
        (256, 340, 256, (256, 340)),
        (45, 33, 66, (90, 66)),
        (64, 64, 32, (32, 32)),
    ],
)
def test_short_side_gets_the_size(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    frame = np.zeros((height, width, 3), np.uint8)
    assert resize_short_side(frame, size).shape == (*expected, 3)


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 64))
def test_short_side_is_exact_for_any_size(height: int, width: int, size: int) -> None:
    assert min(resize_short_side(np.zeros((height, width, 3), np.uint8), size).shape[:2]) == size


def test_resize_is_bilinear_with_half_pixel_centres() -> None:
    frame = np.array([[0, 100], [0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    assert resize_frame(frame, 2, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    # Every fourth column is bright; without antialiasing the sampled columns halfway between stay dark.
    stripes = np.tile(np.array([200, 0, 0, 0], np.uint8), 4)[None, :, None].repeat(3, axis=2)
    assert resize_frame(stripes, 1, 4)[0, :, 0].tolist() == [0, 0, 0, 0]


def test_resize_treats_all_frames_alike() -> None:
    frames = coordinate_frames(8, 12, num_frames=3)
    resized = resize(frames, 4, 6)
    assert resized.shape == (3, 4, 6, 3)
    assert resized[:, 0, 0, 2].tolist() == [0, 1, 2]
    assert np.array_equal(resized[0, :, :, :2], resized[2, :, :, :2])


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


def test_whole_frame_can_be_drawn() -> None:
    box = random_resized_crop_box(20, 20, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == Box(0, 0, 20, 20)


@pytest.mark.parametrize(("height", "width", "expected"), [(20, 61, (0, 20)), (61, 20, (20, 0))])
def test_centred_square_where_no_box_fits(height: int, width: int, expected: tuple[int, int]) -> None:
    box = random_resized_crop_box(height, width, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == Box(*expected, 20, 20)


@given(st.integers(0, 20), st.integers(0, 30), st.integers(1, 20), st.integers(1, 30))
def test_a_box_of_frames_of_its_size_is_cut_as_in_two_steps(top: int, left: int, height: int, width: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    box = Box(top, left, height, width)
    cut = BoxCutter(40, 16, lambda height, width: box)
    assert np.array_equal([cut(frame) for frame in frames], resize(crop(frames, box), 16, 16))


@pytest.mark.parametrize("scale", [0.5, 2, 3])
def test_a_box_is_cut_at_the_same_place_of_larger_and_smaller_frames(scale: float) -> None:
    y, x = np.mgrid[: round(40 * scale), : round(60 * scale)] / scale
    frame = np.stack([4 * y, 4 * x, x], axis=-1).astype(np.uint8)
    cut = BoxCutter(40, 10, lambda height, width: Box(8, 20, 20, 30))(frame)
    rows, columns = 8 + 20 * (np.arange(10) + 0.5) / 10, 20 + 30 * (np.arange(10) + 0.5) / 10
    assert np.abs(cut[:, 5, 0] / 4 - rows).max() < 1.3
    assert np.abs(cut[5, :, 1] / 4 - columns).max() < 1.3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_box_of_any_frame_can_be_cut(height: int, width: int, seed: int) -> None:
    def draw_box(height: int, width: int) -> Box:
        return random_resized_crop_box(height, width, (0.01, 1), (0.5, 2), np.random.default_rng(seed))

    frame = np.full((height, width, 3), 7, np.uint8)
    assert np.array_equal(BoxCutter(32, 5, draw_box)(frame), np.full((5, 5, 3), 7, np.uint8))


def test_a_box_is_drawn_once_for_all_frames() -> None:
    sizes = []

    def draw_box(height: int, width: int) -> Box:
        sizes.append((height, width))
        return Box(0, 0, 4, 4)

    cut = BoxCutter(20, 8, draw_box)
    for _ in range(3):
        cut(np.zeros((30, 40, 3), np.uint8))
    assert sizes == [(20, 27)]
