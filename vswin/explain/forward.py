"""The network in two parts: clips to the features of a stage, or to the input of a block, and features to logits.

The parts are graphs, of which TensorFlow keeps one for each model, stage and shape. Without them, what is compiled
inside the layers would be traced anew for each shape on the way, which TensorFlow warns of.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vswin.models.video_swin import VideoSwin


def stage_features(model: VideoSwin, clips: np.ndarray, stage: int) -> tf.Tensor:
    """Computes the features of a stage, before patches are merged; those of the last one normalised.

    Args:
        model: any.
        clips: uint8 [B, T, H, W, 3] RGB.
        stage: counted from 1.

    Returns:
        float32 [B, T', H', W', C].

    Raises:
        TypeError: if the clips are not uint8.
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
