"""Grad-CAM for Video Swin Transformers: which positions and times of a clip speak for a class.

With the features A of a stage, [T', H', W', C], and the logit y of a class:

    weight of a channel   a[c] = mean over t, h, w of dy / dA[t, h, w, c]
    map                   L[t, h, w] = max(0, sum over c of a[c] * A[t, h, w, c])

The map is interpolated to the clip and divided by its largest value there. The features of the last stage are taken
after the final normalisation, where the head averages them and is linear: the channel weights are those of the head (up
to a constant factor), the map is the class activation map of Zhou et al. (2016), and its sum before taking the maximum
is the logit without its bias. Earlier stages have finer grids, but their channel weights are only a first-order
approximation. A token also holds information from its surroundings, from farther away in later stages; the pixels where
a map is large need not be the cause, and it does not show what speaks against the class.

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.

The network runs as two graphs: clips to the features of a stage (or to the input of a block), and features to logits.
Without them, the functions compiled inside the layers would be traced again for each shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize, Triple


def grad_cam(
    model: VideoSwin, clips: np.ndarray, labels: Sequence[int] | None = None, stage: int | None = None
) -> np.ndarray:
    """Shows which parts of clips, uint8 [B, T, H, W, 3] RGB, speak for a class; the model must have a head.

    `labels` are a class for each clip; None takes the class with the largest logit. `stage` counts from 1; None takes
    the features of the last stage.

    Returns:
        float32 [B, T, H, W] in [0, 1]: 1 is the largest value of each clip. A clip without evidence for its class
        is 0 everywhere.

    Raises:
        InputError: if the stage or a class does not exist, or the number of labels is not the number of clips.
        TypeError: if the clips are not uint8.
    """
    stage = len(model.size.depths) if stage is None else stage
    extents = find_extents(model.size, stage)
    features = stage_features(model, clips, stage)
    if labels is None:
        labels = finish(model, features, stage).numpy().argmax(axis=1).tolist()
    return normalize(interpolate(make_maps(model, features, labels, stage), clips.shape[1:4], extents))


def make_maps(model: VideoSwin, features: tf.Tensor, labels: Sequence[int], stage: int) -> np.ndarray:
    """Computes the maps L of the formula, float32 [B, T', H', W'], from the output of `stage_features`.

    Raises:
        InputError: if a class does not exist, or the number of labels is not the number of clips.
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
    """Computes the features of a stage, counted from 1, before patch merging; the last stage's are normalised.

    Clips uint8 [B, T, H, W, 3] RGB become float32 [B, T', H', W', C]; another dtype raises a `TypeError`.
    """
    return _stage_features(model, tf.constant(clips), stage)


@tf.function(autograph=False)
def _stage_features(model: VideoSwin, clips: tf.Tensor, stage: int) -> tf.Tensor:
    x = block_input(model, clips, stage, 1)
    x = model.backbone.stages[stage - 1].run_blocks(x)
    return tf.cast(model.backbone.norm(x) if stage == len(model.backbone.stages) else x, tf.float32)


@tf.function(autograph=False)
def block_input(model: VideoSwin, clips: tf.Tensor, stage: int, block: int) -> tf.Tensor:
    """Computes the input of a block, [B, T', H', W', C], from clips, uint8 [B, T, H, W, 3]; both count from 1."""
    x = model.backbone.patch_embed(model.normalize(clips))
    for earlier in model.backbone.stages[: stage - 1]:
        x = earlier(x)
    return model.backbone.stages[stage - 1].run_blocks(x, num_blocks=block - 1)


@tf.function(autograph=False)
def finish(model: VideoSwin, features: tf.Tensor, stage: int) -> tf.Tensor:
    """Computes logits, float32 [B, K], from the output of `stage_features`."""
    backbone = model.backbone
    merge = backbone.stages[stage - 1].downsample
    if merge is None:  # the last stage
        return model.head(features)
    x = merge(features)
    for later in backbone.stages[stage:]:
        x = later(x)
    return model.head(backbone.norm(x))


def find_extents(size: ModelSize, stage: int) -> Triple:
    """Gives the number of frames, rows and columns of a clip that a token of a stage, counted from 1, covers.

    A token covers one patch in the first stage, and twice as many rows and columns in each later stage.

    Raises:
        InputError: if the stage does not exist.
    """
    num_stages = len(size.depths)
    if not 1 <= stage <= num_stages:
        raise InputError(f"stage {stage}: the model has the stages 1 to {num_stages}")
    frames, rows, columns = size.patch_size
    return frames, rows * 2 ** (stage - 1), columns * 2 ** (stage - 1)


def interpolate(grid: np.ndarray, shape: Triple, extents: Triple) -> np.ndarray:
    """Interpolates the values of tokens, [..., T', H', W'], linearly to a clip, float32 [..., T, H, W].

    The value of a token applies at the middle of the pixels and frames that it covers; before the first and after the
    last middle, the value stays constant. This also holds for a token at the end that covers padding: padding at the
    end moves no position.
    """
    t, h, w = (_axis_weights(*axis) for axis in zip(shape, grid.shape[-3:], extents, strict=True))  # [T, T'], ...
    return np.einsum("...abc,ta,hb,wc->...thw", grid, t, h, w, optimize=True).astype(np.float32)


def spread(grid: np.ndarray, shape: Triple, extents: Triple) -> np.ndarray:
    """Repeats the value of each token for all pixels that it covers: [..., T', H', W'] becomes [..., T, H, W]."""
    for axis, extent in zip((-3, -2, -1), extents, strict=True):
        grid = np.repeat(grid, extent, axis=axis)
    frames, rows, columns = shape
    return grid[..., :frames, :rows, :columns]


def _axis_weights(length: int, num_tokens: int, extent: int) -> np.ndarray:
    """Gives the weight of each token of an axis for each frame, row or column: [length, num_tokens]."""
    positions = (np.arange(length) + 0.5) / extent - 0.5
    weights = [np.interp(positions, np.arange(num_tokens), one_token) for one_token in np.eye(num_tokens)]
    return np.stack(weights, axis=1)
