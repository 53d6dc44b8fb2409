"""The train step: draws, loss, gradients and metrics of one global batch, for Keras `fit`."""

from typing import TypeAlias

import tensorflow as tf
import tf_keras as keras

from vswin.models.video_swin import VideoSwin

Batch: TypeAlias = dict[str, tf.Tensor]


class Trainer(keras.Model):
    """A classifier with the recipe's train and test step.

    Batches are dictionaries as `vswin.data.pipeline` makes them: `clips` uint8 [B, T, H, W, 3], `labels`
    int32 [B], `weights` float32 [B] (0: the slot does not count), `positions` int32 [B] in the global batch.

    Args:
        model: the classifier.
        global_batch_size: clips in a step over all replicas.
        seed: seed of dropout and drop path.
        label_smoothing: share of the target that is spread over all classes.
    """

    def __init__(self, model: VideoSwin, global_batch_size: int, seed: int, label_smoothing: float = 0.0) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.loss_metric = keras.metrics.Mean("loss")
        self.top1_metric = keras.metrics.SparseTopKCategoricalAccuracy(1, "top1")
        self.top5_metric = keras.metrics.SparseTopKCategoricalAccuracy(min(5, model.num_classes), "top5")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets before each epoch."""
        return [self.loss_metric, self.top1_metric, self.top5_metric]

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Takes one optimizer step on this replica's share of the global batch."""
        draws = self.model.make_draws(self.seed, self.optimizer.iterations, batch["positions"], self.global_batch_size)
        context = tf.distribute.get_replica_context()
        # Gradients of the replicas are summed, so each divides by the weight of the global batch.
        total_weight = tf.maximum(context.all_reduce("SUM", tf.reduce_sum(batch["weights"])), 1.0)
        scales_loss = isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)
        with tf.GradientTape() as tape:
            logits = self.model(batch["clips"], training=True, draws=draws)
            losses = self._cross_entropy(batch["labels"], logits)
            objective = tf.reduce_sum(losses * batch["weights"]) / total_weight
            if scales_loss:
                objective = self.optimizer.get_scaled_loss(objective)
        gradients = tape.gradient(objective, self.model.trainable_variables)
        # Dense before they are summed and clipped: Keras would take the norm of unsummed slices.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return self._update_metrics(batch, logits, losses, batch["weights"])

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Measures one batch; a clip that could not be decoded (label -1) counts as wrong and has no loss."""
        logits = self.model(batch["clips"], training=False)
        is_decoded = tf.cast(batch["labels"] >= 0, tf.float32)
        losses = self._cross_entropy(tf.maximum(batch["labels"], 0), logits)
        return self._update_metrics(batch, logits, losses, batch["weights"] * is_decoded)

    def _cross_entropy(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the cross-entropy of every clip, float32 [B]."""
        num_classes = self.model.num_classes
        targets = tf.one_hot(labels, num_classes)  # [B, K]
        targets = (1.0 - self.label_smoothing) * targets + self.label_smoothing / num_classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def _update_metrics(
        self, batch: Batch, logits: tf.Tensor, losses: tf.Tensor, loss_weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        self.loss_metric.update_state(losses, loss_weights)
        self.top1_metric.update_state(batch["labels"], logits, batch["weights"])
        self.top5_metric.update_state(batch["labels"], logits, batch["weights"])
        return {metric.name: metric.result() for metric in self.metrics}
