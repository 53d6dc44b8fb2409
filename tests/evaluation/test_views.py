"""Tests of `vswin.evaluation.views` with a model that can be computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from vswin.evaluation.views import average_views, view_logits


def model_fn(clips):
    """Gives the first pixel of a clip as logit 0, the last one as logit 1 and 1 as logit 2."""
    clips = tf.cast(clips, tf.float32)
    first, last = clips[:, 0, 0, 0, 0], clips[:, -1, -1, -1, -1]
    return tf.stack([first, last, tf.ones_like(first)], axis=1)  # [n, K]


@pytest.fixture
def views():
    """Two videos of three views with T=2, H=4, W=3; clip n holds n in its first half and 10 n in the last."""
    number = np.arange(6).reshape(2, 3, 1, 1, 1, 1)
    frames = np.array([1, 10]).reshape(1, 1, 2, 1, 1, 1)
    return np.broadcast_to(number * frames, (2, 3, 2, 4, 3, 3)).astype(np.uint8)


EXPECTED_LOGITS = np.array([[[n, 10 * n, 1] for n in range(3)], [[n, 10 * n, 1] for n in range(3, 6)]], "f4")


@pytest.mark.parametrize("views_per_step", [1, 2, 3, 4, 6, 100])
@pytest.mark.parametrize("compile_it", [False, True])
def test_view_logits_keep_the_order_for_every_step_size(views, views_per_step, compile_it):
    compute = tf.function(view_logits) if compile_it else view_logits
    logits = compute(model_fn, tf.constant(views), views_per_step)
    assert logits.dtype == tf.float32
    assert logits.shape == (2, 3, 3)
    np.testing.assert_array_equal(logits, EXPECTED_LOGITS)


def test_every_step_has_the_same_shape_and_never_more_views_than_asked(views):
    shapes = []

    def recording_model_fn(clips):
        shapes.append(tuple(clips.shape))
        return model_fn(clips)

    tf.function(lambda x: view_logits(recording_model_fn, x, 4))(tf.constant(views))
    assert shapes == [(4, 2, 4, 3, 3)]


def test_average_views_is_the_mean_of_probabilities_not_of_logits(views):
    probabilities = average_views(model_fn, tf.constant(views), 4)
    exponentials = np.exp(EXPECTED_LOGITS.astype("f8"))
    expected = (exponentials / exponentials.sum(-1, keepdims=True)).mean(1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    mean_logits = np.exp(EXPECTED_LOGITS.astype("f8").mean(1))
    assert np.abs(expected - mean_logits / mean_logits.sum(-1, keepdims=True)).max() > 1e-3


def test_half_precision_logits_are_averaged_in_float32(views):
    probabilities = average_views(lambda clips: tf.cast(model_fn(clips), tf.float16), tf.constant(views), 2)
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(probabilities, axis=1), 1.0, atol=1e-6)


def test_average_views_runs_with_unknown_frame_size(views):
    signature = [tf.TensorSpec([2, 3, None, None, None, 3], tf.uint8)]
    compute = tf.function(lambda x: average_views(model_fn, x, 4), input_signature=signature)
    np.testing.assert_allclose(compute(views), average_views(model_fn, tf.constant(views), 4), atol=1e-7)
