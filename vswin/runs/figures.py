"""The figures of a training that stand in tables, taken from its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vswin.runs.files import Run


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


def say_seen(test_set: Mapping[str, Any]) -> str:
    """Says whether the tested videos also trained the model or chose its epoch; empty where that is not known.

    Args:
        test_set: `protocol.dataset` of `metrics.json`.
    """
    match test_set.get("trained_on"), test_set.get("chose_epoch"):
        case True, _:
            return "the model was trained on some of these videos; accuracy on new videos would be lower"
        case _, True:
            return "these videos also chose the epoch; accuracy on a separate test set would be lower"
        case False, False:
            return "these videos neither trained the model nor chose the epoch"
    return ""
