"""Tests of `vswin.models.fused`: values and gradients equal plain TensorFlow's, compiled or not."""

import numpy as np
import pytest
import tensorflow as tf

from vswin.models import fused


@pytest.fixture(params=["compiled", "not compiled"])
def mode(request, monkeypatch):
    """Compiles at any size, or never."""
    monkeypatch.setattr(fused, "MIN_ELEMENTS", 0 if request.param == "compiled" else 1 << 60)
    return request.param


def draw(*shape: int, dtype: str = "float32", scale: float = 1.0) -> tf.Tensor:
    return tf.cast(np.random.default_rng(sum(shape)).normal(scale=scale, size=shape), dtype)


def differentiate(function, *arguments):
    """Returns the result and the gradients of a weighted sum of it."""
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        result = function(*arguments)
        weights = tf.cast(
            tf.reshape(tf.cos(tf.range(tf.size(result, tf.int32), dtype=tf.float32)), result.shape), result.dtype
        )
        total = tf.reduce_sum(tf.cast(result * weights, tf.float32))
    return [result, *tape.gradient(total, arguments)]


def assert_close(actual, expected, tolerance):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        one, other = (tf.cast(value, tf.float64).numpy() for value in (one, other))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1.0, np.abs(other).max()))


def plain_norm(x, gamma, beta):
    wide = tf.cast(x, tf.float32)
    mean, variance = tf.nn.moments(wide, [-1], keepdims=True)
    return tf.cast(tf.nn.batch_normalization(wide, mean, variance, beta, gamma, 1e-5), x.dtype)


def plain_softmax(logits, bias):
    return tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32) + bias), logits.dtype)


TOLERANCES = [("float32", 2e-6), ("bfloat16", 1e-2), ("float16", 2e-3)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_gelu(mode, dtype, tolerance):
    x = tf.concat([draw(50, 7, scale=3), [[-60.0, -8, -1, 0, 1, 8, 60]]], axis=0)
    expected = differentiate(lambda x: tf.cast(tf.nn.gelu(tf.cast(x, tf.float32), False), dtype), tf.cast(x, dtype))
    assert_close(differentiate(fused.gelu, tf.cast(x, dtype)), expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_normalisation(mode, dtype, tolerance):
    arguments = draw(33, 12, dtype=dtype, scale=3), draw(12), draw(12)
    expected = differentiate(plain_norm, *arguments)
    actual = differentiate(lambda x, gamma, beta: fused.normalize_rows(x, gamma, beta, 1e-5), *arguments)
    assert_close(actual, expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_softmax(mode, dtype, tolerance):
    logits, bias = draw(6, 2, 5, 5, dtype=dtype), draw(2, 5, 5)
    logits += tf.cast(tf.where(draw(6, 2, 5, 5) > 0.8, -100.0, 0.0), dtype)
    expected = differentiate(plain_softmax, logits, bias)
    assert_close(differentiate(fused.biased_softmax, logits, bias), expected, tolerance)


def test_large_shapes_that_are_known_are_compiled_and_others_are_not(monkeypatch):
    monkeypatch.setattr(fused, "MIN_ELEMENTS", 100)

    def is_compiled(rows):
        graph = tf.function(fused.gelu, autograph=False).get_concrete_function(tf.TensorSpec([rows, 10])).graph
        return "PartitionedCall" in {operation.type for operation in graph.get_operations()}

    assert not is_compiled(9)
    assert is_compiled(10)
    assert not is_compiled(None)
