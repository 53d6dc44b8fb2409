"""Grad-CAM's map equals its formula, on any stage."""

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.errors import InputError
from vswin.explain.grad_cam import finish, grad_cam, make_maps, normalize, stage_features


def test_of_the_last_stage_the_weights_are_those_of_the_head(model):
    rng = np.random.default_rng(0)
    features = rng.standard_normal([2, 2, 3, 4, 64]).astype(np.float32)
    kernel = rng.standard_normal([64, 5]).astype(np.float32)
    model.head.linear.kernel.assign(kernel)
    found = make_maps(model, tf.constant(features), [3, 1], 4)
    for clip, label in enumerate((3, 1)):
        # The head averages over 2 x 3 x 4 tokens, so each has a 24th of the gradient.
        expected = np.maximum(features[clip] @ kernel[:, label] / 24, 0)
        np.testing.assert_allclose(found[clip], expected, rtol=1e-5, atol=1e-6)
    assert (found == 0).any()


def test_all_that_speaks_for_and_against_a_class_adds_up_to_its_logit(model, clips):
    features = stage_features(model, clips, 4)
    model.head.linear.bias.assign(tf.zeros(5))
    for label in range(5):
        positive = make_maps(model, features, [label, label], 4)
        model.head.linear.kernel.assign(-model.head.linear.kernel)
        negative = make_maps(model, features, [label, label], 4)
        model.head.linear.kernel.assign(-model.head.linear.kernel)
        total = (positive - negative).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(total, model(clips)[:, label], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_the_way_by_a_stage_is_that_of_the_model(model, clips, stage):
    features = stage_features(model, clips, stage)
    extent = 4 * 2 ** (stage - 1)
    assert features.shape == (2, 5, -(-76 // extent), -(-44 // extent), 8 * 2 ** (stage - 1))
    np.testing.assert_allclose(finish(model, features, stage), model(clips), atol=1e-6)


@pytest.mark.parametrize("stage", [1, 3])
def test_weights_of_earlier_stages_are_averages_of_the_gradient(model, clips, stage):
    """By finite differences: adding a number to a channel everywhere changes the logit by the sum of its gradient."""
    features = stage_features(model, clips, stage).numpy()
    labels, step = [4, 0], 1e-2
    weights = np.zeros([2, features.shape[-1]])
    for channel in range(features.shape[-1]):
        change = step * np.eye(features.shape[-1], dtype=np.float32)[channel]
        more, less = (finish(model, tf.constant(features + sign * change), stage).numpy() for sign in (1, -1))
        weights[:, channel] = [(more - less)[clip, label] / (2 * step) for clip, label in enumerate(labels)]
    weights /= np.prod(features.shape[1:4])
    expected = np.maximum(np.einsum("bthwc,bc->bthw", features, weights), 0)
    found = make_maps(model, tf.constant(features), labels, stage)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * expected.max())


def test_the_map_has_the_shape_of_the_clips_and_a_maximum_of_one(model, clips):
    found = vswin.grad_cam(model, clips)
    assert (found.dtype, found.shape) == (np.float32, (2, 9, 76, 44))
    assert found.min() >= 0
    np.testing.assert_array_equal(found.max(axis=(1, 2, 3)), 1)
    predicted = model(clips).numpy().argmax(axis=1).tolist()
    np.testing.assert_array_equal(found, grad_cam(model, clips, predicted, stage=4))
    # Each clip is independent of the others.
    np.testing.assert_allclose(found[1:], grad_cam(model, clips[1:]), atol=1e-4)
    assert not np.allclose(found, grad_cam(model, clips, predicted, stage=2), atol=0.1)


def test_where_nothing_speaks_for_a_class_all_is_zero():
    maps = np.zeros([2, 1, 1, 2], np.float32)
    maps[1] = [[[1, 4]]]
    np.testing.assert_array_equal(normalize(maps), [[[[0, 0]]], [[[0.25, 1]]]])


def test_what_is_refused(model, clips):
    with pytest.raises(InputError, match="class 5: the model has 5 classes, counted from 0"):
        grad_cam(model, clips, [0, 5])
    with pytest.raises(InputError, match="class -1"):
        grad_cam(model, clips, [0, -1])
    with pytest.raises(InputError, match="1 labels for 2 clips"):
        grad_cam(model, clips, [0])
    with pytest.raises(InputError, match="stage 5"):
        grad_cam(model, clips, stage=5)
    with pytest.raises(TypeError, match="uint8"):
        grad_cam(model, clips.astype(np.float32))
