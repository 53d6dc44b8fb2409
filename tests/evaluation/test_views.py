"""Tests of `vswin.evaluation.views` with a model that can be computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from vswin.evaluation.views import average_views, count_view_hits, view_logits


def model_fn(clips):
    """Returns the first pixel of a clip as logit 0, the last one as logit 1 and 1 as logit 2."""
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
    probabilities = average_views(view_logits(model_fn, tf.constant(views), 4), "prob")
    exponentials = np.exp(EXPECTED_LOGITS.astype("f8"))
    expected = (exponentials / exponentials.sum(-1, keepdims=True)).mean(1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    mean_logits = np.exp(EXPECTED_LOGITS.astype("f8").mean(1))
    mean_logits /= mean_logits.sum(-1, keepdims=True)
    assert np.abs(expected - mean_logits).max() > 1e-3
    scores = average_views(tf.constant(EXPECTED_LOGITS), "score")
    np.testing.assert_allclose(scores, mean_logits, atol=1e-6)


def test_view_hits_judge_every_view_by_itself():
    # Six classes, two videos of three views; the 9 marks the best class of each view.
    logits = np.zeros((2, 3, 6), "f4") + np.arange(6)[::-1]
    logits[0, 0, 2], logits[0, 1, 3], logits[0, 2, 2] = 9, 9, 9
    hits = count_view_hits(tf.constant(logits), tf.constant([2, 5]))
    # Class 5 has the lowest logit in all views of the second video.
    assert hits.numpy().tolist() == [[2, 3], [0, 0]]
    assert count_view_hits(tf.constant(logits), tf.constant([-1, 0])).numpy().tolist() == [[0, 0], [3, 3]]
    assert count_view_hits(tf.constant(logits[..., :3]), tf.constant([1, 1])).numpy().tolist() == [[0, 3], [0, 3]]


def test_half_precision_logits_are_averaged_in_float32(views):
    logits = view_logits(lambda clips: tf.cast(model_fn(clips), tf.float16), tf.constant(views), 2)
    probabilities = average_views(logits, "prob")
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(probabilities, axis=1), 1.0, atol=1e-6)


def test_views_of_unknown_frame_size(views):
    signature = [tf.TensorSpec([2, 3, None, None, None, 3], tf.uint8)]
    compute = tf.function(lambda x: view_logits(model_fn, x, 4), input_signature=signature)
    np.testing.assert_allclose(compute(views), view_logits(model_fn, tf.constant(views), 4), atol=1e-7)
