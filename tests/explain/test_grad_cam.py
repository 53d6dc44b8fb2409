"""Grad-CAM's map equals its formula, on any stage."""

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.errors import InputError
from vswin.explain.grad_cam import (
    find_extents,
    finish,
    grad_cam,
    interpolate,
    make_maps,
    normalize,
    spread,
    stage_features,
)
from vswin.models.zoo import SIZES


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
def test_a_stage_and_the_rest_give_the_logits_of_the_model(model, clips, stage):
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


def test_a_class_or_stage_that_does_not_exist_is_refused(model, clips):
    for options, words in (
        ({"labels": [0, 5]}, "class 5: the model has 5 classes, counted from 0"),
        ({"labels": [0, -1]}, "class -1"),
        ({"labels": [0]}, "1 labels for 2 clips"),
        ({"stage": 0}, "the model has the stages 1 to 4"),
        ({"stage": 5}, "the model has the stages 1 to 4"),
    ):
        with pytest.raises(InputError, match=words):
            grad_cam(model, clips, **options)
    with pytest.raises(TypeError, match="uint8"):
        grad_cam(model, clips.astype(np.float32))


def test_tokens_are_at_the_centre_of_the_frames_and_pixels_that_they_cover():
    found = interpolate(np.array([0, 4, 8, 4], np.float32)[:, None, None], (8, 1, 1), (2, 1, 1))
    np.testing.assert_array_equal(found[:, 0, 0], [0, 1, 3, 5, 7, 7, 5, 4])
    assert found.dtype == np.float32
    # The last token covers only half its frames; the padding in the rest moves no position.
    found = interpolate(np.array([0, 4, 8])[:, None, None], (5, 1, 1), (2, 1, 1))
    np.testing.assert_array_equal(found[:, 0, 0], [0, 1, 3, 5, 7])


def test_each_axis_has_its_own_extent():
    t, h, w = np.meshgrid(np.arange(3), np.arange(2), np.arange(4), indexing="ij")
    grid = np.stack([100.0 * t + 10 * h + w, np.zeros(t.shape)])  # [2, 3, 2, 4]
    found = interpolate(grid, (6, 8, 14), (2, 4, 4))
    t, h, w = (
        np.clip((np.arange(length) + 0.5) / extent - 0.5, 0, last)
        for length, extent, last in ((6, 2, 2), (8, 4, 1), (14, 4, 3))
    )
    np.testing.assert_allclose(found[0], 100 * t[:, None, None] + 10 * h[:, None] + w, rtol=1e-6)
    assert not found[1].any()
    grid = np.arange(4).reshape(1, 2, 2)
    np.testing.assert_array_equal(spread(grid, (2, 3, 4), (2, 2, 2))[1], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])
    assert [find_extents(SIZES["swin_tiny"], stage) for stage in (1, 2, 4)] == [(2, 4, 4), (2, 8, 8), (2, 32, 32)]
