"""Computes the figures of predictions with several labels per sample, in one way for training, evaluation and compare.

Targets are 0 and 1, [N, K]; probabilities are float [N, K]. A row of NaN belongs to a video that could not be decoded:
it ranks below all others, and has no predicted classes. Means over classes leave out those without positives.
"""

import numpy as np

USUAL_THRESHOLD = 0.5


def average_precisions(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Computes the average precision of each class, float64 [K]; NaN for a class without positives."""
    from sklearn.metrics import average_precision_score  # takes a second to import

    ranked = np.where(np.isnan(probabilities), -1.0, probabilities)
    pairs = zip(targets.T, ranked.T, strict=True)
    return np.array([average_precision_score(marks, column) if marks.any() else np.nan for marks, column in pairs])


def mean_average_precision(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Averages the average precision over the classes that have positives; NaN if none has."""
    has_positives = targets.any(axis=0)
    found = average_precisions(targets[:, has_positives], probabilities[:, has_positives])
    return float(found.mean()) if has_positives.any() else float("nan")


def choose_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Chooses the threshold of each class that gives the highest F1, float64 [K]; 0.5 for a class without positives.

    A threshold lies in the middle between the lowest probability that counts as predicted and the next lower one.
    """
    from sklearn.metrics import precision_recall_curve

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
