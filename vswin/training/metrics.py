"""The figures of an epoch: loss, top-1 and top-5, as Keras metrics that all replicas share. Called by `trainer`."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras


def make_metrics(num_classes: int, prefix: str = "") -> list[keras.metrics.Metric]:
    """Makes the metrics `<prefix>loss`, `<prefix>top1` and `<prefix>top5`, in the current strategy's scope."""
    top_k = keras.metrics.SparseTopKCategoricalAccuracy
    return [
        keras.metrics.Mean(f"{prefix}loss"),
        top_k(1, f"{prefix}top1"),
        top_k(min(5, num_classes), f"{prefix}top5"),
    ]


def update_metrics(
    metrics: Sequence[keras.metrics.Metric],
    labels: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor,
    losses: tf.Tensor,
    loss_weights: tf.Tensor,
) -> None:
    """Counts a batch.

    Args:
        metrics: from `make_metrics`.
        labels: int32 [B].
        logits: float32 [B, K].
        weights: of each clip in the accuracies, float32 [B].
        losses: float32 [B].
        loss_weights: of each clip in the mean of the losses, float32 [B].
    """
    loss, top1, top5 = metrics
    loss.update_state(losses, loss_weights)
    top1.update_state(labels, logits, weights)
    top5.update_state(labels, logits, weights)


def read_metrics(metrics: Sequence[keras.metrics.Metric]) -> dict[str, tf.Tensor]:
    """Gives name -> value so far in the epoch."""
    return {metric.name: metric.result() for metric in metrics}
