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

The network runs in two parts: clips to the features of a stage, or to the input of a block, and features to logits.
These are graphs, of which TensorFlow keeps one for each model, stage and shape. Without them, what is compiled inside
the layers would be traced anew for each shape on the way, which TensorFlow warns of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.zoo import ModelSize, Triple


def grad_cam(
    model: VideoSwin, clips: np.ndarray, labels: Sequence[int] | None = None, stage: int | None = None
) -> np.ndarray:
    """Shows what of clips, uint8 [B, T, H, W, 3] RGB, speaks for a class.

    Args:
        model: with a head.
        clips: as above.
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
    """Computes the maps L of the formula, float32 [B, T', H', W'], from what `stage_features` gives.

    Raises:
        InputError: if there is no such class, or there are more or fewer labels than clips.
    """
    if len(labels) != len(features):
        raise InputError(f"{len(labels)} labels for {len(features)} clips; give one for each")
    for label in labels:
        if not 0 <= label < model.num_classes:
            raise InputError(f"class {label}: the model has {model.num_classes} classes, counted from 0")
    return _make_maps(model, features, tf.constant(list(labels)), stage).numpy()


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


def stage_features(model: VideoSwin, clips: np.ndarray, stage: int) -> tf.Tensor:
    """Computes the features of a stage, counted from 1, before patches are merged; those of the last one normalised.

    Clips uint8 [B, T, H, W, 3] RGB, others are a TypeError, become float32 [B, T', H', W', C].
    """
    return _stage_features(model, tf.constant(clips), stage)


@tf.function(autograph=False)
def _stage_features(model: VideoSwin, clips: tf.Tensor, stage: int) -> tf.Tensor:
    x = block_input(model, clips, stage, 1)
    x = model.backbone.stages[stage - 1].run_blocks(x)
    return tf.cast(model.backbone.norm(x) if stage == len(model.backbone.stages) else x, tf.float32)


@tf.function(autograph=False)
def block_input(model: VideoSwin, clips: tf.Tensor, stage: int, block: int) -> tf.Tensor:
    """Computes what goes into a block, both counted from 1: [B, T', H', W', C] from clips, uint8 [B, T, H, W, 3]."""
    x = model.backbone.patch_embed(model.normalize(clips))
    for earlier in model.backbone.stages[: stage - 1]:
        x = earlier(x)
    return model.backbone.stages[stage - 1].run_blocks(x, num_blocks=block - 1)


@tf.function(autograph=False)
def finish(model: VideoSwin, features: tf.Tensor, stage: int) -> tf.Tensor:
    """Computes logits, float32 [B, K], from what `stage_features` gives."""
    backbone = model.backbone
    merge = backbone.stages[stage - 1].downsample
    if merge is None:  # the last stage
        return model.head(features)
    x = merge(features)
    for later in backbone.stages[stage:]:
        x = later(x)
    return model.head(backbone.norm(x))


def find_extents(size: ModelSize, stage: int) -> Triple:
    """Says how many frames, rows and columns of a clip a token of a stage, counted from 1, covers.

    That is a patch in the first stage, and twice as many rows and columns in each later one.

    Raises:
        InputError: if there is no such stage.
    """
    num_stages = len(size.depths)
    if not 1 <= stage <= num_stages:
        raise InputError(f"stage {stage}: the model has the stages 1 to {num_stages}")
    frames, rows, columns = size.patch_size
    return frames, rows * 2 ** (stage - 1), columns * 2 ** (stage - 1)


def interpolate(grid: np.ndarray, shape: Triple, extents: Triple) -> np.ndarray:
    """Interpolates numbers of tokens, [..., T', H', W'], linearly to those of a clip, float32 [..., T, H, W].

    The number of a token stands in the middle of what it covers, so that of two frames between them; beyond the
    middle of the first and of the last token it stays the same. A token at the end that covers padding as well is no
    exception: grids are padded at their end, which moves no place.
    """
    t, h, w = (_weigh(*axis) for axis in zip(shape, grid.shape[-3:], extents, strict=True))  # [T, T'], ...
    return np.einsum("...abc,ta,hb,wc->...thw", grid, t, h, w, optimize=True).astype(np.float32)


def spread(grid: np.ndarray, shape: Triple, extents: Triple) -> np.ndarray:
    """Gives all pixels that a token covers its number: [..., T', H', W'] becomes [..., T, H, W]."""
    for axis, extent in zip((-3, -2, -1), extents, strict=True):
        grid = np.repeat(grid, extent, axis=axis)
    frames, rows, columns = shape
    return grid[..., :frames, :rows, :columns]


def _weigh(num_places: int, num_tokens: int, extent: int) -> np.ndarray:
    """Weighs the tokens of an axis for each frame, row or column: [num_places, num_tokens]."""
    places = (np.arange(num_places) + 0.5) / extent - 0.5
    each = [np.interp(places, np.arange(num_tokens), one) for one in np.eye(num_tokens)]
    return np.stack(each, axis=1)
