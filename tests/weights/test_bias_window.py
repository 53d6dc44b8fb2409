import math

import numpy as np
import pytest
import tensorflow as tf

from vswin.models.windows import expand_bias
from vswin.weights.bias_window import find_window


def position_index(window):
    rows = tf.range(math.prod(2 * extent - 1 for extent in window))
    return np.asarray(expand_bias(rows[:, None], window, math.prod(window))[0])


@pytest.mark.parametrize(("rows", "window"), [(2535, (8, 7, 7)), (5239, (16, 7, 7)), (343, (4, 4, 4))])
def test_windows_of_known_sizes_are_decided_by_the_rows_alone(rows, window):
    candidates, decided = find_window(rows, is_2d=False, index=None)
    assert decided == window
    assert window in candidates


def test_other_rows_leave_candidates():
    # 7 * 15 * 15: (4, 8, 8), or 63 * 5 * 5 or 175 * 3 * 3.
    assert find_window(1575, is_2d=False, index=None) == (((88, 2, 2), (32, 3, 3), (4, 8, 8)), None)
    assert find_window(507, is_2d=False, index=None) == (((2, 7, 7),), None)
    assert find_window(105, is_2d=False, index=None) == ((), None)


@pytest.mark.parametrize("window", [(8, 7, 7), (2, 3, 4), (3, 4, 2), (4, 8, 8), (1, 1, 1)])
def test_a_position_index_decides(window):
    rows = math.prod(2 * extent - 1 for extent in window)
    assert find_window(rows, is_2d=False, index=position_index(window)) == ((window,), window)


def test_a_position_index_with_an_axis_of_one_token_leaves_candidates():
    assert find_window(63, is_2d=False, index=position_index((5, 1, 4))) == (
        ((1, 5, 4), (5, 1, 4), (5, 4, 1)),
        None,
    )


@pytest.mark.parametrize("index", [np.zeros((392, 392), np.int64), np.arange(49), np.zeros((0, 0)), np.zeros((7, 7))])
def test_an_index_that_fits_no_window_is_passed_over(index):
    assert find_window(2535, is_2d=False, index=index) == (((8, 7, 7),), (8, 7, 7))


def test_windows_of_images_are_square():
    assert find_window(169, is_2d=True, index=None) == (((1, 7, 7),), (1, 7, 7))
    assert find_window(529, is_2d=True, index=None)[1] == (1, 12, 12)
    assert find_window(2535, is_2d=True, index=None) == ((), None)
    index = position_index((1, 7, 7))
    assert find_window(169, is_2d=True, index=index)[1] == (1, 7, 7)
