"""Test a model on all views of every validation video, from the configuration to the report."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import tensorflow as tf

from vswin import __version__
from vswin.build import build_model, check_weights, load_weights, read_class_names
from vswin.checks import check_divides
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, hash_videos, load_catalog
from vswin.data.frames import FrameLoader, open_store
from vswin.data.stores import VideoStore
from vswin.errors import InputError
from vswin.evaluation.highlights import read_samples
from vswin.evaluation.metrics import Metrics, compute_metrics
from vswin.evaluation.predict import predict_videos
from vswin.evaluation.published import compare
from vswin.evaluation.report import BAD_VIDEOS_NAME, Result, print_report, set_report_aside, write_report
from vswin.evaluation.results import append_result
from vswin.evaluation.tensorboard_report import has_log, log_to_tensorboard
from vswin.file_lock import file_lock_if_possible
from vswin.report.run import report_or_say_why
from vswin.runs.environment import describe_session
from vswin.runtime import (
    console,
    default_output_dir,
    describe_devices,
    logger,
    make_strategy,
    set_precision,
    start_log,
)
from vswin.schema import EvaluateConfig
from vswin.weights.checkpoint import Checkpoint, open_weights
from vswin.wording import count_of
from vswin.workers import Workers
from vswin.zoo import configured_size, count_macs, count_parameters

_NUM_NAMED = 5
_WITH_SPLITS = ("ucf101", "hmdb51")


def run_evaluation(config: EvaluateConfig, command: Sequence[str] = ()) -> Metrics:
    """Measures a model on every validation video, each once, and reports what it found.

    Args:
        config: The evaluation, checked. Into `output_dir` go `metrics.json`, `predictions.csv`,
            `per_class.csv`, `confusion_matrix.png`, `report.html` with its plots and, if videos are bad and may be,
            `evaluation_bad_videos.csv`; those of an earlier evaluation are set aside.
        command: The command line behind it, as in `sys.orig_argv`, which is recorded.

    Returns:
        The summary figures.

    Raises:
        InputError: If there are no weights, weights and data set do not belong together, or a video cannot be
            decoded and `allow_bad_videos` is false.
    """
    start_log(None)
    # First of all: what TensorFlow computes before it knows the other workers, it computes without them.
    strategy = make_strategy(config.runtime.strategy)
    workers = Workers(strategy)
    with workers.errors_explained():
        return _evaluate(config, strategy, workers, command)


def _evaluate(
    config: EvaluateConfig, strategy: tf.distribute.Strategy, workers: Workers, command: Sequence[str]
) -> Metrics:
    """Does what `run_evaluation` says, on this worker's devices."""
    if config.wandb:
        # Seconds that only those who use it should wait.
        from vswin.evaluation.wandb_report import check_wandb

        check_wandb(config)
    set_precision(config.runtime.precision)
    batch_size = config.batch_size or strategy.num_replicas_in_sync
    check_divides(batch_size, strategy.num_replicas_in_sync)
    if config.init_from is not None:
        check_weights(config.init_from)
    catalog = load_catalog(config.dataset)
    checkpoint = _open_checkpoint(config, catalog.class_names)
    with strategy.scope():
        model = build_model(configured_size(config.model), len(catalog.class_names))
        loaded = "none: every weight is random (init_from=null)"
        if checkpoint is not None:
            loaded = str(load_weights(model, checkpoint, reset_head=False, resize_bias=config.model.resize_bias))
    folder = Path(workers.chief_says(lambda: str(_make_folder(config))))
    start_log(None, is_shown=workers.is_chief)
    # The hash of the weights is taken now: a training run may replace them meanwhile.
    protocol, session = _describe_protocol(config, checkpoint, catalog), describe_session(command)
    logger.info(_describe_cost(config, catalog, loaded, batch_size, describe_devices(strategy), folder))

    bad = BadVideos()
    # Every video is read once, so a cache would only cost.
    store = open_store(config.dataset, catalog.store)
    frames = FrameLoader(config.dataset.decoder, config.dataset.clip_timeout_sec, store=store)
    labels = np.array([record.label for record in catalog.val])
    num_views = config.clip.num_clips * config.clip.num_crops
    with closing(frames):
        predictions = predict_videos(model, strategy, catalog.val, config, batch_size, bad, frames, workers)
        result = Result(
            paths=[record.path for record in catalog.val],
            labels=labels,
            ranked=predictions.ranked,
            probabilities=predictions.probabilities,
            class_names=catalog.class_names,
            metrics=compute_metrics(predictions.ranked, labels, predictions.view_hits, num_views),
        )
        protocol |= {"decoder": _count_decoders(frames, workers), "short_sides": frames.count_short_sides()}
        if workers.is_chief:
            _report(config, result, protocol, session, folder)
            # The videos of its clips are opened once more.
            logger.info(report_or_say_why(folder, frames))
            _log(config, result, store, 0 if checkpoint is None else checkpoint.metadata.get("epoch", 0))
    if len(bad) > 0:
        bad.write(workers.own_file(folder / BAD_VIDEOS_NAME))
    workers.wait()
    return result.metrics


def _report(
    config: EvaluateConfig, result: Result, protocol: dict[str, object], session: dict[str, object], folder: Path
) -> None:
    """Prints and writes what was found."""
    weights, num_videos = config.init_from or "a random model", len(result.labels)
    comparison = compare(weights, config.dataset.name, config.clip, config.average, num_videos)
    print_report(console, result, comparison)
    try:
        # Another evaluation of the same run may end at the same moment.
        with file_lock_if_possible(folder / ".report.lock"):
            set_report_aside(folder)
            write_report(folder, result, comparison, protocol, session)
    except OSError as error:
        # Hours of work must not hang on one folder.
        elsewhere = Path(tempfile.mkdtemp(prefix="vswin_report_"))
        write_report(elsewhere, result, comparison, protocol, session)
        raise InputError(
            f"the evaluation is complete, but its report cannot be written into {folder} ({error.strerror}); it is in "
            f"{elsewhere}"
        ) from error
    logger.info(f"figures: {folder}")
    if config.results_dir is not None:
        append_result(Path(config.results_dir), result.metrics, comparison, protocol, folder)
        logger.info(f"table: {Path(config.results_dir) / 'results.md'}")


def _log(config: EvaluateConfig, result: Result, store: VideoStore, epoch: int) -> None:
    """Adds what was found, of the weights of an epoch, to the logs of the training run behind them."""
    has_tensorboard = config.tensorboard and has_log(config)
    if not (has_tensorboard or config.wandb):
        return
    samples = list(read_samples(result, store))
    if has_tensorboard:
        log_to_tensorboard(config, result, samples, epoch)
    if config.wandb:
        from vswin.evaluation.wandb_report import log_to_wandb

        log_to_wandb(config, result, samples)


def _count_decoders(frames: FrameLoader, workers: Workers) -> dict[str, object]:
    """Says which decoder was configured, and how many videos each has read, on all workers together."""
    decoders = frames.describe_decoders()
    for entry in decoders.values():
        if isinstance(entry, dict):
            entry["videos"] = workers.sum(entry["videos"])
    return decoders


def _open_checkpoint(config: EvaluateConfig, class_names: Sequence[str]) -> Checkpoint | None:
    """Opens the weights and compares their classes with those of the data; None for random weights."""
    if config.init_from is None:
        return None
    checkpoint = open_weights(config.init_from, config.source)
    trained = read_class_names(config.init_from, checkpoint)
    _check_class_names(config.init_from, checkpoint.network.num_classes, trained, class_names)
    return checkpoint


def _check_class_names(
    weights: str, num_trained: int | None, trained: Sequence[str] | None, given: Sequence[str]
) -> None:
    """Compares the classes that weights were trained for with those of the data set, in order.

    Classes that are plain numbers, as a list without names gives them, say nothing about order.
    """
    if num_trained is None:
        raise InputError(
            f"{weights} has no head, so there is nothing to evaluate; fine-tune it first "
            f"(train.py init_from={weights}), or give weights with a classifier"
        )
    num_named = num_trained if trained is None else len(trained)
    if not num_trained == num_named == len(given):
        raise InputError(
            f"{weights} was trained for {count_of(num_named, 'class')}, the data set has {len(given)}; evaluate on "
            "the data set it was trained for, or fine-tune it on this one first (train.py init_from=...)"
        )
    if trained is None:
        return
    numbers = [str(label) for label in range(len(given))]
    differing = [label for label in range(len(given)) if trained[label] != given[label]]
    if differing and numbers not in (list(trained), list(given)):
        pairs = [f"class {label} is {trained[label]!r}, here {given[label]!r}" for label in differing[:_NUM_NAMED]]
        more = ", ..." if len(differing) > _NUM_NAMED else ""
        raise InputError(
            f"{weights} was trained for other classes, or in another order ({len(differing)} of {len(given)} "
            f"differ): {'; '.join(pairs)}{more}. Evaluate on the data set it was trained for, or bring the "
            "classes of this one into its order"
        )


def _make_folder(config: EvaluateConfig) -> Path:
    """Makes the folder of the report, before hours of work depend on it."""
    folder = Path(config.output_dir or default_output_dir(config.model.name, config.dataset.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir={folder} cannot be made ({error.strerror}); name another one") from error
    return folder


def _describe_cost(
    config: EvaluateConfig, catalog: Catalog, weights: str, batch_size: int, devices: str, folder: Path
) -> list[str]:
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
        "data": f"{config.dataset.name}, {count_of(num_videos, 'validation video')}, {count_of(num_classes, 'class')}",
        "protocol": f"{count_of(clip.num_clips, 'clip')} x {count_of(clip.num_crops, 'crop')}, "
        f"{count_of(clip.num_frames, 'frame')}, {clip.sampling}{stride}, short side {clip.resize}, "
        f"{clip.crop} x {clip.crop} px",
        "cost": f"{count_of(num_videos * num_views, 'view')}, {num_videos * num_views * macs / 1e12:.2f} TMACs",
        "batch": f"{count_of(batch_size, 'video')}, {count_of(clip.views_per_step, 'view')} per step",
        "precision": config.runtime.precision,
        "devices": devices,
        "output": str(folder),
    }
    return [f"{name + ':':<16}{text}" for name, text in rows.items()]


def _describe_protocol(config: EvaluateConfig, checkpoint: Checkpoint | None, catalog: Catalog) -> dict[str, object]:
    """Collects everything that decides the figures, as values JSON knows."""
    clip = dataclasses.asdict(config.clip)
    del clip["views_per_step"]
    weights: dict[str, object] = {"init_from": config.init_from}
    if checkpoint is not None:
        weights |= {"file": str(checkpoint.path), "dialect": checkpoint.dialect, "sha256": _hash(checkpoint.path)}
    return {
        **clip,
        "average": config.average,
        "frame_rate": "as in the file",
        "precision": config.runtime.precision,
        "model": config.model.name,
        "weights": weights,
        "dataset": {
            "name": config.dataset.name,
            "root": config.dataset.root,
            "split": config.dataset.split if config.dataset.name in _WITH_SPLITS else None,
            "num_videos": len(catalog.val),
            "num_missing": len(catalog.missing_val),
            "list_hash": hash_videos(catalog.val, catalog.class_names),
        },
        "vswin": __version__,
        "tensorflow": tf.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _hash(path: Path) -> str:
    """Hashes a file, or the files of a SavedModel folder in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
