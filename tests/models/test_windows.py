import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from vswin.models.windows import (
    expand_bias,
    from_windows,
    pad_grid,
    plan_windows,
    region_channels,
    to_windows,
    token_regions,
)


def ramp(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def cut_by_loop(x, window, shift):
    """Rolls and partitions [B, T, H, W, C] with plain loops."""
    x = np.roll(x, [-s for s in shift], axis=(1, 2, 3))
    (t, h, w), pieces = window, []
    for sample in x:
        starts = (range(0, extent, part) for extent, part in zip(sample.shape[:3], window, strict=True))
        for a, b, c in itertools.product(*starts):
            pieces.append(sample[a : a + t, b : b + h, c : c + w].reshape(-1, x.shape[-1]))
    return np.stack(pieces)


@pytest.mark.parametrize(("is_shifted", "shift"), [(False, (0, 0, 0)), (True, (1, 1, 2))])
def test_windows_hold_the_tokens_of_a_rolled_grid(is_shifted, shift):
    x = ramp(2, 4, 6, 8, 3)
    windows = plan_windows(tf.constant([4, 6, 8]), (2, 3, 4), is_shifted)
    cut = to_windows(tf.constant(x), windows)
    np.testing.assert_array_equal(cut, cut_by_loop(x, (2, 3, 4), shift))
    np.testing.assert_array_equal(from_windows(cut, windows, tf.shape(x)), x)


def test_padding_is_zeros_at_the_end():
    x = ramp(2, 3, 5, 7, 2) + 1
    padded = pad_grid(tf.constant(x), tf.constant([2, 5, 4]))
    assert padded.shape == (2, 4, 5, 8, 2)
    np.testing.assert_array_equal(padded[:, :3, :, :7], x)
    assert np.count_nonzero(padded) == x.size


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(*[st.integers(1, 9)] * 3),
    window=st.tuples(*[st.integers(1, 5)] * 3),
    is_shifted=st.booleans(),
)
def test_cutting_and_putting_back_is_exact_for_any_grid(grid, window, is_shifted):
    x = ramp(2, *grid, 1)
    windows = plan_windows(tf.constant(grid), window, is_shifted)
    cut = to_windows(tf.constant(x), windows)
    assert cut.shape[1] == np.prod(np.minimum(grid, window))
    np.testing.assert_array_equal(from_windows(cut, windows, tf.shape(x)), x)


@pytest.mark.parametrize(
    ("padded", "window", "shift"),
    [((4, 6, 8), (2, 3, 4), (1, 1, 2)), ((2, 6, 5), (2, 3, 5), (0, 1, 0)), ((8, 3, 4), (4, 3, 2), (2, 0, 1))],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_products_of_channels_mask_the_regions_of_the_official_slices(padded, window, shift, dtype):
    regions = np.zeros((1, *padded, 1))
    slices = [
        (slice(-size), slice(-size, -step if step else None), slice(-step if step else extent, None))
        for extent, size, step in zip(padded, window, shift, strict=True)
    ]
    for number, region in enumerate(itertools.product(*slices)):
        regions[(0, *region, 0)] = number
    ids = cut_by_loop(regions, window, (0, 0, 0))[..., 0]
    expected = np.where(ids[:, :, None] == ids[:, None, :], 0, -100)
    regions = token_regions(*(tf.constant(triple) for triple in (padded, window, shift)))
    queries, keys = region_channels(regions, tf.as_dtype(dtype))
    assert queries.dtype == keys.dtype == dtype
    np.testing.assert_array_equal(tf.cast(tf.matmul(queries, keys, transpose_b=True), tf.float32), expected)


@pytest.mark.parametrize("window", [(2, 7, 5), (2, 5, 7), (3, 2, 4), (1, 1, 6)])
def test_relative_positions_index_the_table_for_windows_that_are_not_cubic(window):
    tokens = list(itertools.product(*map(range, window)))
    rows = np.arange(np.prod([2 * extent - 1 for extent in window]))
    table = rows.reshape([2 * extent - 1 for extent in window])
    expected = [[table[tuple(np.subtract(a, b) + np.array(window) - 1)] for b in tokens] for a in tokens]
    biases = tf.stack([tf.range(rows.size), -tf.range(rows.size)], axis=1)
    bias = expand_bias(biases, window, len(tokens))
    np.testing.assert_array_equal(bias, np.stack([expected, np.negative(expected)]))


def test_a_shorter_window_takes_the_first_tokens_of_the_full_index():
    table = tf.random.normal([15 * 5 * 3, 2])
    full = expand_bias(table, (8, 3, 2), 48)
    np.testing.assert_array_equal(expand_bias(table, (8, 3, 2), 24), full[:, :24, :24])


def test_the_gradient_of_an_expanded_bias_counts_the_pairs_of_each_row():
    table = tf.Variable(tf.random.normal([3 * 5 * 7, 2]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(expand_bias(table, (2, 3, 4), 24), axis=(1, 2))  # [nH]
        total = total[0] + 2 * total[1]
    gradient = tape.gradient(total, table)
    assert isinstance(gradient, tf.Tensor)
    counts = [
        [[(2 - abs(t)) * (3 - abs(y)) * (4 - abs(x)) for x in range(-3, 4)] for y in range(-2, 3)] for t in (-1, 0, 1)
    ]
    np.testing.assert_array_equal(gradient, np.ravel(counts)[:, None] * [1.0, 2.0])


def test_unknown_extents_give_the_same_windows():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None, 3])])
    def cut_and_put_back(x):
        windows = plan_windows(tf.shape(x)[1:4], (2, 3, 4), is_shifted=True)
        cut = to_windows(x, windows)
        return cut, from_windows(cut, windows, tf.shape(x)), windows.regions

    for grid in ((4, 6, 8), (3, 2, 9)):
        x = tf.constant(ramp(2, *grid, 3))
        windows = plan_windows(tf.constant(grid), (2, 3, 4), is_shifted=True)
        cut, back, regions = cut_and_put_back(x)
        np.testing.assert_array_equal(cut, to_windows(x, windows))
        np.testing.assert_array_equal(regions, windows.regions)
        np.testing.assert_array_equal(back, x)
