"""Average a model's predictions over the views of a video; called by `vswin.evaluation.predict`."""

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


def average_views(logits: tf.Tensor, average: str) -> tf.Tensor:
    """Averages over the views of each video.

    Args:
        logits: Of every view, float32 [B, V, K].
        average: "prob" averages class probabilities, as published; "score" averages logits, whose softmax it gives.

    Returns:
        Probabilities, float32 [B, K]; each row sums to 1.

    Source: Video-Swin-Transformer mmaction/models/recognizers/base.py, BaseRecognizer.average_clip.
    """
    if average == "score":
        return tf.nn.softmax(tf.reduce_mean(logits, axis=1), axis=-1)  # [B, K]
    return tf.reduce_mean(tf.nn.softmax(logits, axis=-1), axis=1)  # [B, K]


def count_view_hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Counts the views that are right when each is judged by itself.

    Args:
        logits: Of every view, float32 [B, V, K].
        labels: int32 [B]; -1 for a video without one, which has no hits.

    Returns:
        Views whose best class, and whose best min(5, K) classes, hold the label, int32 [B, 2].
    """
    best = tf.math.top_k(logits, min(5, logits.shape[-1])).indices  # [B, V, min(5, K)]
    is_label = tf.cast(best == labels[:, tf.newaxis, tf.newaxis], tf.int32)  # [B, V, min(5, K)]
    return tf.stack([tf.reduce_sum(is_label[..., :1], [1, 2]), tf.reduce_sum(is_label, [1, 2])], axis=1)  # [B, 2]
