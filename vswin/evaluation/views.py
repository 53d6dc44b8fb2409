"""Predicts every video once, averaged over its views, on all devices of a strategy."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from vswin.cluster import Workers
from vswin.config.schema import EvaluateConfig
from vswin.console import count_of, make_progress_bar
from vswin.data.bad_videos import BadVideos
from vswin.data.frames import FrameLoader
from vswin.data.order import Shard
from vswin.data.pipeline import make_eval_dataset
from vswin.data.samples import Sample
from vswin.errors import InputError, is_out_of_memory
from vswin.models.video_swin import VideoSwin
from vswin.runs.metrics import NUM_BEST
from vswin.runtime import console, format_seconds, logger

SECONDS_BETWEEN_LINES = 10.0
_NUM_NAMED = 5

# `indices` int32 [B], -1 for padding, and the results of each video: in an evaluation `labels` int32 [B],
# `probabilities` float32 [B, K], `view_hits` int32 [B, 2]
BatchPredictions: TypeAlias = Mapping[str, np.ndarray]
Batch: TypeAlias = dict[str, tf.Tensor]


def predict_videos(
    model: VideoSwin,
    strategy: tf.distribute.Strategy,
    samples: Sequence[Sample],
    config: EvaluateConfig,
    batch_size: int,
    bad: BadVideos,
    frames: FrameLoader,
    workers: Workers,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts each of N videos once.

    `batch_size` is the number of videos in a global batch, a multiple of the devices of `strategy`, in whose scope the
    model was built. Each worker predicts a part of the videos and gets all predictions; `bad` collects bad videos.

    Returns:
        In the order of the samples: the probabilities of all classes, float32 [N, K], NaN for a video that cannot be
        decoded; and the number of views with the label as best class, and among their best five classes, int64 [N, 2].

    Raises:
        InputError: if a video is bad and bad videos are not allowed, the model gives NaN, or memory runs out.
    """
    probabilities = np.full((len(samples), model.num_classes), np.nan, np.float32)
    view_hits = np.zeros((len(samples), 2), int)
    times_seen = np.zeros(len(samples), int)
    batches = strategy.distribute_datasets_from_function(
        lambda context: make_eval_dataset(samples, config.clip, batch_size, bad, Shard.of(context), frames)
    )
    predictions = predict_batches(model, strategy, batches, config)
    with closing(show_progress(predictions, len(samples), "evaluation")) as shown:
        for local in shown:
            batch = {key: workers.gather(values) for key, values in local.items()}
            if len(bad) > 0 and not config.allow_bad_videos:
                raise InputError(_describe_bad(bad))
            # Padding has index -1; a video that could not be decoded has label -1.
            is_video = batch["indices"] >= 0
            is_decoded = is_video & (batch["labels"] >= 0)
            times_seen[batch["indices"][is_video]] += 1
            decoded, rows = batch["indices"][is_decoded], batch["probabilities"][is_decoded]
            check_finite(rows, [samples[index].name for index in decoded])
            probabilities[decoded] = rows
            view_hits[decoded] = batch["view_hits"][is_decoded]
    assert (times_seen == 1).all(), "every video must be counted once"
    return probabilities, view_hits


def predict_batches(
    model: VideoSwin, strategy: tf.distribute.Strategy, batches: Iterable, config: EvaluateConfig
) -> Iterator[BatchPredictions]:
    """Predicts the distributed batches of `make_eval_dataset` in order; see `map_batches`."""

    def predict_part(batch: Batch) -> Batch:
        logits = view_logits(
            lambda clips: model(clips, training=False), batch["views"], config.clip.views_per_step
        )  # [B, V, K]
        return {
            "indices": batch["indices"],
            "labels": batch["labels"],
            "probabilities": average_views(logits, config.average, config.dataset.is_multi_label),
            "view_hits": count_view_hits(logits, batch["labels"]),
        }

    return map_batches(predict_part, strategy, batches, config.clip.views_per_step)


def map_batches(
    compute: Callable[[Batch], Batch], strategy: tf.distribute.Strategy, batches: Iterable, views_per_step: int
) -> Iterator[BatchPredictions]:
    """Applies `compute` to distributed batches in order; each device computes tensors [B, ...] by name from its part.

    Yields:
        The results of this worker's devices for a batch.

    Raises:
        InputError: if memory runs out; it names `views_per_step`.
    """

    @tf.function(autograph=False)
    def compute_batch(batch: Batch) -> Batch:
        return strategy.run(compute, args=(batch,))

    for batch in batches:
        try:
            results = compute_batch(batch)
        except tf.errors.ResourceExhaustedError as error:
            if not is_out_of_memory(error):
                raise
            fewer = max(views_per_step // 2, 1)
            raise InputError(
                f"out of memory: clip.views_per_step={count_of(views_per_step, 'view')} at once on each device; take "
                f"clip.views_per_step={fewer}, which leaves every figure as it is, or a smaller batch_size"
            ) from error
        parts = {key: strategy.experimental_local_results(values) for key, values in results.items()}
        yield {key: np.concatenate([part.numpy() for part in values]) for key, values in parts.items()}  # [B, ...]


def view_logits(model_fn: Callable[[tf.Tensor], tf.Tensor], views: tf.Tensor, views_per_step: int) -> tf.Tensor:
    """Computes the logits of every view, float32 [B, V, K], a few views at a time.

    The views of all videos form one row, which is cut into steps of equal size (black clips fill the last one), so the
    model is traced for one shape and holds the activations of one step only.

    Args:
        model_fn: Maps clips [n, T, H, W, 3] of the dtype of `views` to logits float [n, K].
        views: uint8 [B, V, T, H, W, 3] with static B and V.
        views_per_step: Clips in one call of `model_fn`, >= 1; more than B * V counts as B * V.
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


def average_views(logits: tf.Tensor, average: str, several: bool = False) -> tf.Tensor:
    """Averages logits, float32 [B, V, K], over the views of each video to probabilities, float32 [B, K].

    "prob" averages class probabilities, as published; "score" averages logits and then applies softmax. If a video may
    have `several` labels, each class has a sigmoid of its own instead.

    Source: Video-Swin-Transformer mmaction/models/recognizers/base.py, BaseRecognizer.average_clip.
    """
    activate = tf.sigmoid if several else tf.nn.softmax
    if average == "score":
        return activate(tf.reduce_mean(logits, axis=1))  # [B, K]
    return tf.reduce_mean(activate(logits), axis=1)  # [B, K]


def count_view_hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Counts the views whose best class, and whose best min(5, K) classes, hold the label, int32 [B, 2].

    Logits are float32 [B, V, K], labels int32 [B]; a video without a label, -1, has no hits.
    """
    best = tf.math.top_k(logits, min(NUM_BEST, logits.shape[-1])).indices  # [B, V, min(5, K)]
    is_label = tf.cast(best == labels[:, tf.newaxis, tf.newaxis], tf.int32)  # [B, V, min(5, K)]
    return tf.stack([tf.reduce_sum(is_label[..., :1], [1, 2]), tf.reduce_sum(is_label, [1, 2])], axis=1)  # [B, 2]


def check_finite(values: np.ndarray, paths: Sequence[str]) -> None:
    """Checks the outputs of a model for n videos, float32 [n, ...].

    Raises:
        InputError: if a value is NaN or infinite; names the first such video.
    """
    is_broken = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))  # [n]
    if is_broken.any():
        raise InputError(
            f"the model gives NaN for {paths[int(np.argmax(is_broken))]}: its weights are broken, or the "
            "precision does not hold its values; try runtime.precision=float32"
        )


def show_progress(
    batches: Iterable[BatchPredictions], num_videos: int, task_name: str
) -> Generator[BatchPredictions, None, None]:
    """Passes batches on and moves a progress bar; without a terminal, prints a line now and then."""
    started = last_line = warm_since = time.perf_counter()
    done = num_before = 0
    with make_progress_bar(console, "videos") as bar:
        task = bar.add_task(task_name, total=num_videos, note="")
        for batch in batches:
            yield batch
            done += int(np.sum(batch["indices"] >= 0))
            now = time.perf_counter()
            if num_before == 0:
                # The first batch includes tracing the model, so it does not count in the speed.
                num_before, warm_since, pace, left = done, now, "", ""
            else:
                speed = (done - num_before) / (now - warm_since)
                pace, left = f"  {speed:.1f} videos/s", f"  {format_seconds((num_videos - done) / speed)} left"
            bar.update(task, completed=done, note=pace.strip())
            if not console.is_terminal and now - last_line > SECONDS_BETWEEN_LINES:
                last_line = now
                logger.info(f"{done:,} of {num_videos:,} videos{pace}{left}")
    logger.info(f"{count_of(num_videos, 'video')} in {format_seconds(time.perf_counter() - started)}")


def _describe_bad(bad: BadVideos) -> str:
    lines = [f"\n  {path}: {cause}" for path, cause, _ in bad.rows()[:_NUM_NAMED]]
    more = f"\n  and {len(bad) - _NUM_NAMED} more" if len(bad) > _NUM_NAMED else ""
    return (
        f"{len(bad)} of the videos read so far cannot be decoded ({bad.describe_causes()}). Repair or replace "
        f"them, or set allow_bad_videos=true to count such videos as wrong:{''.join(lines)}{more}"
    )
