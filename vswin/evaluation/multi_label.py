"""The results of an evaluation with several labels per sample, as tables for people and programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vswin.runs.metrics import NO_PREDICTION, rank_classes
from vswin.runs.multi_label import MultiLabelMetrics, average_precisions

SCORES_NAME = "scores.csv"


@dataclass(frozen=True)
class MultiLabelResult:
    """The results of an evaluation of N videos in K classes, of which each video may have any number.

    Attributes:
        targets: Classes of each video, float32 [N, K] of 0 and 1.
        probabilities: Of every class, float32 [N, K]; NaN where the video is bad.
        thresholds: Probability from which a class counts as predicted, float [K].
    """

    paths: Sequence[str]
    targets: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray
    class_names: Sequence[str]
    metrics: MultiLabelMetrics

    @cached_property
    def ranked(self) -> np.ndarray:
        """The best classes, int64 [N, min(5, K)], best first; -1 where the video is bad."""
        return rank_classes(self.probabilities)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The classes that reach their thresholds, bool [N, K]."""
        return np.where(np.isnan(self.probabilities), False, self.probabilities >= self.thresholds)

    def name_marked(self, marks: np.ndarray) -> str:
        """Names the marked classes, [K], as lists do."""
        return ";".join(self.class_names[label] for label in np.flatnonzero(marks))

    def prediction_rows(self) -> Iterable[list[object]]:
        """Lists each video with its classes, the predicted classes, and the best classes with their probabilities."""
        best = [f"{word}_{rank}" for rank in range(1, self.ranked.shape[1] + 1) for word in ("class", "probability")]
        yield ["path", "label_name", "predicted", *best]
        for index, path in enumerate(self.paths):
            row: list[object] = [path, self.name_marked(self.targets[index]), self.name_marked(self.predicted[index])]
            for label in self.ranked[index]:
                is_bad, value = label == NO_PREDICTION, self.probabilities[index, label]
                row += ["", ""] if is_bad else [self.class_names[label], f"{value:.6f}"]
            yield row

    def score_rows(self) -> Iterable[list[object]]:
        """Lists the probability of every class for each video; empty cells where it is bad."""
        yield ["path", *self.class_names]
        for path, row in zip(self.paths, self.probabilities.tolist(), strict=True):
            yield [path, *("" if value != value else f"{value:.6g}" for value in row)]

    def class_rows(self) -> Iterable[list[object]]:
        """Lists the figures of each class; empty cells where there is nothing to count."""
        yield ["label", "label_name", "num_videos", "average_precision", "precision", "recall", "f1", "threshold"]
        precisions = average_precisions(self.targets, self.probabilities)
        columns = zip(self.class_names, self.targets.T, self.predicted.T, precisions, self.thresholds, strict=True)
        for label, (name, marks, predicted, average, threshold) in enumerate(columns):
            hits, num_predicted, num_videos = (marks * predicted).sum(), predicted.sum(), marks.sum()
            pairs = ((hits, num_predicted), (hits, num_videos), (2 * hits, num_predicted + num_videos))
            shares = [f"{above / below:.4f}" if below else "" for above, below in pairs]
            figure = "" if np.isnan(average) else f"{average:.4f}"
            yield [label, name, int(num_videos), figure, *shares, f"{threshold:.4f}"]
