"""Everything of a comparison as values JSON knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vswin.compare.differences import Difference
from vswin.compare.pairs import Pair, say_missing, say_pair
from vswin.runs.figures import sum_up
from vswin.runs.files import Run

_TEST_FIGURES = ("top1", "top1_interval", "top5", "top5_interval", "mean_class_accuracy", "num_videos")


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
