import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.resize_bias import resize_bias_table

# From torch.nn.functional.interpolate (2.x, float32, align_corners=False) on 0, 1, 4, 9, 16.
SQUARES = [0.0, 1.0, 4.0, 9.0, 16.0]
BICUBIC_TO_9 = [-0.1008, 0.1481, 0.7106, 2.0041, 4.0, 6.3388, 9.9726, 14.0741, 16.7058]
BICUBIC_TO_3 = [0.1481, 4.0, 14.0741]
LINEAR_TO_9 = [0.0, 1 / 3, 8 / 9, 7 / 3, 4.0, 61 / 9, 88 / 9, 41 / 3, 16.0]
LINEAR_TO_3 = [1 / 3, 4.0, 41 / 3]


def column(values):
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(("extent", "expected"), [(5, BICUBIC_TO_9), (2, BICUBIC_TO_3)])
def test_space_is_bicubic_as_in_torch(extent, expected):
    for old, new in (((1, 1, 3), (1, 1, extent)), ((1, 3, 1), (1, extent, 1))):
        np.testing.assert_allclose(resize_bias_table(column(SQUARES), old, new)[:, 0], expected, atol=6e-5)


@pytest.mark.parametrize(("extent", "expected"), [(5, LINEAR_TO_9), (2, LINEAR_TO_3)])
def test_time_is_linear_as_in_torch(extent, expected):
    resized = resize_bias_table(column(SQUARES), (3, 1, 1), (extent, 1, 1))
    np.testing.assert_allclose(resized[:, 0], expected, atol=1e-6)


def test_three_axes_equal_torch():
    # sin(0 .. 149) as a table of two heads for windows of (3, 2, 3), resized by torch in space and then in time.
    table = np.sin(np.arange(150, dtype=np.float32)).reshape(75, 2)
    resized = resize_bias_table(table, (3, 2, 3), (5, 4, 2))
    assert resized.shape == (9 * 7 * 3, 2)
    assert resized.dtype == np.float32
    expected = {
        0: (0.4887344, 0.8185235),
        1: (-0.9478455, -1.1348583),
        94: (-0.9851463, -0.3877816),
        97: (-0.4637054, -0.426383),
        188: (0.2369791, -0.5328624),
    }
    np.testing.assert_allclose(resized[list(expected)], list(expected.values()), atol=1e-6)


def test_the_same_window_gives_the_same_table():
    table = column(range(105))
    assert resize_bias_table(table, (2, 3, 4), (2, 3, 4)) is table


@pytest.mark.parametrize("new", [(16, 7, 7), (4, 7, 7), (8, 12, 5), (1, 3, 9)])
def test_the_bias_of_a_token_to_itself_stays_and_constants_stay_constant(new):
    table = np.random.default_rng(0).normal(size=(2535, 3)).astype(np.float32)
    resized = resize_bias_table(table, (8, 7, 7), new)
    np.testing.assert_allclose(resized[len(resized) // 2], table[len(table) // 2], atol=1e-6)
    constant = resize_bias_table(np.full((2535, 3), 0.3, np.float32), (8, 7, 7), new)
    np.testing.assert_allclose(constant, 0.3, atol=1e-6)


def test_axes_are_not_mixed_up():
    t, h, w = np.meshgrid(np.arange(-2.0, 3), np.arange(-3.0, 4), np.arange(-1.0, 2), indexing="ij")
    table = np.stack([t, h, w], axis=-1).reshape(-1, 3)
    resized = resize_bias_table(table, (3, 4, 2), (3, 8, 2)).reshape(5, 15, 3, 3)
    np.testing.assert_allclose(
        resized[..., 0], np.broadcast_to(np.arange(-2.0, 3)[:, None, None], (5, 15, 3)), atol=1e-6
    )
    np.testing.assert_allclose(resized[..., 2], np.broadcast_to(np.arange(-1.0, 2), (5, 15, 3)), atol=1e-6)
    assert np.ptp(resized[:, :, :, 1], axis=(0, 2)).max() < 1e-12
    assert (np.diff(resized[0, :, 0, 1]) > 0).all()


def test_a_table_of_another_window_is_refused():
    with pytest.raises(InputError, match=r"104 rows is not that of the window \(2, 3, 4\), 105 rows"):
        resize_bias_table(np.zeros((104, 2), np.float32), (2, 3, 4), (2, 3, 3))
