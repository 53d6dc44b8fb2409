"""Grad-CAM for Video Swin Transformers: which places and times of a clip speak for a class.

With the features A of a stage, [T', H', W', C], and the logit y of a class:

    weight of a channel   a[c] = mean over t, h, w of dy / dA[t, h, w, c]
    map                   L[t, h, w] = max(0, sum over c of a[c] * A[t, h, w, c])

interpolated to the clip and divided by its largest value there. The features of the last stage are those after the
final normalisation, the input of the head. The head averages them and is linear, so there the weights are the head's
own, the map is the class activation map of Zhou et al. (2016), and what it adds up to before the maximum is taken is
the logit but for its bias.

A token of a late stage has seen what is around it, and the farther the later the stage. So a map says where the
features lie that speak for a class, and need not say that the pixels there are the cause; and it does not show what
speaks against it. Earlier stages have finer grids, and weights that are only a first-order guess.

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vswin.errors import InputError
from vswin.explain.forward import finish, stage_features
from vswin.explain.places import find_extents, interpolate
from vswin.models.video_swin import VideoSwin


def grad_cam(
    model: VideoSwin, clips: np.ndarray, labels: Sequence[int] | None = None, stage: int | None = None
) -> np.ndarray:
    """Shows what of clips speaks for a class.

    Args:
        model: with a head.
        clips: uint8 [B, T, H, W, 3] RGB.
        labels: a class for each clip; None: the one with the largest logit.
        stage: whose features, counted from 1; None: the last.

    Returns:
        float32 [B, T, H, W] in [0, 1]: 1 is the largest value of each clip, and a clip in which nothing speaks for its
        class is 0 everywhere.

    Raises:
        InputError: if there is no such stage or class, or there are more or fewer labels than clips.
        TypeError: if the clips are not uint8.
    """
    stage = len(model.size.depths) if stage is None else stage
    extents = find_extents(model.size, stage)
    features = stage_features(model, clips, stage)
    if labels is None:
        labels = finish(model, features, stage).numpy().argmax(axis=1).tolist()
    return normalize(interpolate(make_maps(model, features, labels, stage), clips.shape[1:4], extents))


def make_maps(model: VideoSwin, features: tf.Tensor, labels: Sequence[int], stage: int) -> np.ndarray:
    """Computes the maps L of the formula.

    Args:
        model: with a head.
        features: what `stage_features` gives, float32 [B, T', H', W', C].
        labels: a class for each clip.
        stage: whose features they are, counted from 1.

    Returns:
        float32 [B, T', H', W'], at least 0.

    Raises:
        InputError: if there is no such class, or there are more or fewer labels than clips.
    """
    if len(labels) != len(features):
        raise InputError(f"{len(labels)} labels for {len(features)} clips; give one for each")
    for label in labels:
        if not 0 <= label < model.num_classes:
            raise InputError(f"class {label}: the model has {model.num_classes} classes, counted from 0")
    return _make_maps(model, features, tf.constant(list(labels)), stage).numpy()


# A graph as those of `forward`, and for the same reason.
@tf.function(autograph=False)
def _make_maps(model: VideoSwin, features: tf.Tensor, labels: tf.Tensor, stage: int) -> tf.Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(features)
        logits = tf.gather(finish(model, features, stage), labels, axis=1, batch_dims=1)  # [B]
    gradient = tape.gradient(logits, features)  # [B, T', H', W', C]
    weights = tf.reduce_mean(gradient, axis=[1, 2, 3])  # [B, C]
    return tf.nn.relu(tf.einsum("bthwc,bc->bthw", features, weights))  # [B, T', H', W']


def normalize(maps: np.ndarray) -> np.ndarray:
    """Divides each map, float32 [B, T, H, W], by its largest value, unless that is 0."""
    largest = maps.max(axis=(1, 2, 3), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)
