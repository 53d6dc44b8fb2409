"""Tests a model on all views of every tested video, from the configuration to the report."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vswin.atomic import locked, sync_folder
from vswin.cluster import Workers
from vswin.config.schema import SINGLE_LABEL, EvaluateConfig
from vswin.console import count_of, say
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader, open_store
from vswin.data.samples import TEST, VAL, multi_hot
from vswin.errors import InputError
from vswin.evaluation.loggers import check_wandb, has_log, log_to_tensorboard, log_to_wandb, read_samples
from vswin.evaluation.multi_label import MultiLabelResult
from vswin.evaluation.protocol import describe_protocol, load_tested
from vswin.evaluation.published import compare
from vswin.evaluation.report import (
    BAD_VIDEOS_NAME,
    Result,
    append_result,
    print_report,
    set_report_aside,
    write_report,
)
from vswin.evaluation.views import predict_videos
from vswin.models.zoo import configured_size, count_macs, count_parameters
from vswin.runs.environment import describe_session
from vswin.runs.figures import describe_seen, describe_views
from vswin.runs.metrics import Metrics, compute_metrics
from vswin.runs.multi_label import USUAL_THRESHOLD, MultiLabelMetrics, compute_multi_label
from vswin.runs.report import report_or_say_why
from vswin.runs.setup import make_model, set_up
from vswin.runtime import (
    console,
    default_output_dir,
    describe_devices,
    exit_at_once,
    logger,
    signals_taken,
    start_log,
)
from vswin.weights.build import check_weights
from vswin.weights.checkpoint import Checkpoint, open_weights

_NUM_NAMED = 5


def run_evaluation(config: EvaluateConfig, command: Sequence[str] = ()) -> Metrics | MultiLabelMetrics:
    """Tests a model on every video once and reports the results.

    It writes `metrics.json`, `predictions.csv`, `per_class.csv`, `confusion_matrix.png` (with several labels per sample
    `scores.csv`), `report.html` with its plots and, if bad videos are allowed and found, `evaluation_bad_videos.csv`
    into `output_dir`, and sets the files of an earlier report aside. `command` is the command line, as in
    `sys.orig_argv`, for the record.

    Raises:
        InputError: if there are no weights, weights and data set do not belong together, or a video cannot be
            decoded and `allow_bad_videos` is false.
    """
    start_log(None)
    strategy = set_up(config)
    workers = Workers(strategy)
    is_writing = threading.Event()

    def end(number: int) -> None:
        # Writing takes only a moment, and the evaluation ends after it anyway.
        if not is_writing.is_set():
            os.write(2, b"\nended by SIGTERM; nothing was written, since all results are written at the end\n")
            exit_at_once(number)

    with workers.errors_explained(), signals_taken([signal.SIGTERM], end):
        check_wandb(config)
        return _evaluate(config, strategy, workers, command, is_writing)


def _evaluate(
    config: EvaluateConfig,
    strategy: tf.distribute.Strategy,
    workers: Workers,
    command: Sequence[str],
    is_writing: threading.Event,
) -> Metrics | MultiLabelMetrics:
    """Runs the evaluation on this worker's devices."""
    batch_size = config.batch_size or strategy.num_replicas_in_sync
    if config.init_from is not None:
        check_weights(config.init_from)
    catalog = load_tested(config)
    checkpoint = None
    if config.init_from is not None:
        checkpoint = open_weights(config.init_from, config.source)
        catalog = _match_classes(config.init_from, checkpoint, catalog, config.dataset.task)
    with strategy.scope():
        model, report = make_model(config, len(catalog.class_names), checkpoint)
    folder = Path(workers.chief_says(lambda: str(_make_folder(config))))
    start_log(None, is_shown=workers.is_chief)
    # Hash the weights now: a training run may replace them meanwhile.
    protocol = describe_protocol(config, checkpoint, catalog) | {"tensorflow": tf.__version__}
    session = describe_session(command)
    given = None if checkpoint is None else checkpoint.metadata.get("thresholds")
    known = "0.5 for each class, as the weights bring none" if given is None else "of each class, chosen on validation"
    logger.info(_describe_cost(config, catalog, str(report), batch_size, describe_devices(strategy), folder, known))

    bad = BadVideos()
    # Every video is read once, so a cache would not help.
    store = open_store(config.dataset, catalog.store)
    frames = FrameLoader(config.dataset.decoder, config.dataset.clip_timeout_sec, store=store)
    thresholds = np.array(given or [USUAL_THRESHOLD] * len(catalog.class_names))
    if config.dataset.is_multi_label:
        targets = multi_hot(catalog.tested, len(catalog.class_names))
        if not targets.any():
            raise InputError(f"none of the {count_of(len(targets), 'tested video')} has a label; there is no mAP")
    with closing(frames):
        probabilities, view_hits = predict_videos(
            model, strategy, catalog.tested, config, batch_size, bad, frames, workers
        )
        paths, names = [sample.name for sample in catalog.tested], catalog.class_names
        result: Result | MultiLabelResult
        if config.dataset.is_multi_label:
            figures = compute_multi_label(targets, probabilities, thresholds)
            result = MultiLabelResult(paths, targets, probabilities, thresholds, names, figures)
        else:
            labels = np.array([sample.label for sample in catalog.tested])
            num_views = config.clip.num_clips * config.clip.num_crops
            metrics = compute_metrics(probabilities, labels, view_hits, num_views)
            result = Result(paths, labels, probabilities, names, metrics)
        # The configured decoder, and how many videos of which sizes each decoder has read, summed over all workers.
        decoders = frames.describe_decoders()
        for entry in decoders.values():
            if isinstance(entry, dict):
                entry["videos"] = workers.sum(entry["videos"])
        short_sides = frames.count_short_sides(lambda counts: workers.gather(counts[np.newaxis]).sum(axis=0))
        protocol |= {"decoder": decoders, "short_sides": short_sides}
        is_writing.set()
        if workers.is_chief:
            _report(config, result, protocol, session, bad, folder)
            # The report opens some videos again for its clips.
            logger.info(report_or_say_why(folder, frames))
            has_tensorboard = config.tensorboard and has_log(config)
            samples = list(read_samples(result, store)) if has_tensorboard or config.wandb else []
            if has_tensorboard:
                epoch = 0 if checkpoint is None else checkpoint.metadata.get("epoch", 0)
                log_to_tensorboard(config, result, samples, epoch)
            if config.wandb:
                log_to_wandb(config, result, samples)
    # Wait until the chief has set the files of an earlier evaluation aside.
    workers.wait()
    if len(bad) > 0 and not workers.is_chief:
        bad.write(workers.own_file(folder / BAD_VIDEOS_NAME))
    workers.wait()
    return result.metrics


def _report(
    config: EvaluateConfig,
    result: Result | MultiLabelResult,
    protocol: dict[str, Any],
    session: dict[str, object],
    bad: BadVideos,
    folder: Path,
) -> None:
    """Prints and writes the results."""
    weights, num_videos = config.init_from or "a random model", len(result.paths)
    comparison = compare(weights, config.dataset.name, config.clip, config.average, num_videos)
    print_report(console, result, comparison)
    if seen := describe_seen(protocol["dataset"]):
        say(console, seen)
    try:
        # Another evaluation of the same run may end at the same moment.
        with locked(folder / ".report.lock", is_optional=True):
            # On a full disk nothing of this report stays, and the earlier report does.
            with tempfile.TemporaryDirectory(prefix=".evaluation-", dir=folder, ignore_cleanup_errors=True) as name:
                write_report(Path(name), result, comparison, protocol, session, bad)
                set_report_aside(folder)
                for path in sorted(Path(name).iterdir(), key=lambda path: path.name == "metrics.json"):
                    os.replace(path, folder / path.name)
            sync_folder(folder)
    except OSError as error:
        # Hours of work must not depend on one folder.
        elsewhere = Path(tempfile.mkdtemp(prefix="vswin_report_"))
        write_report(elsewhere, result, comparison, protocol, session, bad)
        raise InputError(
            f"the evaluation is complete, but its report cannot be written into {folder} ({error.strerror}); it is in "
            f"{elsewhere}"
        ) from error
    logger.info(f"figures: {folder}")
    if config.results_dir is not None:
        append_result(Path(config.results_dir), result.metrics, comparison, protocol, folder)
        logger.info(f"table: {Path(config.results_dir) / 'results.md'}")


def _match_classes(weights: str, checkpoint: Checkpoint, catalog: Catalog, task: str) -> Catalog:
    """Maps the labels of the videos to the classes of the weights; some classes may then have no videos."""
    if (trained_task := checkpoint.metadata.get("task", SINGLE_LABEL)) != task:
        raise InputError(
            f"{weights} was trained with dataset.task={trained_task}, and the videos are given with "
            f"dataset.task={task}; set dataset.task={trained_task}, or name other weights"
        )
    trained, num_trained = checkpoint.metadata.get("class_names"), checkpoint.network.num_classes
    if num_trained is None:
        raise InputError(
            f"{weights} has no head, so there is nothing to evaluate; fine-tune it first "
            f"(train.py init_from={weights}), or give weights with a classifier"
        )
    given, numbers = list(catalog.class_names), [str(label) for label in range(num_trained)]
    known = numbers if trained is None else trained
    if len(given) < len(known) == num_trained and (set(given) <= set(known) or given == numbers[: len(given)]):
        trained_labels = [known.index(name) if name in known else label for label, name in enumerate(given)]
        val, test = (
            [video._replace(labels=tuple(sorted(trained_labels[label] for label in video.labels))) for video in videos]
            for videos in (catalog.val, catalog.test)
        )
        return dataclasses.replace(catalog, class_names=tuple(known), train=[], val=val, test=test)
    if not num_trained == len(known) == len(given):
        raise InputError(
            f"{weights} was trained for {count_of(len(known), 'class')}, the data set has {len(given)}; evaluate on "
            "the data set it was trained for, or fine-tune it on this one first (train.py init_from=...)"
        )
    differing = [label for label in range(len(given)) if known[label] != given[label]]
    # Plain numbers come from a list without names and say nothing about the order.
    if differing and numbers not in (known, given):
        pairs = [f"class {label} is {known[label]!r}, here {given[label]!r}" for label in differing[:_NUM_NAMED]]
        more = ", ..." if len(differing) > _NUM_NAMED else ""
        raise InputError(
            f"{weights} was trained for other classes, or in another order ({len(differing)} of {len(given)} "
            f"differ): {'; '.join(pairs)}{more}. Evaluate on the data set it was trained for, or bring the "
            "classes of this one into its order"
        )
    return catalog


def _make_folder(config: EvaluateConfig) -> Path:
    """Creates the folder of the report, before hours of work depend on it."""
    folder = Path(config.output_dir or default_output_dir(config.model.name, config.dataset.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir={folder} cannot be made ({error.strerror}); name another one") from error
    return folder


def _describe_cost(
    config: EvaluateConfig,
    catalog: Catalog,
    weights: str,
    batch_size: int,
    devices: str,
    folder: Path,
    thresholds: str,
) -> list[str]:
    """Describes the evaluation and its cost, a line per fact."""
    clip, size = config.clip, configured_size(config.model)
    num_classes, num_videos = len(catalog.class_names), len(catalog.tested)
    macs = count_macs(size, clip.num_frames, clip.crop, clip.crop)
    num_views, role = clip.num_clips * clip.num_crops, "test video" if catalog.test else "validation video"
    num_missing = len(catalog.missing.get(TEST if catalog.test else VAL, ()))
    rows = {
        "model": f"{config.model.name}, {count_parameters(size, num_classes) / 1e6:.2f} M parameters, "
        f"{macs / 1e9:.2f} GMACs per view",
        "weights": weights,
        "data": f"{config.dataset.shown_name}, {count_of(num_videos, role)}, {count_of(num_classes, 'class')}"
        + (f"; {num_missing:,} of the list are missing" if num_missing else "")
        + "".join(f"\n{' ' * 16}{note}" for note in catalog.notes),
        "protocol": ", ".join(describe_views(vars(clip)).values()),
        "cost": f"{count_of(num_videos * num_views, 'view')}, {num_videos * num_views * macs / 1e12:.2f} TMACs",
        "batch": f"{count_of(batch_size, 'video')}, {count_of(clip.views_per_step, 'view')} per step",
        **({"thresholds": thresholds} if config.dataset.is_multi_label else {}),
        "precision": config.runtime.precision,
        "devices": devices,
        "output": str(folder),
    }
    return [f"{name + ':':<16}{text}" for name, text in rows.items()]
