"""Count what a model got right, in NumPy; called by `vswin.evaluation.run` and `vswin.evaluation.report`.

Every function works on predicted classes in which -1 stands for "no prediction": a video that could not be
decoded. It counts as a video of its class and as a hit of none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

NO_PREDICTION = -1
NUM_BEST = 5


@dataclass(frozen=True)
class Metrics:
    """Sum up one evaluation.

    Attributes:
        top1: Fraction of videos whose best class is the label, 0..1.
        top5: Fraction of videos whose label is among the best min(5, K) classes, 0..1. With five classes or
            fewer every video that could be decoded is a hit.
        top1_interval, top5_interval: What the true fractions may be with so many videos, see `wilson_interval`.
        mean_class_accuracy: Mean over the classes that have videos of the fraction recognised, 0..1.
        clip_top1, clip_top5: The same with every view judged by itself; papers that report clip-level accuracy
            mean this, which is lower.
        num_videos: Videos counted, each once.
        num_bad_videos: Those among them without a prediction.
    """

    top1: float
    top5: float
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    mean_class_accuracy: float
    clip_top1: float
    clip_top5: float
    num_videos: int
    num_bad_videos: int


class ClassScore(NamedTuple):
    """Describe how one class fared.

    Attributes:
        label: Class index.
        num_videos: Videos of this class.
        top1: Fraction of them recognised, 0..1; NaN without videos.
        top5: Fraction of them with the class among the best min(5, K), 0..1; NaN without videos.
        confused_with: Class most often predicted instead, `NO_PREDICTION` if there is none.
        num_confused: How often that was.
    """

    label: int
    num_videos: int
    top1: float
    top5: float
    confused_with: int
    num_confused: int


def rank_classes(probabilities: np.ndarray, num_best: int = NUM_BEST) -> np.ndarray:
    """Finds the best classes of every video.

    Of equally probable classes the one with the higher index comes first.

    Args:
        probabilities: float [N, K].
        num_best: Classes wanted, >= 1.

    Returns:
        Class indices, int64 [N, min(num_best, K)], best first.

    Source: Video-Swin-Transformer mmaction/core/evaluation/accuracy.py, top_k_accuracy (ascending argsort,
        the last k), with a stable sort, so that ties fall the same way on every machine.
    """
    ascending = np.argsort(probabilities, axis=1, kind="stable")
    return ascending[:, ::-1][:, :num_best]


def is_hit(ranked: np.ndarray, labels: np.ndarray, num_best: int) -> np.ndarray:
    """Tells which videos have their label among the best `num_best` classes.

    Args:
        ranked: int [N, R], best class first; -1 for no prediction.
        labels: int [N], 0 .. K-1.
        num_best: Classes looked at; more than R counts as R.

    Returns:
        bool [N].
    """
    return (ranked[:, :num_best] == labels[:, np.newaxis]).any(axis=1)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was taken for each other one.

    Args:
        labels: int [N], 0 .. K-1.
        predictions: int [N], 0 .. K-1, or -1 for no prediction, which appears in no column.
        num_classes: K.

    Returns:
        int64 [K, K]; row = label, column = prediction.
    """
    is_predicted = predictions != NO_PREDICTION
    cells = labels[is_predicted] * num_classes + predictions[is_predicted]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)  # [K, K]


def mean_class_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Averages the fraction of recognised videos over classes.

    The mean runs over the classes that have videos. The official code also counts classes that were only predicted,
    as 0; on the published validation sets every class has videos, so there the two are equal.

    Args:
        labels: int [N], 0 .. K-1; N >= 1.
        predictions: int [N], 0 .. K-1, or -1 for no prediction.

    Returns:
        Fraction 0..1.

    Source: Video-Swin-Transformer mmaction/core/evaluation/accuracy.py, mean_class_accuracy.
    """
    return float(np.mean([np.mean(predictions[labels == label] == label) for label in np.unique(labels)]))


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Says between which values a true share lies, when it was measured on a sample.

    Args:
        share: Measured, 0..1.
        count: Size of the sample, >= 1.
        level: Confidence, 0..1.

    Returns:
        Smallest and largest value, 0..1.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # Rounding must not put the ends beyond what is possible.
    return max(0.0, centre - reach), min(1.0, centre + reach)


def compute_metrics(ranked: np.ndarray, labels: np.ndarray, view_hits: np.ndarray, num_views: int) -> Metrics:
    """Computes all summary figures of an evaluation.

    Args:
        ranked: int [N, min(5, K)], best class first; -1 for no prediction; N >= 1.
        labels: int [N], 0 .. K-1.
        view_hits: Views of each video that are right by themselves, in their best class and best five, int [N, 2].
        num_views: Views of each video.

    Returns:
        The figures, accuracies as fractions.
    """
    predictions = ranked[:, 0]
    top1, top5 = (float(is_hit(ranked, labels, num_best).mean()) for num_best in (1, NUM_BEST))
    clip_top1, clip_top5 = (view_hits.mean(axis=0) / num_views).tolist()
    return Metrics(
        top1=top1,
        top5=top5,
        top1_interval=wilson_interval(top1, len(labels)),
        top5_interval=wilson_interval(top5, len(labels)),
        mean_class_accuracy=mean_class_accuracy(labels, predictions),
        clip_top1=clip_top1,
        clip_top5=clip_top5,
        num_videos=len(labels),
        num_bad_videos=int(np.sum(predictions == NO_PREDICTION)),
    )


def score_classes(ranked: np.ndarray, labels: np.ndarray, num_classes: int) -> list[ClassScore]:
    """Computes one line per class, in the order of the classes.

    Args:
        ranked: int [N, min(5, K)], best class first; -1 for no prediction.
        labels: int [N], 0 .. K-1.
        num_classes: K.

    Returns:
        K scores; classes without a video are among them.
    """
    top1 = is_hit(ranked, labels, 1)
    top5 = is_hit(ranked, labels, NUM_BEST)
    mistakes = confusion_matrix(labels, ranked[:, 0], num_classes)
    np.fill_diagonal(mistakes, 0)
    scores = []
    for label in range(num_classes):
        members = labels == label
        count = int(members.sum())
        worst = int(mistakes[label].argmax())
        num_confused = int(mistakes[label, worst])
        scores.append(
            ClassScore(
                label=label,
                num_videos=count,
                top1=float(top1[members].mean()) if count else float("nan"),
                top5=float(top5[members].mean()) if count else float("nan"),
                confused_with=worst if num_confused else NO_PREDICTION,
                num_confused=num_confused,
            )
        )
    return scores
