"""The figures of a run that stand in tables, and everything of a comparison as values JSON knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from vswin.compare.differences import Difference
from vswin.compare.pairs import Pair, say_missing, say_pair
from vswin.compare.run_files import Run

_TEST_FIGURES = ("top1", "top1_interval", "top5", "top5_interval", "mean_class_accuracy", "num_videos")


class Figures(NamedTuple):
    """Hold what a training reached; None for what is not known.

    Attributes:
        epochs_done: Epochs in `history.csv`.
        epochs: Epochs that were asked for.
        best_top1: Highest top-1 in validation, of the weights or their average, fraction 0..1.
        best_epoch: Its epoch, counted from 1; of equals the first.
        is_average: Whether the average of the weights reached it (`optimizer.ema_decay`), and they alone did not.
        last_top1: Top-1 of the weights in validation after the last epoch, fraction 0..1.
        clips_per_sec: Median over the epochs of the training clips per second.
    """

    epochs_done: int
    epochs: int | None
    best_top1: float | None
    best_epoch: int | None
    is_average: bool
    last_top1: float | None
    clips_per_sec: float | None


def sum_up(run: Run) -> Figures:
    """Takes the figures of a training from its history."""
    epochs = None if run.config is None else run.config.get("epochs")
    epochs = epochs if isinstance(epochs, int) else None
    if run.history is None:
        return Figures(0, epochs, None, None, False, None, None)
    best: tuple[float, int, bool] | None = None
    for column, is_average in (("val_top1", False), ("val_ema_top1", True)):
        values = run.history.get(column)
        if values is None or np.isnan(values).all():
            continue
        place = int(np.nanargmax(values))
        if best is None or values[place] > best[0]:
            best = float(values[place]), int(run.history["epoch"][place]), is_average
    last, speeds = run.history.get("val_top1"), run.history.get("clips_per_sec")
    return Figures(
        epochs_done=int(run.history["epoch"][-1]),
        epochs=epochs,
        best_top1=best[0] if best else None,
        best_epoch=best[1] if best else None,
        is_average=best[2] if best else False,
        last_top1=None if last is None else float(last[-1]),
        clips_per_sec=None if speeds is None or np.isnan(speeds).all() else float(np.nanmedian(speeds)),
    )


def as_json(
    runs: Sequence[Run], differences: Sequence[Difference], known: Sequence[Difference], pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Gives a whole comparison as values JSON knows; accuracies are fractions, what is not known is null.

    Args:
        runs: The runs.
        differences: What differed in configuration and protocol.
        known: Versions and devices, whether they differ or not.
        pairs: The tests.
    """
    return {
        "runs": [_run_entry(run) for run in runs],
        "differences": _by_run(runs, differences),
        "environment": _by_run(runs, known),
        "pairs": [_pair_entry(pair) for pair in pairs],
    }


def _run_entry(run: Run) -> dict[str, Any]:
    figures = _finite(sum_up(run)._asdict())
    history = run.history or {}
    test = None
    if run.metrics is not None:
        test = {key: _finite(run.metrics.get(key)) for key in _TEST_FIGURES} | {"protocol": _finite(run.protocol)}
    return {
        "label": run.label,
        "name": run.name,
        "folder": str(run.folder),
        "training": figures,
        "history": {column: _finite(values.tolist()) for column, values in history.items()},
        "test": test,
    }


def _by_run(runs: Sequence[Run], rows: Sequence[Difference]) -> dict[str, Mapping[str, str]]:
    return {row.key: {run.label: value for run, value in zip(runs, row.values, strict=True)} for row in rows}


def _pair_entry(pair: Pair) -> dict[str, Any]:
    missing = say_missing(pair)
    notes = [missing, *pair.notes] if missing else pair.notes
    entry = asdict(pair) | {"interval": list(pair.interval), "notes": notes, "sentence": say_pair(pair)}
    if pair.problem:
        return {key: entry[key] for key in ("first", "second", "problem", "sentence")}
    return entry | {"difference": pair.difference}


def _finite(value: Any) -> Any:
    """Replaces what JSON has no word for, however deep."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
    return value
