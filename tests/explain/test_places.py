"""Tokens are at the centre of the frames and pixels that they cover."""

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.explain.grad_cam import find_extents, interpolate, spread
from vswin.models.zoo import SIZES


def test_two_frames_of_a_patch_lie_on_either_side_of_its_place():
    grid = np.array([0, 4, 8, 4], np.float32)[:, None, None]
    found = interpolate(grid, (8, 1, 1), (2, 1, 1))
    np.testing.assert_array_equal(found[:, 0, 0], [0, 1, 3, 5, 7, 7, 5, 4])
    assert found.dtype == np.float32


def test_padding_at_the_end_moves_no_place():
    # The last token covers only half its frames; the rest is padding.
    found = interpolate(np.array([0, 4, 8])[:, None, None], (5, 1, 1), (2, 1, 1))
    np.testing.assert_array_equal(found[:, 0, 0], [0, 1, 3, 5, 7])


def test_each_axis_has_its_own_extent():
    t, h, w = np.meshgrid(np.arange(3), np.arange(2), np.arange(4), indexing="ij")
    grid = np.stack([100.0 * t + 10 * h + w, np.zeros(t.shape)])  # [2, 3, 2, 4]
    found = interpolate(grid, (6, 8, 14), (2, 4, 4))
    assert found.shape == (2, 6, 8, 14)
    places = [
        np.clip((np.arange(length) + 0.5) / extent - 0.5, 0, last)
        for length, extent, last in ((6, 2, 2), (8, 4, 1), (14, 4, 3))
    ]
    expected = 100 * places[0][:, None, None] + 10 * places[1][:, None] + places[2]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert not found[1].any()


def test_spreading_repeats_and_cuts_padding():
    grid = np.arange(4).reshape(1, 2, 2)
    np.testing.assert_array_equal(spread(grid, (2, 3, 4), (2, 2, 2))[1], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])


def test_extents_double_from_stage_to_stage():
    size = SIZES["swin_tiny"]
    assert [find_extents(size, stage) for stage in (1, 2, 4)] == [(2, 4, 4), (2, 8, 8), (2, 32, 32)]
    for stage in (0, 5):
        with pytest.raises(InputError, match="the model has the stages 1 to 4"):
            find_extents(size, stage)
