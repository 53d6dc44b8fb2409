"""Computes the figures of predictions, in one way for evaluations, the report page and `vswin compare`.

Classes are indices 0 .. K-1. The predicted class -1 means "no prediction": the video could not be decoded. Such a video
counts as a video of its class and is never a hit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

NO_PREDICTION = -1
NUM_BEST = 5
_NUM_BINS = 15
NUM_RESAMPLES = 1_000
LEVEL = 0.95


@dataclass(frozen=True)
class Metrics:
    """The figures of one evaluation, fractions 0..1 except the log loss; None for what does not fit the task.

    Attributes:
        top1, top5: Videos whose label is the best class, or among the best min(5, K). With five classes or fewer, every
            video that could be decoded is a top-5 hit.
        top1_interval, top5_interval: Ranges of the true fractions for so many videos, see `wilson_interval`.
        mean_class_accuracy: Mean fraction of recognised videos (recall) over the classes that have videos.
        clip_top1, clip_top5: Accuracies with every view judged by itself, as in papers that report clip-level accuracy;
            they are lower.
        num_videos, num_bad_videos: All videos, each counted once, and the videos without a prediction.
        num_classes: K.
        balanced_accuracy: The mean class accuracy under its other name.
        precision_macro, f1_macro: Means over the classes that have videos; 0 for a class that is never predicted.
        log_loss: Mean negative logarithm of the label's probability, in nats.
        calibration_error: See `calibration_error`.
        roc_auc, average_precision: Of two classes, by the probability of the second, which counts as positive.
        ..._interval: Intervals by resampling, see `bootstrap_intervals`.

    Videos without a prediction count in no figure of probabilities: the last four.
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
    num_classes: int | None = None
    mean_class_accuracy_interval: tuple[float, float] | None = None
    balanced_accuracy: float | None = None
    precision_macro: float | None = None
    f1_macro: float | None = None
    f1_macro_interval: tuple[float, float] | None = None
    log_loss: float | None = None
    log_loss_interval: tuple[float, float] | None = None
    calibration_error: float | None = None
    roc_auc: float | None = None
    average_precision: float | None = None

    def shown(self, is_published: bool = False) -> dict[str, Any]:
        """Lists the figures that fit the task by name; top-5 fits more than five classes, or a published top-5."""
        has_top5 = is_published or self.num_classes is None or self.num_classes > NUM_BEST
        figures = asdict(self).items()
        return {key: value for key, value in figures if value is not None and (has_top5 or "top5" not in key)}


class ClassScore(NamedTuple):
    """The figures of one class, fractions 0..1; NaN if there is nothing to count.

    Attributes:
        top1: Recognised videos of the class (recall).
        top5: Videos of the class with it among the best min(5, K).
        confused_with: Class most often predicted instead, `num_confused` times; `NO_PREDICTION` if there is none.
        interval: Of `top1`, see `wilson_interval`.
    """

    label: int
    num_videos: int
    top1: float
    top5: float
    precision: float
    f1: float
    confused_with: int
    num_confused: int
    interval: tuple[float, float]


class Confusion(NamedTuple):
    """Counts how many of a class's `num_videos` were predicted as another class, and how many the other way round."""

    label: int
    predicted: int
    num_confused: int
    num_videos: int
    num_reverse: int


def rank_classes(probabilities: np.ndarray, num_best: int = NUM_BEST) -> np.ndarray:
    """Ranks the best classes of every video, int64 [N, min(num_best, K)], best first, from float [N, K].

    Of equally probable classes, the one with the higher index comes first. A video with NaN has no prediction.

    Source: Video-Swin-Transformer mmaction/core/evaluation/accuracy.py, top_k_accuracy (ascending argsort,
        the last k), with a stable sort, so that ties are ranked the same way on every machine.
    """
    ascending = np.argsort(probabilities, axis=1, kind="stable")
    is_bad = np.isnan(probabilities).any(axis=1)
    return np.where(is_bad[:, np.newaxis], NO_PREDICTION, ascending[:, ::-1][:, :num_best])


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


def wilson_interval(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval of the true fraction, 0..1, if `share` was measured on a sample of `count` >= 1.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # Rounding must not move the ends outside 0..1.
    return max(0.0, centre - reach), min(1.0, centre + reach)


def calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """Computes how far confidence and accuracy are apart: the expected calibration error of the predicted class.

    The probabilities of the predicted classes, float [N], fall into 15 equal bins; the error is the mean difference
    between probability and accuracy of the bins, weighted by their videos. `is_right` is bool [N].

    Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    bins = np.ceil(confidences * _NUM_BINS).astype(int)
    return float(np.abs(np.bincount(bins, weights=is_right - confidences)).sum() / len(bins))


def bootstrap_intervals(
    labels: np.ndarray, predictions: np.ndarray, losses: np.ndarray, num_classes: int
) -> dict[str, tuple[float, float]]:
    """Computes 95 % intervals of means over classes and of the log loss, by figure, from 1,000 resamples of the videos.

    `losses`, float [N], is NaN for a video without a prediction. The resamples are the same in every evaluation of N
    videos. A class that a resample lacks does not count in it.
    """
    rng, resampled = np.random.default_rng(0), []
    has_loss, losses = ~np.isnan(losses), np.nan_to_num(losses)
    for _ in range(NUM_RESAMPLES):
        chosen = rng.integers(len(labels), size=len(labels))
        actual, predicted = labels[chosen], predictions[chosen]
        num_videos = np.bincount(actual, minlength=num_classes)
        num_predicted = np.bincount(predicted + 1, minlength=num_classes + 1)[1:]  # without NO_PREDICTION
        num_hits, is_there = np.bincount(actual[actual == predicted], minlength=num_classes), num_videos > 0
        recall = (num_hits[is_there] / num_videos[is_there]).mean()
        f1 = (2 * num_hits[is_there] / (num_videos + num_predicted)[is_there]).mean()
        resampled.append((recall, f1, losses[chosen].sum() / max(has_loss[chosen].sum(), 1)))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).tolist()
    return dict(zip(("mean_class_accuracy", "f1_macro", "log_loss"), zip(low, high, strict=True), strict=True))


def compute_metrics(probabilities: np.ndarray, labels: np.ndarray, view_hits: np.ndarray, num_views: int) -> Metrics:
    """Computes the figures of an evaluation of N >= 1 videos with `num_views` views each.

    `probabilities` is float [N, K], NaN for a video without a prediction, `labels` is int [N], and `view_hits`, int
    [N, 2], counts the views of each video with the label as their best class, and among their best five.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    num_videos, num_classes = probabilities.shape
    ranked = rank_classes(probabilities)
    predictions, is_decoded = ranked[:, 0], ranked[:, 0] != NO_PREDICTION
    top1, top5 = (float(is_hit(ranked, labels, num_best).mean()) for num_best in (1, NUM_BEST))
    clip_top1, clip_top5 = (view_hits.mean(axis=0) / num_views).tolist()
    mean_accuracy = mean_class_accuracy(labels, predictions)
    precision, _, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
    )
    of_label = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)[:, 0]  # [N]
    # As scikit-learn, which gives no loss for each video, clips them.
    losses = -np.log(np.maximum(of_label, np.finfo(of_label.dtype).eps))
    intervals = bootstrap_intervals(labels, predictions, losses, num_classes)
    decoded, actual = probabilities[is_decoded], labels[is_decoded]
    of_probabilities: dict[str, Any] = {}
    if len(actual):
        of_probabilities = {"log_loss": float(losses[is_decoded].mean()), "log_loss_interval": intervals["log_loss"]}
        is_right = predictions[is_decoded] == actual
        of_probabilities["calibration_error"] = calibration_error(decoded.max(axis=1), is_right)
    if num_classes == 2 and len(np.unique(actual)) == 2:
        of_probabilities["roc_auc"] = float(roc_auc_score(actual, decoded[:, 1]))
        of_probabilities["average_precision"] = float(average_precision_score(actual, decoded[:, 1]))
    return Metrics(
        top1=top1,
        top5=top5,
        top1_interval=wilson_interval(top1, num_videos),
        top5_interval=wilson_interval(top5, num_videos),
        mean_class_accuracy=mean_accuracy,
        clip_top1=clip_top1,
        clip_top5=clip_top5,
        num_videos=num_videos,
        num_bad_videos=int(np.sum(~is_decoded)),
        num_classes=num_classes,
        mean_class_accuracy_interval=intervals["mean_class_accuracy"],
        balanced_accuracy=mean_accuracy,
        precision_macro=float(precision),
        f1_macro=float(f1),
        f1_macro_interval=intervals["f1_macro"],
        **of_probabilities,
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
            interval=wilson_interval(float(recall[label]), int(num_videos[label]))
            if num_videos[label]
            else (math.nan, math.nan),
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
