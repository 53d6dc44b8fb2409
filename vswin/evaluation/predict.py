"""Predict every video once, on all devices of a strategy; called by `vswin.evaluation.run`."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from vswin.config import EvaluateConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.frames import FrameLoader
from vswin.data.pipeline import Share, make_eval_dataset
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.evaluation.metrics import NO_PREDICTION, NUM_BEST, rank_classes
from vswin.evaluation.views import average_views
from vswin.models.video_swin import VideoSwin
from vswin.runtime import console, format_seconds, logger, make_progress_bar

SECONDS_BETWEEN_LINES = 10.0
_NUM_NAMED = 5

# `indices` and `labels` int32 [B], `probabilities` float32 [B, K]
Predictions: TypeAlias = Mapping[str, np.ndarray]


def predict_videos(
    model: VideoSwin,
    strategy: tf.distribute.Strategy,
    records: Sequence[VideoRecord],
    config: EvaluateConfig,
    batch_size: int,
    bad: BadVideos,
    frames: FrameLoader,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts every video once.

    Args:
        model: built in the scope of `strategy`.
        strategy: the devices.
        records: N videos.
        config: the protocol, and whether videos may be bad.
        batch_size: videos of a global batch; the devices divide it.
        bad: collects the videos that cannot be decoded.
        frames: reads them.

    Returns:
        The best classes, int64 [N, min(5, K)], best first, and their probabilities, float32; -1 and NaN for a
        video that cannot be decoded.

    Raises:
        InputError: if a video cannot be decoded and may not be bad, or the model gives NaN.
    """
    num_best = min(NUM_BEST, model.num_classes)
    ranked = np.full((len(records), num_best), NO_PREDICTION)
    probabilities = np.full((len(records), num_best), np.nan, np.float32)
    times_seen = np.zeros(len(records), int)
    share = Share(num_replicas=strategy.num_replicas_in_sync)
    batches = strategy.distribute_datasets_from_function(
        lambda _: make_eval_dataset(records, config.clip, batch_size, bad, share, frames)
    )
    predictions = _predict_batches(model, strategy, batches, config.clip.views_per_step)
    with closing(_show_progress(predictions, len(records))) as shown:
        for batch in shown:
            if len(bad) > 0 and not config.allow_bad_videos:
                raise InputError(_describe_bad(bad))
            # Padding has index -1, a video that could not be decoded label -1.
            is_video = batch["indices"] >= 0
            is_decoded = is_video & (batch["labels"] >= 0)
            times_seen[batch["indices"][is_video]] += 1
            decoded, rows = batch["indices"][is_decoded], batch["probabilities"][is_decoded]
            _check_finite(rows, records, decoded)
            ranked[decoded] = rank_classes(rows, num_best)
            probabilities[decoded] = np.take_along_axis(rows, ranked[decoded], axis=1)  # [n, min(5, K)]
    assert (times_seen == 1).all(), "every video must be counted once"
    return ranked, probabilities


def _predict_batches(
    model: VideoSwin, strategy: tf.distribute.Strategy, batches: Iterable, views_per_step: int
) -> Iterator[Predictions]:
    """Predicts global batches in order; each device averages over the views of its share of the videos."""

    def predict_share(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rows = average_views(lambda clips: model(clips, training=False), batch["views"], views_per_step)
        return {"indices": batch["indices"], "labels": batch["labels"], "probabilities": rows}

    @tf.function
    def predict_batch(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return strategy.run(predict_share, args=(batch,))

    for batch in batches:
        results = predict_batch(batch)
        shares = {key: strategy.experimental_local_results(values) for key, values in results.items()}
        yield {key: np.concatenate([share.numpy() for share in values]) for key, values in shares.items()}  # [B, ...]


def _check_finite(probabilities: np.ndarray, records: Sequence[VideoRecord], indices: np.ndarray) -> None:
    is_broken = ~np.isfinite(probabilities).all(axis=1)
    if is_broken.any():
        raise InputError(
            f"the model gives NaN for {records[indices[is_broken][0]].path}: its weights are broken, or the "
            "precision does not hold its values; try runtime.precision=float32"
        )


def _show_progress(batches: Iterable[Predictions], num_videos: int) -> Generator[Predictions, None, None]:
    """Passes batches on while it moves a bar on a terminal, or else prints a line now and then."""
    started = last_line = time.perf_counter()
    done = 0
    with make_progress_bar("videos") as bar:
        task = bar.add_task("evaluation", total=num_videos, note="")
        for batch in batches:
            yield batch
            done += int(np.sum(batch["indices"] >= 0))
            now = time.perf_counter()
            speed = done / (now - started)
            bar.update(task, completed=done, note=f"{speed:.1f} videos/s")
            if not console.is_terminal and now - last_line > SECONDS_BETWEEN_LINES:
                last_line = now
                left = format_seconds((num_videos - done) / speed)
                logger.info(f"{done:,} of {num_videos:,} videos  {speed:.1f} videos/s  {left} left")
    logger.info(f"{num_videos:,} videos in {format_seconds(time.perf_counter() - started)}")


def _describe_bad(bad: BadVideos) -> str:
    lines = [f"\n  {path}: {cause}" for path, cause, _ in bad.rows()[:_NUM_NAMED]]
    more = f"\n  and {len(bad) - _NUM_NAMED} more" if len(bad) > _NUM_NAMED else ""
    return (
        f"{len(bad)} of the videos read so far cannot be decoded:{''.join(lines)}{more}\n"
        "Repair or replace them, or set allow_bad_videos=true to count such videos as wrong"
    )
