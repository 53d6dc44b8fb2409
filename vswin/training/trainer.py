"""The train step: draws, loss, gradients and metrics of one global batch, for Keras `fit`."""

from typing import TypeAlias

import tensorflow as tf
import tf_keras as keras

from vswin.models.draws import Draws
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
        micro_batches: parts into which a replica's batch is cut; they run one after another and their gradients
            are summed, so that the activations of one part alone are held.
    """

    def __init__(
        self,
        model: VideoSwin,
        global_batch_size: int,
        seed: int,
        label_smoothing: float = 0.0,
        micro_batches: int = 1,
    ) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.micro_batches = micro_batches
        # Steps that `fit` leaves out of its first epoch, because an earlier session has taken them.
        self.first_step = 0
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
        # Gradients of parts and replicas are summed, so each divides by the weight of the global batch.
        total_weight = tf.maximum(context.all_reduce("SUM", tf.reduce_sum(batch["weights"])), 1.0)
        if self.micro_batches == 1:
            gradients = self._gradients(batch, draws, total_weight)
        else:
            gradients = self._summed_gradients(batch, draws, total_weight)
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return self._results()

    def _maybe_load_initial_counters_from_ckpt(self, steps_per_epoch: int, initial_epoch: int) -> tuple[int, int]:
        """Tells `fit` where to start; Keras asks for the step in this way alone."""
        return initial_epoch, self.first_step

    @property
    def _scales_loss(self) -> bool:
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def _gradients(self, batch: Batch, draws: Draws, total_weight: tf.Tensor) -> list[tf.Tensor]:
        """Computes what a batch, or a part of one, adds to the gradients of the global batch."""
        with tf.GradientTape() as tape:
            logits = self.model(batch["clips"], training=True, draws=draws)
            losses = self._cross_entropy(batch["labels"], logits)
            objective = tf.reduce_sum(losses * batch["weights"]) / total_weight
            if self._scales_loss:
                objective = self.optimizer.get_scaled_loss(objective)
        self._update_metrics(batch, logits, losses, batch["weights"])
        # Dense before they are summed and clipped: Keras would take the norm of unsummed slices.
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(objective, self.model.trainable_variables)]

    def _summed_gradients(self, batch: Batch, draws: Draws, total_weight: tf.Tensor) -> list[tf.Tensor]:
        """Computes the same part by part, in a loop whose passes share their memory."""

        def cut(values: tf.Tensor) -> tf.Tensor:
            return tf.reshape(values, [self.micro_batches, -1, *values.shape[1:]])  # [parts, B/parts, ...]

        def add_part(sums: list[tf.Tensor], part: tuple[Batch, Draws]) -> list[tf.Tensor]:
            gradients = self._gradients(*part, total_weight)
            return [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

        zeros = [tf.zeros(variable.shape) for variable in self.model.trainable_variables]
        return tf.foldl(add_part, tf.nest.map_structure(cut, (batch, draws)), zeros, parallel_iterations=1)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Measures one batch; a clip that could not be decoded (label -1) counts as wrong and has no loss."""
        logits = self.model(batch["clips"], training=False)
        is_decoded = tf.cast(batch["labels"] >= 0, tf.float32)
        losses = self._cross_entropy(tf.maximum(batch["labels"], 0), logits)
        self._update_metrics(batch, logits, losses, batch["weights"] * is_decoded)
        return self._results()

    def _cross_entropy(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the cross-entropy of every clip, float32 [B]."""
        num_classes = self.model.num_classes
        targets = tf.one_hot(labels, num_classes)  # [B, K]
        targets = (1.0 - self.label_smoothing) * targets + self.label_smoothing / num_classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def _update_metrics(self, batch: Batch, logits: tf.Tensor, losses: tf.Tensor, loss_weights: tf.Tensor) -> None:
        self.loss_metric.update_state(losses, loss_weights)
        self.top1_metric.update_state(batch["labels"], logits, batch["weights"])
        self.top5_metric.update_state(batch["labels"], logits, batch["weights"])

    def _results(self) -> dict[str, tf.Tensor]:
        return {metric.name: metric.result() for metric in self.metrics}
