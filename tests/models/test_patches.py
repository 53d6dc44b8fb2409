import numpy as np
import pytest
import tensorflow as tf

from vswin.models.patches import PatchEmbed3D, PatchMerging, PatchProjection
from vswin.runtime import set_precision


@pytest.mark.parametrize("patch_size", [(2, 4, 4), (1, 2, 3), (2, 3, 1)])
def test_the_projection_is_a_convolution_in_values_and_gradients(patch_size):
    t, h, w = patch_size
    x = tf.random.stateless_normal([2, 2 * t, 3 * h, 5 * w, 3], seed=[0, 1])
    layer = PatchProjection(7, patch_size)
    layer(x)
    layer.bias.assign(np.arange(7.0))
    with tf.GradientTape() as tape:
        given = layer(x, training=True)
        loss = tf.reduce_sum(given**2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    with tf.GradientTape() as tape:
        expected = tf.nn.conv3d(x, layer.kernel, [1, *patch_size, 1], "VALID") + layer.bias
        loss = tf.reduce_sum(expected**2)
    assert given.shape == (2, 2, 3, 5, 7)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    for a, b in zip(gradients, tape.gradient(loss, layer.trainable_variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_projection_multiplies_in_low_precision(precision):
    set_precision(precision)
    layer = PatchProjection(7, (2, 4, 2))
    x = tf.random.stateless_normal([2, 4, 8, 4, 3], seed=[0, 1])
    assert layer(x).dtype.name == precision
    assert layer.kernel.dtype == tf.float32
    expected = tf.nn.conv3d(x, layer.kernel, [1, 2, 4, 2, 1], "VALID")
    np.testing.assert_allclose(tf.cast(layer(x), tf.float32), expected, atol=0.05)


def test_patch_embedding_fills_the_last_patches_with_zeros():
    layer = PatchEmbed3D(4, (2, 4, 4))
    x = tf.random.normal([2, 3, 5, 9, 3])
    whole = tf.pad(x, [[0, 0], [0, 1], [0, 3], [0, 3], [0, 0]])
    assert layer(x).shape == (2, 2, 2, 3, 4)
    np.testing.assert_array_equal(layer(x), layer(whole))


def test_merging_takes_neighbours_row_first():
    layer = PatchMerging(1)
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32).reshape(1, 1, 2, 3, 1).repeat(2, axis=0)
    layer.build(x.shape)
    neighbours = []
    layer.norm.call = lambda values: neighbours.append(values.numpy()) or values
    assert layer(x).shape == (2, 1, 1, 2, 2)
    # (0,0), (1,0), (0,1), (1,1) in (row, column); the padding column is zero.
    assert neighbours[0][1, 0, 0].tolist() == [[1, 4, 2, 5], [3, 6, 0, 0]]
