"""Computes the figures of predictions with several labels per sample, in one way for training, evaluation and compare.

Targets are 0 and 1, [N, K]; probabilities are float [N, K]. A row of NaN belongs to a video that could not be decoded:
it ranks below all others, and has no predicted classes. Means over classes leave out those without positives.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vswin.config.schema import MULTI_LABEL
from vswin.runs.metrics import LEVEL, NUM_RESAMPLES

USUAL_THRESHOLD = 0.5
# Resamples at once, so that memory stays below a gigabyte for 100,000 videos.
_AT_ONCE = 100


@dataclass(frozen=True)
class MultiLabelMetrics:
    """The figures of one evaluation, fractions 0..1 except the log loss.

    Attributes:
        map: Mean average precision: the mean over the classes that have positives.
        f1_micro, precision_micro, recall_micro: Over all pairs of videos and classes, at the classes' thresholds.
        f1_macro: Mean over the classes that have positives, at their thresholds.
        log_loss: Mean binary cross entropy of the videos with a prediction, in nats.
        num_videos, num_bad_videos: All videos, each counted once, and the videos without a prediction.
        num_classes, num_empty_classes: K, and the classes without positives, which are in no mean over classes.
        ..._interval: 95 % intervals from 1,000 resamples of the videos.
    """

    map: float
    map_interval: tuple[float, float]
    f1_micro: float
    f1_macro: float
    f1_macro_interval: tuple[float, float]
    precision_micro: float
    recall_micro: float
    log_loss: float | None
    num_videos: int
    num_bad_videos: int
    num_classes: int
    num_empty_classes: int
    task: str = MULTI_LABEL

    def shown(self, is_published: bool = False) -> dict[str, Any]:
        """Lists the figures by name; there are no published ones."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def average_precisions(targets: np.ndarray, probabilities: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Computes the average precision of each class, float64 [K]; NaN for a class without positives.

    With `counts`, int [R, N], each row says how often each video counts, and the result is [R, K].

    Source: scikit-learn, average_precision_score, whose values these are; it takes one class and one row at a time.
    """
    ranked = np.where(np.isnan(probabilities), -1.0, probabilities)
    weights = np.ones((1, len(targets))) if counts is None else counts
    found = np.empty((len(weights), targets.shape[1]))
    for label, (marks, column) in enumerate(zip(targets.T, ranked.T, strict=True)):
        order = np.argsort(-column, kind="stable")
        # Equal probabilities are one threshold.
        ends = np.flatnonzero(np.append(np.diff(column[order]), 1.0))
        ordered = weights[:, order]
        num_hits = np.cumsum(ordered * marks[order], axis=1)[:, ends]  # [R, thresholds]
        num_predicted = np.cumsum(ordered, axis=1)[:, ends]
        gains = np.diff(num_hits, axis=1, prepend=0.0)
        total = (gains * num_hits / np.maximum(num_predicted, 1)).sum(axis=1)
        found[:, label] = np.where(num_hits[:, -1] > 0, total / np.maximum(num_hits[:, -1], 1), np.nan)
    return found[0] if counts is None else found


def mean_average_precision(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Averages the average precision over the classes that have positives; NaN if none has."""
    has_positives = targets.any(axis=0)
    found = average_precisions(targets[:, has_positives], probabilities[:, has_positives])
    return float(found.mean()) if has_positives.any() else float("nan")


def draw_resamples(num_videos: int) -> np.ndarray:
    """Draws how often each of N videos counts in each of 1,000 resamples, int [1000, N], always the same."""
    return np.random.default_rng(0).multinomial(num_videos, np.full(num_videos, 1 / num_videos), NUM_RESAMPLES)


def resample_map(targets: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Computes the mAP of each resample, float64 [R]; a class without positives in a resample does not count in it."""
    has_positives = targets.any(axis=0)
    pair = targets[:, has_positives], probabilities[:, has_positives]
    parts = [average_precisions(*pair, counts[first : first + _AT_ONCE]) for first in range(0, len(counts), _AT_ONCE)]
    found = np.concatenate(parts)  # [R, classes]
    is_there = ~np.isnan(found)
    return np.where(is_there, found, 0.0).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)


def choose_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Chooses the threshold of each class that gives the highest F1, float64 [K]; 0.5 for a class without positives.

    A threshold lies in the middle between the lowest probability that counts as predicted and the next lower one.
    """
    from sklearn.metrics import precision_recall_curve  # takes a second to import

    thresholds = np.full(targets.shape[1], USUAL_THRESHOLD)
    is_decoded = ~np.isnan(probabilities).any(axis=1)
    for label, marks in enumerate(targets[is_decoded].T):
        if marks.any():
            precision, recall, found = precision_recall_curve(marks, probabilities[is_decoded, label])
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            best = int(f1[:-1].argmax())
            thresholds[label] = (found[best] + (found[best - 1] if best else 0.0)) / 2
    return thresholds


def f1_scores(targets: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Computes the micro F1, over all pairs of videos and classes, and the macro F1, the mean over the classes."""
    hits, counts = (targets * predicted).sum(axis=0), targets.sum(axis=0) + predicted.sum(axis=0)  # each [K]
    has_positives = targets.any(axis=0)
    macro = (2 * hits[has_positives] / counts[has_positives]).mean() if has_positives.any() else 0.0
    return float(2 * hits.sum() / max(counts.sum(), 1)), float(macro)


def compute_multi_label(targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> MultiLabelMetrics:
    """Computes the figures of an evaluation of N >= 1 videos with at least one label in all; thresholds are [K]."""
    is_decoded, has_positives = ~np.isnan(probabilities).any(axis=1), targets.any(axis=0)
    predicted = np.where(is_decoded[:, np.newaxis], probabilities >= thresholds, False)
    f1_micro, f1_macro = f1_scores(targets, predicted)
    num_hits = float((targets * predicted).sum())
    resamples = draw_resamples(len(targets))
    # The macro F1 of each resample.
    hits = resamples @ (targets * predicted)[:, has_positives]  # [R, classes]
    sizes = resamples @ (targets + predicted)[:, has_positives]
    is_there = resamples @ targets[:, has_positives] > 0
    f1 = np.where(is_there, 2 * hits / np.maximum(sizes, 1), 0.0).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    map_low, map_high = np.quantile(resample_map(targets, probabilities, resamples), ends).tolist()
    f1_low, f1_high = np.quantile(f1, ends).tolist()
    p, marks = np.clip(probabilities[is_decoded], 1e-7, 1 - 1e-7), targets[is_decoded]
    return MultiLabelMetrics(
        map=mean_average_precision(targets, probabilities),
        map_interval=(map_low, map_high),
        f1_micro=f1_micro,
        f1_macro=f1_macro,
        f1_macro_interval=(f1_low, f1_high),
        precision_micro=num_hits / max(float(predicted.sum()), 1),
        recall_micro=num_hits / max(float(targets.sum()), 1),
        log_loss=float(-np.mean(marks * np.log(p) + (1 - marks) * np.log(1 - p))) if len(p) else None,
        num_videos=len(targets),
        num_bad_videos=int((~is_decoded).sum()),
        num_classes=targets.shape[1],
        num_empty_classes=int((~has_positives).sum()),
    )
