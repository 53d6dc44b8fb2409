"""Counts correct predictions, in one way for evaluations, the report page and `vswin compare`.

Classes are indices 0 .. K-1. The predicted class -1 means "no prediction": the video could not be decoded. Such a video
counts as a video of its class and is never a hit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

NO_PREDICTION = -1
NUM_BEST = 5


@dataclass(frozen=True)
class Metrics:
    """The figures of one evaluation; accuracies are fractions 0..1.

    Attributes:
        top1, top5: Videos whose label is the best class, or among the best min(5, K). With five classes or fewer, every
            video that could be decoded is a top-5 hit.
        top1_interval, top5_interval: Ranges of the true fractions for so many videos, see `wilson_interval`.
        mean_class_accuracy: Mean fraction of recognised videos over the classes that have videos.
        clip_top1, clip_top5: Accuracies with every view judged by itself, as in papers that report clip-level accuracy;
            they are lower.
        num_videos, num_bad_videos: All videos, each counted once, and the videos without a prediction.
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
    """The figures of one class, fractions 0..1; NaN if there is nothing to count.

    Attributes:
        top1: Recognised videos of the class (recall).
        top5: Videos of the class with it among the best min(5, K).
        confused_with: Class most often predicted instead, `num_confused` times; `NO_PREDICTION` if there is none.
    """

    label: int
    num_videos: int
    top1: float
    top5: float
    precision: float
    f1: float
    confused_with: int
    num_confused: int


class Confusion(NamedTuple):
    """Counts how many of a class's `num_videos` were predicted as another class, and how many the other way round."""

    label: int
    predicted: int
    num_confused: int
    num_videos: int
    num_reverse: int


def rank_classes(probabilities: np.ndarray, num_best: int = NUM_BEST) -> np.ndarray:
    """Ranks the best classes of every video, int64 [N, min(num_best, K)], best first, from float [N, K].

    Of equally probable classes, the one with the higher index comes first.

    Source: Video-Swin-Transformer mmaction/core/evaluation/accuracy.py, top_k_accuracy (ascending argsort,
        the last k), with a stable sort, so that ties are ranked the same way on every machine.
    """
    ascending = np.argsort(probabilities, axis=1, kind="stable")
    return ascending[:, ::-1][:, :num_best]


def is_hit(ranked: np.ndarray, labels: np.ndarray, num_best: int) -> np.ndarray:
    """Tells, bool [N], whether each label, int [N], is among the first `num_best` ranked classes, int [N, R]."""
    return (ranked[:, :num_best] == labels[:, np.newaxis]).any(axis=1)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was predicted for each label, int64 [K, K]; row = label, column = prediction.

    Videos without a prediction are not counted.
    """
    from sklearn.metrics import confusion_matrix as count_pairs  # takes a second to import

    is_predicted = predictions != NO_PREDICTION
    if not is_predicted.any():
        return np.zeros((num_classes, num_classes), np.int64)
    return count_pairs(labels[is_predicted], predictions[is_predicted], labels=np.arange(num_classes))


def mean_class_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Averages the fraction of recognised videos over the classes that have videos.

    The official code also counts classes that were only predicted, as 0; in the published validation sets every class
    has videos, so both are equal there.

    Source: Video-Swin-Transformer mmaction/core/evaluation/accuracy.py, mean_class_accuracy.
    """
    from sklearn.metrics import recall_score

    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0))


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the interval of the true fraction, 0..1, if `share` was measured on a sample of `count` >= 1.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # Rounding must not move the ends outside 0..1.
    return max(0.0, centre - reach), min(1.0, centre + reach)


def compute_metrics(ranked: np.ndarray, labels: np.ndarray, view_hits: np.ndarray, num_views: int) -> Metrics:
    """Computes the figures of an evaluation of N >= 1 videos with `num_views` views each.

    `ranked` is int [N, min(5, K)], best class first, `labels` is int [N], and `view_hits`, int [N, 2], counts the views
    of each video with the label as their best class, and among their best five.
    """
    top1, top5 = (float(is_hit(ranked, labels, num_best).mean()) for num_best in (1, NUM_BEST))
    clip_top1, clip_top5 = (view_hits.mean(axis=0) / num_views).tolist()
    return Metrics(
        top1=top1,
        top5=top5,
        top1_interval=wilson_interval(top1, len(labels)),
        top5_interval=wilson_interval(top5, len(labels)),
        mean_class_accuracy=mean_class_accuracy(labels, ranked[:, 0]),
        clip_top1=clip_top1,
        clip_top5=clip_top5,
        num_videos=len(labels),
        num_bad_videos=int(np.sum(ranked[:, 0] == NO_PREDICTION)),
    )


def score_classes(ranked: np.ndarray, labels: np.ndarray, num_classes: int) -> list[ClassScore]:
    """Scores all K classes in order, including classes without videos; arguments as in `compute_metrics`."""
    from sklearn.metrics import precision_recall_fscore_support

    predictions, classes = ranked[:, 0], np.arange(num_classes)
    precision, recall, f1, num_videos = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=np.nan
    )
    num_top5 = np.bincount(labels[is_hit(ranked, labels, NUM_BEST)], minlength=num_classes)
    mistakes = confusion_matrix(labels, predictions, num_classes)
    np.fill_diagonal(mistakes, 0)
    worst = mistakes.argmax(axis=1)
    return [
        ClassScore(
            label=label,
            num_videos=int(num_videos[label]),
            top1=float(recall[label]),
            top5=int(num_top5[label]) / int(num_videos[label]) if num_videos[label] else math.nan,
            precision=float(precision[label]),
            f1=float(f1[label]),
            confused_with=int(worst[label]) if mistakes[label, worst[label]] else NO_PREDICTION,
            num_confused=int(mistakes[label, worst[label]]),
        )
        for label in range(num_classes)
    ]


def order_by_accuracy(scores: Iterable[ClassScore]) -> list[ClassScore]:
    """Orders classes that have videos by accuracy, lowest first; in a tie, the class with more videos comes first."""
    return sorted((score for score in scores if score.num_videos), key=lambda score: (score.top1, -score.num_videos))


def most_confused(labels: np.ndarray, predictions: np.ndarray, num_classes: int, num_pairs: int) -> list[Confusion]:
    """Lists the most often confused pairs of classes; in a tie, the larger fraction of the class comes first."""
    mistakes = confusion_matrix(labels, predictions, num_classes)
    np.fill_diagonal(mistakes, 0)
    counts, num_videos = mistakes.tolist(), np.bincount(labels, minlength=num_classes).tolist()
    pairs = [
        Confusion(label, predicted, counts[label][predicted], num_videos[label], counts[predicted][label])
        for label, predicted in np.argwhere(mistakes).tolist()
    ]
    return sorted(pairs, key=lambda pair: (-pair.num_confused, pair.num_videos))[:num_pairs]
