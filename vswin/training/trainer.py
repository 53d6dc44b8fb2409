"""The train step: draws, loss, gradients, metrics and moving average of one global batch, for Keras `fit`."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras as keras

from vswin.config.schema import TrainConfig
from vswin.data.samples import Sample, multi_hot
from vswin.models.draws import Draws
from vswin.models.video_swin import VideoSwin
from vswin.runs.metrics import NUM_BEST
from vswin.runs.multi_label import choose_thresholds, f1_scores, mean_average_precision
from vswin.training.loss import PLAIN, BinaryLoss, Loss, make_loss
from vswin.training.mixing import (
    NO_MIXING,
    MixDraws,
    Mixing,
    erase,
    keep_uncounted,
    main_labels,
    make_erasing_boxes,
    make_mix_draws,
    mix_clips,
    mix_targets,
)
from vswin.training.optimizer import build_optimizer, build_schedule, find_frozen, run_frozen_parts_as_tested
from vswin.weights.names import named_weights

Batch: TypeAlias = dict[str, tf.Tensor]


class StepDraws(NamedTuple):
    """All random draws of a training step, each with the batch as first axis."""

    model: Draws
    erased: tf.Tensor  # box of each clip, int32 [B, 4]
    mixing: MixDraws


class WeightAverage:
    """An exponential moving average of a model's weights, float32, which starts with these weights.

    Averages of Keras optimizers (`use_ema`) have a constant decay, replace the weights when `fit` ends, and have no
    model of their own. Here `model` holds the average, so that it can be validated beside the weights.
    """

    def __init__(self, source: VideoSwin, decay: float) -> None:
        self.source = source
        self.decay = decay
        self.model = VideoSwin.from_config(source.get_config())
        self.model.set_weights(source.get_weights())

    def follow(self, frozen: Collection[str], step: tf.Tensor, gradients: Sequence[tf.Tensor] = ()) -> None:
        """Moves the average towards the weights after a step, equally on every replica; call it in a replica context.

        `frozen` are the official names of weights that never change. `step` counts the optimizer steps before this one,
        including steps that loss scaling skips. `gradients` are this replica's, given under loss scaling only: if one
        is not finite on any replica, the step was skipped, and the average stays.
        """
        weights, averages = named_weights(self.source), named_weights(self.model)

        def move(average: tf.Variable, weight: tf.Tensor, rate: tf.Tensor) -> None:
            average.assign_add((weight - average) * rate)

        def move_all(strategy: tf.distribute.Strategy, rate: tf.Tensor) -> None:
            for name, average in averages.items():
                if name not in frozen:
                    strategy.extended.update(average, move, args=(weights[name], rate), group=False)

        rate = 1.0 - warmed_decay(self.decay, step)
        context = tf.distribute.get_replica_context()
        if gradients:
            is_spoilt = tf.reduce_any([tf.reduce_any(~tf.math.is_finite(gradient)) for gradient in gradients])
            num_spoilt = context.all_reduce("SUM", tf.cast(is_spoilt, tf.float32))
            rate = tf.where(num_spoilt > 0, 0.0, rate)
        context.merge_call(move_all, args=(rate,))


def warmed_decay(decay: float, step: tf.Tensor | int) -> tf.Tensor:
    """Computes the decay of a step, float32: min(decay, (1 + step) / (10 + step)).

    So the average soon forgets the initial weights, whose new head is random, and needs no bias correction.

    Source: tf.train.ExponentialMovingAverage, num_updates.
    """
    step = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1.0 + step) / (10.0 + step))


class ClassFigures(keras.metrics.Metric):
    """The macro F1 and the balanced accuracy of a whole validation set, counted class by class on all replicas.

    They are means over the classes that have videos. Videos that cannot be decoded (label -1) are not counted.
    """

    def __init__(self, num_classes: int, prefix: str = "") -> None:
        super().__init__(f"{prefix}class_figures")
        self.prefix = prefix
        # Of each class: its videos, its predictions, and its hits.
        self.counts = self.add_weight("counts", (3, num_classes), initializer="zeros")

    def update_state(self, labels: tf.Tensor, logits: tf.Tensor, sample_weight: tf.Tensor) -> None:
        """Adds a batch: labels int32 [B], logits float32 [B, K], weights float32 [B]."""
        weights = (sample_weight * tf.cast(labels >= 0, tf.float32))[:, tf.newaxis]  # [B, 1]
        actual = weights * tf.one_hot(labels, logits.shape[-1])  # [B, K]
        predicted = weights * tf.one_hot(tf.argmax(logits, axis=1), logits.shape[-1])  # [B, K]
        self.counts.assign_add(tf.stack([tf.reduce_sum(x, axis=0) for x in (actual, predicted, actual * predicted)]))

    def reset_state(self) -> None:
        """Forgets all videos; Keras would assign a scalar."""
        keras.backend.set_value(self.counts, np.zeros(self.counts.shape))

    def result(self) -> dict[str, tf.Tensor]:
        """Computes both figures, fractions 0..1, by name."""
        actual, predicted, hits = tf.unstack(self.counts)  # each [K]
        num_classes = tf.math.count_nonzero(actual, dtype=tf.float32)
        figures = {"f1_macro": 2 * hits / tf.maximum(actual + predicted, 1)}
        figures["balanced_accuracy"] = hits / tf.maximum(actual, 1)
        return {
            self.prefix + name: tf.math.divide_no_nan(tf.reduce_sum(values), num_classes)
            for name, values in figures.items()
        }


class Scores(keras.metrics.Metric):
    """The logits of a whole validation set, whose samples have several labels each; see `Trainer.evaluate`."""

    def __init__(self, num_samples: int, num_classes: int, prefix: str = "") -> None:
        super().__init__(f"{prefix}scores")
        self.prefix = prefix
        # Each replica adds its rows to zeros. The last row is for padding.
        self.rows = self.add_weight("rows", (num_samples + 1, num_classes), initializer="zeros")

    def update_state(self, indices: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Adds the logits, float32 [B, K], of the samples `indices`, int32 [B]; NaN for a bad video, label -1."""
        rows, num_rows = tf.where((labels < 0)[:, tf.newaxis], np.nan, logits), self.rows.shape[0]  # [B, K]
        indices = tf.where(indices < 0, num_rows - 1, indices)
        self.rows.assign_add(tf.scatter_nd(indices[:, tf.newaxis], rows, self.rows.shape))

    def reset_state(self) -> None:
        """Forgets all samples; Keras would assign a scalar."""
        keras.backend.set_value(self.rows, np.zeros(self.rows.shape))

    def result(self) -> tf.Tensor:
        """Gives the logits, float32 [N, K]."""
        return self.rows[:-1]


class Trainer(keras.Model):
    """A classifier with the train and test step of the recipe.

    Batches are dictionaries from `vswin.data.pipeline`: `clips` uint8 [B, T, H, W, 3], `labels` int32 [B], `weights`
    float32 [B] (0: the slot does not count), `positions` int32 [B] in the global batch. With several labels per sample,
    the labels of training are float32 [B, K].

    Args:
        global_batch_size: clips in a step over all replicas.
        micro_batches: parts of a replica's batch; they run one after another and their gradients are summed, so that
            only the activations of one part are in memory.
        mixing: mixup and cutmix; a replica's batch, or each part of it, then holds an even number of clips.
        frozen: official names of the weights that are not trained.
        ema_decay: decay of a moving average of the weights, which is validated beside them; None for no average.
        jit: whether XLA compiles loss and gradients, separately on each replica because strategies allow no more.
        loss: the training loss; a `BinaryLoss` if samples have several labels each.
        val_targets: then the classes of all validation samples, float32 [N, K] of 0 and 1.
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
        loss: Loss | BinaryLoss = PLAIN,
        val_targets: np.ndarray | None = None,
    ) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.micro_batches = micro_batches
        self.erasing = erasing
        self.mixing = mixing
        self.training_loss = loss
        self.frozen = frozenset(frozen)
        self.average = None if ema_decay is None else WeightAverage(model, ema_decay)
        self._differentiate = self._loss_and_gradients
        if jit:
            self._differentiate = tf.function(self._loss_and_gradients, jit_compile=True)
        # Metrics are summed over all workers already; Keras would sum their results again.
        self.distribute_reduction_method = "first"
        # Steps of the first epoch that `fit` skips, because an earlier session has taken them.
        self.first_step = 0
        self.val_targets = val_targets
        # Of the last validation of the weights ("") and their average ("ema_"), if samples have several labels each.
        self.thresholds: dict[str, list[float]] = {}
        several, num_classes = isinstance(loss, BinaryLoss), model.num_classes
        num_val = 0 if val_targets is None else len(val_targets)
        prefixes = ("",) if self.average is None else ("", "ema_")
        # Of the weights, and of their average.
        self._step_metrics = [_make_metrics(num_classes, prefix, several) for prefix in prefixes]
        self._figures: list[ClassFigures | Scores] = [
            Scores(num_val, num_classes, prefix) if several else ClassFigures(num_classes, prefix)
            for prefix in prefixes
        ]

    @property
    def saved_metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that belong to the state of a run in the middle of an epoch."""
        return [metric for metrics in self._step_metrics for metric in metrics]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets before each epoch and before validation."""
        return [*self.saved_metrics, *self._figures]

    @property
    def trained_variables(self) -> list[tf.Variable]:
        """The weights of the model that are not frozen."""
        if not self.frozen:
            return list(self.model.trainable_variables)
        frozen = {id(variable) for name, variable in named_weights(self.model).items() if name in self.frozen}
        return [variable for variable in self.model.trainable_variables if id(variable) not in frozen]

    # A step has no Python control flow that depends on data; searching for it takes a third of the tracing time.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Takes one optimizer step on this replica's part of the global batch."""
        draws = self.make_draws(batch, self.optimizer.iterations)
        context = tf.distribute.get_replica_context()
        # Gradients are summed over parts and replicas, so each part divides by the weight of the global batch.
        total_weight = tf.maximum(context.all_reduce("SUM", tf.reduce_sum(batch["weights"])), 1.0)
        compute = self._gradients if self.micro_batches == 1 else self._summed_gradients
        gradients = compute(batch, draws, total_weight)
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        step = tf.identity(self.optimizer.iterations)
        self.optimizer.apply_gradients(zip(gradients, self.trained_variables, strict=True))
        if self.average is not None:
            self.average.follow(self.frozen, step, gradients if self._scales_loss else [])
        return self._results(self._step_metrics[0])

    def _results(self, metrics: Sequence[keras.metrics.Metric]) -> dict[str, tf.Tensor]:
        """Gets the figures of metrics by name; with five classes or fewer, top-5 says nothing."""
        results: dict[str, tf.Tensor] = {}
        for metric in metrics:
            if not metric.name.endswith("top5") or self.model.num_classes > NUM_BEST:
                result = metric.result()
                results |= result if isinstance(result, dict) else {metric.name: result}
        return results

    def make_draws(self, batch: Batch, step: tf.Tensor | int) -> StepDraws:
        """Draws what happens to this replica's clips in a step, outside of rematerialised or compiled code."""
        stream = (self.seed, step, batch["positions"], self.global_batch_size)
        height, width = batch["clips"].shape[2:4]
        mixing = make_mix_draws(*stream, (height, width), self.mixing)
        if self.mixing.is_on:
            mixing = keep_uncounted(mixing, batch["weights"])
        erased = make_erasing_boxes(*stream, (height, width), self.erasing)
        draws = self.model.make_draws(*stream)
        if self.frozen:
            draws = run_frozen_parts_as_tested(draws, list(named_weights(self.model)), self.frozen)
        return StepDraws(draws, erased, mixing)

    def _maybe_load_initial_counters_from_ckpt(self, steps_per_epoch: int, initial_epoch: int) -> tuple[int, int]:
        """Tells `fit` where to start; Keras asks for the step in no other way."""
        return initial_epoch, self.first_step

    @property
    def _scales_loss(self) -> bool:
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def _gradients(self, batch: Batch, draws: StepDraws, total_weight: tf.Tensor) -> list[tf.Tensor]:
        """Updates the metrics with a batch or a part, and returns its part of the global batch's gradients."""
        clips, targets, labels = self._change(batch, draws)
        logits, losses, gradients = self._differentiate(clips, targets, batch["weights"] / total_weight, draws.model)
        _update_metrics(self._step_metrics[0], labels, logits, batch["weights"], losses, batch["weights"])
        return gradients

    def _loss_and_gradients(
        self, clips: tf.Tensor, targets: tf.Tensor, shares: tf.Tensor, draws: Draws
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Returns logits, losses and gradients of sum(losses * shares); draws nothing, as XLA draws differently."""
        trained = self.trained_variables
        # The tape keeps only what depends on watched variables, so layers below the first trained weight cost nothing.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            logits = self.model.classify(clips, training=True, draws=draws)
            losses = self.training_loss(targets, logits)
            objective = tf.reduce_sum(losses * shares)
            if self._scales_loss:
                objective = self.optimizer.get_scaled_loss(objective)
        # Gradients become dense before they are summed and clipped: Keras would take the norm of unsummed slices.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(objective, trained)]
        return logits, losses, gradients

    def _change(self, batch: Batch, draws: StepDraws) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalises, erases and mixes; returns the clips, their targets and the labels that count as correct."""
        clips, targets, labels = self.model.normalize(batch["clips"]), self._targets(batch["labels"]), batch["labels"]
        if self.erasing > 0:
            clips = erase(clips, draws.erased)
        if self.mixing.is_on:
            clips, targets = mix_clips(clips, draws.mixing), mix_targets(targets, draws.mixing)
            labels = labels if labels.shape.rank > 1 else main_labels(labels, draws.mixing)
        return clips, targets, labels

    def _summed_gradients(self, batch: Batch, draws: StepDraws, total_weight: tf.Tensor) -> list[tf.Tensor]:
        """Sums the gradients of all parts in a loop whose iterations use the same memory."""

        def add_part(sums: list[tf.Tensor], part: tuple[Batch, StepDraws]) -> list[tf.Tensor]:
            gradients = self._gradients(*part, total_weight)
            return [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

        zeros = [tf.zeros(variable.shape) for variable in self.trained_variables]
        return tf.foldl(add_part, tf.nest.map_structure(self._cut, (batch, draws)), zeros, parallel_iterations=1)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Measures one batch, part by part; a clip that cannot be decoded (label -1) counts as wrong and has no loss.

        The targets are not smoothed and no class is weighted, so that the losses of all runs can be compared.
        """
        labels, weights = batch["labels"], batch["weights"]
        loss_weights = weights * tf.cast(labels >= 0, tf.float32)
        tested = [self.model] if self.average is None else [self.model, self.average.model]
        measured: list[tf.Tensor] = []
        for model, metrics, figures in zip(tested, self._step_metrics, self._figures, strict=True):
            # One model after the other: both at once would need twice the memory.
            with tf.control_dependencies(measured):
                logits = self._test(model, batch["clips"])
            measured.append(logits)
            if isinstance(figures, Scores):
                figures.update_state(batch["indices"], labels, logits)
                continue
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
            _update_metrics(metrics, labels, logits, weights, losses, loss_weights)
            figures.update_state(labels, logits, weights)
        return self._results([metric for metric in self.metrics if not isinstance(metric, Scores)])

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Validates as Keras does; with several labels, it adds the figures that need all predictions at once.

        They are those of `vswin.runs.multi_label`, with the thresholds that are best for F1, and the mean loss.
        """
        results = super().evaluate(*args, **kwargs)
        for scores in self._figures:
            if not isinstance(scores, Scores) or self.val_targets is None:
                continue
            logits = tf.cast(scores.result(), tf.float64)  # [N, K]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(self.val_targets.astype(np.float64), logits)
            probabilities = tf.sigmoid(logits).numpy()
            thresholds = choose_thresholds(self.val_targets, probabilities)
            self.thresholds[scores.prefix] = thresholds.tolist()
            f1_micro, f1_macro = f1_scores(self.val_targets, probabilities >= thresholds)
            results |= {
                f"{scores.prefix}loss": float(np.nanmean(losses.numpy())),
                f"{scores.prefix}map": mean_average_precision(self.val_targets, probabilities),
                f"{scores.prefix}f1_macro": f1_macro,
                f"{scores.prefix}f1_micro": f1_micro,
            }
        return results

    def _test(self, model: VideoSwin, clips: tf.Tensor) -> tf.Tensor:
        """Computes the logits [B, K] of a batch, in the same parts as a training step."""
        if self.micro_batches == 1:
            return model(clips, training=False)
        signature = tf.TensorSpec([None, model.num_classes])
        logits = tf.map_fn(
            lambda part: model(part, training=False),
            self._cut(clips),
            parallel_iterations=1,
            fn_output_signature=signature,
        )
        return tf.reshape(logits, [-1, model.num_classes])  # [B, K]

    def _cut(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [self.micro_batches, -1, *values.shape[1:]])  # [parts, B/parts, ...]

    def _targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Smooths labels, float32 [B, K]; source: upstream mmaction/datasets/blending_utils.py, LabelSmoothing.

        Several labels are smoothed towards one half, since each class is a choice between two.
        """
        num_classes = self.model.num_classes
        if labels.shape.rank > 1:
            return (1.0 - self.label_smoothing) * labels + self.label_smoothing / 2
        targets = tf.one_hot(labels, num_classes)  # [B, K]
        return (1.0 - self.label_smoothing) * targets + self.label_smoothing / num_classes


def build_trainer(
    config: TrainConfig,
    model: VideoSwin,
    steps: int,
    schedule: keras.optimizers.schedules.LearningRateSchedule | None = None,
    class_weights: tuple[float, ...] | None = None,
    val: Sequence[Sample] = (),
) -> Trainer:
    """Builds a model's optimizer, schedule and train step; call it in the scope of the model's strategy.

    Without a `schedule` it uses the run's own, with `steps` per epoch. `class_weights` come from `weigh_classes`; `val`
    are the samples of a validation.
    """
    weights = named_weights(model)
    trainer = Trainer(
        model,
        config.batch_size,
        config.seed,
        config.augment.label_smoothing,
        config.runtime.micro_batches,
        config.augment.erasing,
        Mixing(config.augment.mixup, config.augment.cutmix),
        find_frozen(weights, config.model.freeze_stages, config.model.freeze),
        config.optimizer.ema_decay,
        config.runtime.jit,
        make_loss(config, class_weights),
        multi_hot(val, model.num_classes) if config.dataset.is_multi_label else None,
    )
    # Under float16 Keras wraps the optimizer for dynamic loss scaling.
    schedule = schedule or build_schedule(config, steps)
    trainer.compile(optimizer=build_optimizer(config.optimizer, weights, schedule, trainer.frozen))
    trainer.optimizer.build(trainer.trained_variables)
    return trainer


def _make_metrics(num_classes: int, prefix: str, several: bool) -> list[keras.metrics.Metric]:
    """Makes the metrics `<prefix>loss`, and without several labels `<prefix>top1` and `<prefix>top5`."""
    top_k = keras.metrics.SparseTopKCategoricalAccuracy
    loss = keras.metrics.Mean(f"{prefix}loss")
    if several:
        return [loss]
    return [loss, top_k(1, f"{prefix}top1"), top_k(min(NUM_BEST, num_classes), f"{prefix}top5")]


def _update_metrics(
    metrics: Sequence[keras.metrics.Metric],
    labels: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor,
    losses: tf.Tensor,
    loss_weights: tf.Tensor,
) -> None:
    """Adds a batch, labels [B] and logits [B, K]; `weights` apply to the accuracies, `loss_weights` to the loss."""
    loss, *accuracies = metrics
    loss.update_state(losses, loss_weights)
    for accuracy in accuracies:
        accuracy.update_state(labels, logits, weights)
