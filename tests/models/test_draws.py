import numpy as np
import pytest
import tensorflow as tf

from vswin.models.draws import make_draws
from vswin.models.zoo import ModelSize

SIZE = ModelSize(8, (2, 3), (1, 2), window_size=(2, 3, 4), drop_path_rate=0.4)


def draw(seed=1, step=2, positions=range(64), batch=64, size=SIZE, dropout=0.5):
    return make_draws(seed, step, tf.constant(list(positions)), batch, size, dropout)


def assert_same(left, right):
    np.testing.assert_array_equal(left.drop_path, right.drop_path)
    np.testing.assert_array_equal(left.dropout, right.dropout)


def test_shapes_and_values():
    draws = draw()
    assert draws.drop_path.shape == (64, 5, 2)
    assert draws.dropout.shape == (64, 16)
    assert draws.drop_path.dtype == draws.dropout.dtype == tf.float32
    assert np.unique(draws.dropout).tolist() == [0, 2]
    for block, rate in enumerate(np.linspace(0, 0.4, 5)):
        values = np.unique(draws.drop_path[:, block])
        np.testing.assert_allclose(values[values > 0], [1 / (1 - rate)], rtol=1e-6)
    assert np.all(draws.drop_path[:, 0] == 1)


def test_replicas_draw_their_rows_of_the_global_batch():
    whole = draw()
    for rows in (range(32), range(32, 64), range(1, 64, 2)):
        part = draw(positions=rows)
        np.testing.assert_array_equal(part.drop_path, whole.drop_path.numpy()[list(rows)])
        np.testing.assert_array_equal(part.dropout, whole.dropout.numpy()[list(rows)])


def test_draws_depend_on_seed_and_step_alone():
    steps = [draw(step=step) for step in range(4)]
    assert_same(draw(step=3), steps[3])
    for other in (draw(step=3), draw(seed=2), draw(seed=2, step=1)):
        assert np.any(other.drop_path != draw(step=2).drop_path)
        assert np.any(other.dropout != draw(step=2).dropout)


def test_draws_differ_between_positions_blocks_branches_and_streams():
    size = ModelSize(5, (10,), (1,), drop_path_rate=0.5)
    draws = draw(size=size, dropout=0.5)
    dropped = draws.drop_path.numpy() == 0
    assert np.any(dropped[0] != dropped[1])
    assert np.any(dropped[:, 8] != dropped[:, 9])
    assert np.any(dropped[:, 9, 0] != dropped[:, 9, 1])
    assert np.any(dropped[:, 9, 0] != (draws.dropout.numpy()[:, 0] == 0))


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_graphs_and_variables_draw_the_same(dtype):
    step = tf.Variable(2, dtype=dtype)
    traced = tf.function(lambda: make_draws(1, step, tf.range(64), 64, SIZE, 0.5))()
    assert_same(traced, draw())
