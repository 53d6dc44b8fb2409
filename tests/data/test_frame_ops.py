import numpy as np
import pytest

from vswin.data import augment
from vswin.data.augment import RAND_AUGMENT

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)[..., None].repeat(3, axis=2)  # level = 32 y + x


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
