"""Average a model's predictions over the views of a video; called by `vswin.evaluation.run`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def view_logits(model_fn: Callable[[tf.Tensor], tf.Tensor], views: tf.Tensor, views_per_step: int) -> tf.Tensor:
    """Computes the logits of every view, a few views at a time.

    The views of all videos form one row that is cut into steps of equal size (the last one is filled with
    black clips), so the model is traced for one shape and holds the activations of one step only.

    Args:
        model_fn: Maps clips [n, T, H, W, 3] to logits float [n, K]; sees the dtype of `views`.
        views: uint8 [B, V, T, H, W, 3] with static B and V.
        views_per_step: Clips in one call of `model_fn`, >= 1; more than B * V counts as B * V.

    Returns:
        Logits, float32 [B, V, K].
    """
    num_videos, num_views = views.shape[:2]
    total = num_videos * num_views
    step = min(views_per_step, total)
    clips = tf.reshape(views, tf.concat([[total], tf.shape(views)[2:]], axis=0))  # [B*V, T, H, W, 3]
    clips = tf.pad(clips, [[0, -total % step]] + [[0, 0]] * 4)  # [steps*n, T, H, W, 3]
    chunks = tf.reshape(clips, tf.concat([[-1, step], tf.shape(clips)[1:]], axis=0))  # [steps, n, T, H, W, 3]
    logits = tf.map_fn(
        lambda clips: tf.cast(model_fn(clips), tf.float32),
        chunks,
        fn_output_signature=tf.float32,
        parallel_iterations=1,
    )  # [steps, n, K]
    logits = tf.reshape(logits, [-1, logits.shape[-1]])[:total]  # [B*V, K]
    return tf.reshape(logits, [num_videos, num_views, logits.shape[-1]])  # [B, V, K]


def average_views(model_fn: Callable[[tf.Tensor], tf.Tensor], views: tf.Tensor, views_per_step: int) -> tf.Tensor:
    """Averages class probabilities, not logits, over the views of each video.

    Args:
        model_fn: Maps clips [n, T, H, W, 3] to logits float [n, K].
        views: uint8 [B, V, T, H, W, 3] with static B and V.
        views_per_step: Clips in one call of `model_fn`, >= 1.

    Returns:
        Probabilities, float32 [B, K]; each row sums to 1.

    Source: Video-Swin-Transformer mmaction/models/recognizers/base.py, BaseRecognizer.average_clip ("prob").
    """
    logits = view_logits(model_fn, views, views_per_step)
    return tf.reduce_mean(tf.nn.softmax(logits, axis=-1), axis=1)  # [B, K]
