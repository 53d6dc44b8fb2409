"""Tests of `vswin.runs.metrics` against values computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vswin.runs.metrics import (
    compute_metrics,
    confusion_matrix,
    is_hit,
    mean_class_accuracy,
    most_confused,
    order_by_accuracy,
    rank_classes,
    score_classes,
    wilson_interval,
)


def test_rank_classes_puts_the_best_first_and_the_higher_index_first_among_equals():
    probabilities = np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]], "f4")
    np.testing.assert_array_equal(rank_classes(probabilities), [[1, 2, 0], [2, 0, 1]])
    np.testing.assert_array_equal(rank_classes(probabilities, num_best=1), [[1], [2]])
    many = np.stack([np.arange(8), -np.arange(8)]).astype("f4")  # [N, K]
    np.testing.assert_array_equal(rank_classes(many), [[7, 6, 5, 4, 3], [0, 1, 2, 3, 4]])


def test_is_hit_looks_at_the_best_classes_only():
    ranked = np.array([[2, 0, 1], [0, 1, 2], [-1, -1, -1]])
    labels = np.array([0, 0, 1])
    np.testing.assert_array_equal(is_hit(ranked, labels, 1), [False, True, False])
    np.testing.assert_array_equal(is_hit(ranked, labels, 2), [True, True, False])
    np.testing.assert_array_equal(is_hit(ranked, labels, 5), [True, True, False])


def test_confusion_matrix_has_labels_as_rows_and_leaves_out_missing_predictions():
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, -1]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [
        ([0, 0, 1], [0, 3, 1], (1 / 2 + 1) / 2),  # class 3 is only predicted, and class 2 never occurs
        ([0] * 9 + [1], [0] * 10, 1 / 2),  # it weighs classes, not videos
        ([0, 0, 1], [0, -1, 1], (1 / 2 + 1) / 2),  # no prediction is wrong, and no class
    ],
)
def test_mean_class_accuracy(labels, predictions, expected):
    assert mean_class_accuracy(np.array(labels), np.array(predictions)) == pytest.approx(expected)


def official_mean_class_accuracy(predictions, labels):
    """Follows the rule of the official implementation step by step, with loops."""
    classes = sorted(set(labels) | set(predictions))
    accuracies = []
    for label in classes:
        of_class = [p for p, truth in zip(predictions, labels, strict=True) if truth == label]
        accuracies.append(sum(p == label for p in of_class) / len(of_class) if of_class else 0.0)
    return sum(accuracies) / len(accuracies)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_mean_class_accuracy_and_matrix_agree_with_counting(pairs):
    labels, predictions = np.array(pairs).T
    official = official_mean_class_accuracy(predictions.tolist(), labels.tolist())
    # The official code counts classes without videos as 0 if predicted; with videos of every class both agree.
    num_classes = len(set(labels.tolist()))
    as_official = (
        mean_class_accuracy(labels, predictions) * num_classes / len({*labels.tolist(), *predictions.tolist()})
    )
    assert as_official == pytest.approx(official)
    matrix = confusion_matrix(labels, predictions, 7)
    assert matrix.sum() == len(pairs)
    assert all(matrix[label, prediction] == pairs.count((label, prediction)) for label, prediction in pairs)


def test_compute_metrics():
    ranked = np.array([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [5, 4, 3, 2, 1], [-1] * 5])
    view_hits = np.array([[3, 4], [1, 4], [0, 0], [0, 0]])
    metrics = compute_metrics(ranked, np.array([0, 0, 0, 1]), view_hits, num_views=4)
    assert (metrics.clip_top1, metrics.clip_top5) == (4 / 16, 8 / 16)
    assert metrics.top1_interval == wilson_interval(0.25, 4)
    assert metrics.top1 == 0.25
    assert metrics.top5 == 0.5
    assert metrics.mean_class_accuracy == pytest.approx((1 / 3 + 0) / 2)
    assert (metrics.num_videos, metrics.num_bad_videos) == (4, 1)


def test_top5_of_three_classes_is_top3():
    ranked = rank_classes(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], "f4"))
    metrics = compute_metrics(ranked, np.array([0, 0]), np.ones((2, 2), int), num_views=1)
    assert (metrics.top1, metrics.top5) == (0.5, 1.0)


def test_score_classes_names_the_worst_mix_up_and_keeps_empty_classes():
    ranked = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [-1, -1]])
    scores = score_classes(ranked, np.array([0, 0, 0, 1, 1]), 3)
    # Class 0: one of three recognised, never predicted wrongly; class 1: predicted for three videos, one right.
    assert scores[0] == (0, 3, pytest.approx(1 / 3), 1.0, 1.0, pytest.approx(0.5), 1, 2)
    assert scores[1] == (1, 2, 0.5, 0.5, pytest.approx(1 / 3), pytest.approx(0.4), -1, 0)
    assert scores[2][:2] == (2, 0)
    assert np.isnan(scores[2][2:6]).all()
    assert [score.label for score in order_by_accuracy(scores)] == [0, 1]


def test_most_confused_are_ordered_by_number_then_share():
    pairs = {(0, 1): 2, (1, 0): 1, (2, 0): 2, (2, 2): 5, (1, -1): 3, (0, 2): 1, (0, 0): 1}
    labels, predictions = np.array([pair for pair, count in pairs.items() for _ in range(count)]).T
    assert most_confused(labels, predictions, 3, 3) == [(0, 1, 2, 4, 1), (2, 0, 2, 7, 1), (0, 2, 1, 4, 2)]


def test_wilson_interval():
    # Values from Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson_interval(1.0, 5)[1] == 1.0
