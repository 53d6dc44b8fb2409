"""Test a model on all views of every validation video, from the configuration to the report."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from vswin import __version__
from vswin.build import build_model, check_weights, load_weights
from vswin.config import EvaluateConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.pipeline import make_eval_dataset
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.evaluation.metrics import NO_PREDICTION, NUM_BEST, Metrics, compute_metrics, rank_classes
from vswin.evaluation.published import compare
from vswin.evaluation.report import BAD_VIDEOS_NAME, Result, print_report, set_report_aside, write_report
from vswin.evaluation.views import average_views
from vswin.models.video_swin import VideoSwin
from vswin.runtime import (
    console,
    default_output_dir,
    describe_devices,
    format_seconds,
    logger,
    make_progress_bar,
    set_precision,
    start_log,
)
from vswin.weights.files import BEST_CHECKPOINT, read_metadata
from vswin.zoo import configured_size, count_macs, count_parameters

SECONDS_BETWEEN_LINES = 10.0
_NUM_NAMED = 5

Batch: TypeAlias = Mapping[str, tf.Tensor]


def run_evaluation(config: EvaluateConfig) -> Metrics:
    """Measures a model on every validation video, each once, and reports what it found.

    Args:
        config: The evaluation, checked. Into `output_dir` go `metrics.json`, `predictions.csv`,
            `per_class.csv`, `confusion_matrix.png` and, if videos are bad and may be,
            `evaluation_bad_videos.csv`; those of an earlier evaluation are set aside.

    Returns:
        The summary figures.

    Raises:
        InputError: If there are no weights, weights and data set do not belong together, or a video cannot be
            decoded and `allow_bad_videos` is false.
    """
    start_log(None)
    if config.init_from is None:
        raise InputError(
            "init_from=null: random weights are not worth an evaluation; name a training run with run=, or a "
            "checkpoint or a published model with init_from="
        )
    set_precision(config.runtime.precision)
    check_weights(config.init_from)
    catalog = load_catalog(config.dataset)
    _check_class_names(config.init_from, catalog.class_names)
    model = build_model(configured_size(config.model), len(catalog.class_names))
    loaded = load_weights(model, config.init_from, reset_head=False)
    folder = _make_folder(config)
    # The hash of the weights is taken now: a training run may replace them meanwhile.
    protocol = _describe_protocol(config, catalog.val)
    logger.info(_describe_cost(config, catalog, f"{config.init_from}, {loaded}", folder))

    bad = BadVideos()
    labels = np.array([record.label for record in catalog.val])
    ranked, probabilities = _predict(model, catalog.val, config, bad)
    result = Result(
        paths=[record.path for record in catalog.val],
        labels=labels,
        ranked=ranked,
        probabilities=probabilities,
        class_names=catalog.class_names,
        metrics=compute_metrics(ranked, labels),
    )
    comparison = compare(config.init_from, config.dataset.name, config.clip, len(labels))
    set_report_aside(folder)
    write_report(folder, result, comparison, protocol)
    if len(bad) > 0:
        bad.write(folder / BAD_VIDEOS_NAME)
    print_report(console, result, comparison)
    logger.info(f"report: {folder}")
    return result.metrics


def _check_class_names(weights: str, class_names: Sequence[str]) -> None:
    """Compares the classes a checkpoint was trained for with those of the data set, in order.

    Classes that are plain numbers, as a list without names gives them, say nothing about order.
    """
    metadata = read_metadata(weights) if Path(weights).exists() else {}
    if "class_names" not in metadata:
        return
    trained, given = list(metadata["class_names"]), list(class_names)
    if len(trained) != len(given):
        raise InputError(
            f"{weights} was trained for {len(trained)} classes, the data set has {len(given)}; evaluate on "
            "the data set it was trained for, or fine-tune it on this one first (train.py init_from=...)"
        )
    numbers = [str(label) for label in range(len(given))]
    differing = [label for label in range(len(given)) if trained[label] != given[label]]
    if differing and numbers not in (trained, given):
        pairs = [f"class {label} is {trained[label]!r}, here {given[label]!r}" for label in differing[:_NUM_NAMED]]
        more = ", ..." if len(differing) > _NUM_NAMED else ""
        raise InputError(
            f"{weights} was trained for other classes, or in another order ({len(differing)} of {len(given)} "
            f"differ): {'; '.join(pairs)}{more}. Evaluate on the data set it was trained for, or bring the "
            "classes of this one into its order"
        )


def _predict(
    model: VideoSwin, records: Sequence[VideoRecord], config: EvaluateConfig, bad: BadVideos
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts every video once.

    Returns:
        The best classes, int64 [N, min(5, K)], best first, and their probabilities, float32; -1 and NaN for a
        video that cannot be decoded.
    """
    num_best = min(NUM_BEST, model.num_classes)
    ranked = np.full((len(records), num_best), NO_PREDICTION)
    probabilities = np.full((len(records), num_best), np.nan, np.float32)
    times_seen = np.zeros(len(records), int)

    @tf.function
    def predict_step(views: tf.Tensor) -> tf.Tensor:
        return average_views(lambda clips: model(clips, training=False), views, config.clip.views_per_step)

    dataset = make_eval_dataset(records, config.clip, config.batch_size, bad)
    with closing(_show_progress(dataset, len(records))) as batches:
        for batch in batches:
            if len(bad) > 0 and not config.allow_bad_videos:
                raise InputError(_describe_bad(bad))
            # Padding has index -1, a video that could not be decoded label -1.
            is_video = batch["indices"].numpy() >= 0
            is_decoded = is_video & (batch["labels"].numpy() >= 0)
            times_seen[batch["indices"].numpy()[is_video]] += 1
            decoded = batch["indices"].numpy()[is_decoded]
            rows = predict_step(batch["views"]).numpy()[is_decoded]
            _check_finite(rows, records, decoded)
            ranked[decoded] = rank_classes(rows, num_best)
            probabilities[decoded] = np.take_along_axis(rows, ranked[decoded], axis=1)  # [n, min(5, K)]
    assert (times_seen == 1).all(), "every video must be counted once"
    return ranked, probabilities


def _check_finite(probabilities: np.ndarray, records: Sequence[VideoRecord], indices: np.ndarray) -> None:
    is_broken = ~np.isfinite(probabilities).all(axis=1)
    if is_broken.any():
        raise InputError(
            f"the model gives NaN for {records[indices[is_broken][0]].path}: its weights are broken, or the "
            "precision does not hold its values; try runtime.precision=float32"
        )


def _show_progress(batches: Iterable[Batch], num_videos: int) -> Generator[Batch, None, None]:
    """Passes batches on while it moves a bar on a terminal, or else prints a line now and then."""
    started = last_line = time.perf_counter()
    done = 0
    with make_progress_bar("videos") as bar:
        task = bar.add_task("evaluation", total=num_videos, note="")
        for batch in batches:
            yield batch
            done += int(np.sum(batch["indices"].numpy() >= 0))
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


def _make_folder(config: EvaluateConfig) -> Path:
    """Makes the folder of the report, before hours of work depend on it."""
    folder = Path(config.output_dir or default_output_dir(config.model.name, config.dataset.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir={folder} cannot be made ({error.strerror}); name another one") from error
    return folder


def _describe_cost(config: EvaluateConfig, catalog: Catalog, weights: str, folder: Path) -> str:
    """Says what is going to be computed, a line per fact."""
    clip, size = config.clip, configured_size(config.model)
    num_classes, num_videos = len(catalog.class_names), len(catalog.val)
    macs = count_macs(size, clip.num_frames, clip.crop, clip.crop)
    num_views = clip.num_clips * clip.num_crops
    stride = f" with stride {clip.frame_stride}" if clip.sampling == "dense" else ""
    rows = {
        "model": f"{config.model.name}, {count_parameters(size, num_classes) / 1e6:.2f} M parameters, "
        f"{macs / 1e9:.2f} GMACs per view",
        "weights": weights,
        "data": f"{config.dataset.name}, {num_videos:,} validation videos, {num_classes} classes",
        "protocol": f"{clip.num_clips} x {clip.num_crops} views (clips x crops), {clip.num_frames} frames, "
        f"{clip.sampling}{stride}, short side {clip.resize}, {clip.crop} x {clip.crop} px",
        "cost": f"{num_videos * num_views:,} views, {num_videos * num_views * macs / 1e12:.2f} TMACs",
        "batch": f"{config.batch_size} videos, {clip.views_per_step} views per step",
        "precision": config.runtime.precision,
        "devices": describe_devices(),
        "output": str(folder),
    }
    return "\n".join(f"{name + ':':<16}{text}" for name, text in rows.items())


def _describe_protocol(config: EvaluateConfig, records: Sequence[VideoRecord]) -> dict[str, object]:
    """Collects everything that decides the figures, as values JSON knows."""
    assert config.init_from is not None
    checkpoint = Path(config.init_from)
    if checkpoint.is_dir():
        checkpoint /= BEST_CHECKPOINT
    # Relative paths, sorted: the same list has the same hash wherever the videos are.
    lines = sorted(f"{os.path.relpath(path, config.dataset.root)} {label}\n" for path, label in records)
    clip = dataclasses.asdict(config.clip)
    del clip["views_per_step"]
    return {
        **clip,
        "decoder": f"opencv-python-headless {version('opencv-python-headless')}",
        "precision": config.runtime.precision,
        "model": config.model.name,
        "weights": {
            "init_from": config.init_from,
            "file": str(checkpoint),
            "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        },
        "dataset": {
            "name": config.dataset.name,
            "root": config.dataset.root,
            "list_sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        },
        "vswin": __version__,
        "tensorflow": tf.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
