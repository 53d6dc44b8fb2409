"""The train step: draws, loss, gradients and metrics of one global batch, for Keras `fit`."""

from collections.abc import Collection
from typing import NamedTuple, TypeAlias

import tensorflow as tf
import tf_keras as keras

from vswin.models.draws import Draws
from vswin.models.video_swin import VideoSwin
from vswin.training.ema import WeightAverage
from vswin.training.erasing import erase, make_erasing_boxes
from vswin.training.freezing import run_frozen_parts_as_tested
from vswin.training.metrics import make_metrics, read_metrics, update_metrics
from vswin.training.mixing import (
    NO_MIXING,
    MixDraws,
    Mixing,
    keep_uncounted,
    main_labels,
    make_mix_draws,
    mix_clips,
    mix_targets,
)
from vswin.weights.names import named_weights

Batch: TypeAlias = dict[str, tf.Tensor]


class StepDraws(NamedTuple):
    """Hold all that a training step draws for its clips, each with the batch as first axis.

    Attributes:
        model: multipliers of drop path and dropout.
        erased: the box of each clip that is erased, int32 [B, 4].
        mixing: how clips are mixed with their partners.
    """

    model: Draws
    erased: tf.Tensor
    mixing: MixDraws


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
        erasing: share of the clips of which a box is erased.
        mixing: mixup and cutmix; a replica's batch, or each part of it, then holds an even number of clips.
        frozen: official names of the weights that stay as they are.
        ema_decay: decay of a moving average of the weights, which is tested beside them; None for none.
        jit: whether XLA compiles the loss and the gradients, on each replica by itself: strategies do not allow for
            more.

    Attributes:
        average: the moving average, or None.
    """

    def __init__(
        self,
        model: VideoSwin,
        global_batch_size: int,
        seed: int,
        label_smoothing: float = 0.0,
        micro_batches: int = 1,
        erasing: float = 0.0,
        mixing: Mixing = NO_MIXING,
        frozen: Collection[str] = (),
        ema_decay: float | None = None,
        jit: bool = False,
    ) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.micro_batches = micro_batches
        self.erasing = erasing
        self.mixing = mixing
        self.frozen = frozenset(frozen)
        self.average = None if ema_decay is None else WeightAverage(model, ema_decay)
        self._differentiate = self._loss_and_gradients
        if jit:
            self._differentiate = tf.function(self._loss_and_gradients, jit_compile=True)
        # Steps that `fit` leaves out of its first epoch, because an earlier session has taken them.
        self.first_step = 0
        self.loss_metric, self.top1_metric, self.top5_metric = make_metrics(model.num_classes)
        self._ema_metrics = [] if self.average is None else make_metrics(model.num_classes, "ema_")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets before each epoch."""
        return [*self._raw_metrics, *self._ema_metrics]

    @property
    def trained_variables(self) -> list[tf.Variable]:
        """The weights of the model that are not frozen."""
        if not self.frozen:
            return list(self.model.trainable_variables)
        frozen = {id(variable) for name, variable in named_weights(self.model).items() if name in self.frozen}
        return [variable for variable in self.model.trainable_variables if id(variable) not in frozen]

    @property
    def _raw_metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_metric, self.top1_metric, self.top5_metric]

    # Nothing in a step is Python that depends on data: looking for it takes a third of the time to trace one.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Takes one optimizer step on this replica's share of the global batch."""
        draws = self.make_draws(batch, self.optimizer.iterations)
        context = tf.distribute.get_replica_context()
        # Gradients of parts and replicas are summed, so each divides by the weight of the global batch.
        total_weight = tf.maximum(context.all_reduce("SUM", tf.reduce_sum(batch["weights"])), 1.0)
        if self.micro_batches == 1:
            gradients = self._gradients(batch, draws, total_weight)
        else:
            gradients = self._summed_gradients(batch, draws, total_weight)
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        step = tf.identity(self.optimizer.iterations)
        self.optimizer.apply_gradients(zip(gradients, self.trained_variables, strict=True))
        if self.average is not None:
            self.average.follow(self.frozen, step, gradients if self._scales_loss else [])
        return read_metrics(self._raw_metrics)

    def make_draws(self, batch: Batch, step: tf.Tensor | int) -> StepDraws:
        """Draws what happens to this replica's clips in a step; outside of anything rematerialised or compiled."""
        place = (self.seed, step, batch["positions"], self.global_batch_size)
        height, width = batch["clips"].shape[2:4]
        mixing = make_mix_draws(*place, (height, width), self.mixing)
        if self.mixing.is_on:
            mixing = keep_uncounted(mixing, batch["weights"])
        erased = make_erasing_boxes(*place, (height, width), self.erasing)
        draws = self.model.make_draws(*place)
        if self.frozen:
            draws = run_frozen_parts_as_tested(draws, list(named_weights(self.model)), self.frozen)
        return StepDraws(draws, erased, mixing)

    def _maybe_load_initial_counters_from_ckpt(self, steps_per_epoch: int, initial_epoch: int) -> tuple[int, int]:
        """Tells `fit` where to start; Keras asks for the step in this way alone."""
        return initial_epoch, self.first_step

    @property
    def _scales_loss(self) -> bool:
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def _gradients(self, batch: Batch, draws: StepDraws, total_weight: tf.Tensor) -> list[tf.Tensor]:
        """Computes what a batch, or a part of one, adds to the gradients of the global batch."""
        clips, targets, labels = self._change(batch, draws)
        logits, losses, gradients = self._differentiate(clips, targets, batch["weights"] / total_weight, draws.model)
        update_metrics(self._raw_metrics, labels, logits, batch["weights"], losses, batch["weights"])
        return gradients

    def _loss_and_gradients(
        self, clips: tf.Tensor, targets: tf.Tensor, shares: tf.Tensor, draws: Draws
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Computes logits and losses, and the gradients of the sum of the losses by their shares in it.

        All that XLA compiles, where it does; nothing is drawn in here, since its random numbers would be others.
        """
        trained = self.trained_variables
        # Of what nothing watched goes into, the tape keeps nothing: what is below the first trained weight is free.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            logits = self.model.classify(clips, training=True, draws=draws)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            objective = tf.reduce_sum(losses * shares)
            if self._scales_loss:
                objective = self.optimizer.get_scaled_loss(objective)
        # Dense before they are summed and clipped: Keras would take the norm of unsummed slices.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(objective, trained)]
        return logits, losses, gradients

    def _change(self, batch: Batch, draws: StepDraws) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalises, erases and mixes; returns the clips, their targets and the labels that count as right."""
        clips, targets, labels = self.model.normalize(batch["clips"]), self._targets(batch["labels"]), batch["labels"]
        if self.erasing > 0:
            clips = erase(clips, draws.erased)
        if self.mixing.is_on:
            clips, targets = mix_clips(clips, draws.mixing), mix_targets(targets, draws.mixing)
            labels = main_labels(labels, draws.mixing)
        return clips, targets, labels

    def _summed_gradients(self, batch: Batch, draws: StepDraws, total_weight: tf.Tensor) -> list[tf.Tensor]:
        """Computes the same part by part, in a loop whose passes share their memory."""

        def add_part(sums: list[tf.Tensor], part: tuple[Batch, StepDraws]) -> list[tf.Tensor]:
            gradients = self._gradients(*part, total_weight)
            return [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

        zeros = [tf.zeros(variable.shape) for variable in self.trained_variables]
        return tf.foldl(add_part, tf.nest.map_structure(self._cut, (batch, draws)), zeros, parallel_iterations=1)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Measures one batch, part by part; a clip that could not be decoded (label -1) counts as wrong without a loss.

        The targets are not smoothed, so that the losses of all runs can be compared.
        """
        labels, weights = batch["labels"], batch["weights"]
        loss_weights = weights * tf.cast(labels >= 0, tf.float32)
        tested = [(self.model, self._raw_metrics)]
        if self.average is not None:
            tested.append((self.average.model, self._ema_metrics))
        measured: list[tf.Tensor] = []
        for model, metrics in tested:
            # One model after the other: both at once would need twice the memory.
            with tf.control_dependencies(measured):
                logits = self._test(model, batch["clips"])
            measured.append(logits)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
            update_metrics(metrics, labels, logits, weights, losses, loss_weights)
        return read_metrics(self.metrics)

    def _test(self, model: VideoSwin, clips: tf.Tensor) -> tf.Tensor:
        """Computes the logits [B, K] of a batch in the parts that a training step takes."""
        if self.micro_batches == 1:
            return model(clips, training=False)

        def test(part: tf.Tensor) -> tf.Tensor:
            return model(part, training=False)

        signature = tf.TensorSpec([None, model.num_classes])
        logits = tf.map_fn(test, self._cut(clips), parallel_iterations=1, fn_output_signature=signature)
        return tf.reshape(logits, [-1, model.num_classes])  # [B, K]

    def _cut(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [self.micro_batches, -1, *values.shape[1:]])  # [parts, B/parts, ...]

    def _targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns what the probabilities of every clip should be, float32 [B, K].

        Source: Video-Swin-Transformer mmaction/datasets/blending_utils.py, LabelSmoothing.
        """
        num_classes = self.model.num_classes
        targets = tf.one_hot(labels, num_classes)  # [B, K]
        return (1.0 - self.label_smoothing) * targets + self.label_smoothing / num_classes
