"""Tests of `vswin.runs.metrics` against values computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from tests.conftest import spread
from vswin.runs.metrics import (
    calibration_error,
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
    assert rank_classes(np.array([[np.nan] * 3])).tolist() == [[-1, -1, -1]]
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
    probabilities = spread(ranked, np.tile([0.5, 0.2, 0.125, 0.1, 0.075], (4, 1)), 6)
    view_hits = np.array([[3, 4], [1, 4], [0, 0], [0, 0]])
    metrics = compute_metrics(probabilities, np.array([0, 0, 0, 1]), view_hits, num_views=4)
    assert (metrics.clip_top1, metrics.clip_top5) == (4 / 16, 8 / 16)
    assert metrics.top1_interval == wilson_interval(0.25, 4)
    assert metrics.top1 == 0.25
    assert metrics.top5 == 0.5
    assert metrics.mean_class_accuracy == pytest.approx((1 / 3 + 0) / 2)
    assert (metrics.num_videos, metrics.num_bad_videos) == (4, 1)


@pytest.mark.parametrize("num_classes", [5, 6])
def test_there_is_a_top5_of_more_than_five_classes_only(num_classes):
    probabilities = np.tile(np.arange(1.0, num_classes + 1), (2, 1)) / 21
    metrics = compute_metrics(probabilities, np.array([1, num_classes - 1]), np.ones((2, 2), int), num_views=1)
    assert metrics.top1 == 0.5
    has_top5 = num_classes > 5
    assert ("top5" in metrics.shown(), "clip_top5" in metrics.shown()) == (has_top5, has_top5)
    assert "top5_interval" in metrics.shown(is_published=True)
    assert not {"roc_auc", "average_precision"} & metrics.shown().keys()


def draw_answers(num_classes: int, num_videos: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Draws labels, without the last class, and probabilities, float32; the second video has no prediction."""
    rng = np.random.default_rng(1)
    labels = rng.integers(max(num_classes - 1, 2), size=num_videos)
    logits = 2 * rng.normal(size=(num_videos, num_classes)) + 2 * np.eye(num_classes)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype("f4")
    probabilities[1] = np.nan
    return labels, probabilities


@pytest.mark.parametrize("num_classes", [2, 4])
def test_figures_are_those_of_scikit_learn(num_classes):
    labels, probabilities = draw_answers(num_classes)
    metrics = compute_metrics(probabilities, labels, np.ones((60, 2), int), 1)
    there, decoded = np.unique(labels), ~np.isnan(probabilities[:, 0])
    predictions = np.where(decoded, np.nan_to_num(probabilities).argmax(axis=1), -1)
    options = {"labels": there, "average": "macro", "zero_division": 0}
    assert metrics.f1_macro == pytest.approx(f1_score(labels, predictions, **options))
    assert metrics.precision_macro == pytest.approx(precision_score(labels, predictions, **options))
    assert metrics.balanced_accuracy == metrics.mean_class_accuracy
    assert metrics.mean_class_accuracy == pytest.approx(recall_score(labels, predictions, **options))
    actual, given = labels[decoded], probabilities[decoded]
    assert metrics.log_loss == pytest.approx(log_loss(actual, given, labels=range(num_classes)), rel=1e-5)
    if num_classes == 2:
        assert metrics.roc_auc == pytest.approx(roc_auc_score(actual, given[:, 1]))
        assert metrics.average_precision == pytest.approx(average_precision_score(actual, given[:, 1]))
    else:
        assert metrics.roc_auc is metrics.average_precision is None
    for key in ("mean_class_accuracy", "f1_macro", "log_loss"):
        low, high = getattr(metrics, f"{key}_interval")
        assert low < getattr(metrics, key) < high
    again = compute_metrics(probabilities, labels, np.ones((60, 2), int), 1)
    assert again == metrics


def test_bootstrap_intervals_shrink_with_the_videos_and_agree_with_the_normal_ones():
    labels, probabilities = draw_answers(2, 4_000)
    hits = probabilities.argmax(axis=1) == labels
    hits[1] = False
    recalls = [hits[labels == label] for label in (0, 1)]
    spread_of_mean = np.sqrt(sum(r.var() / len(r) for r in recalls)) / 2
    metrics = compute_metrics(probabilities, labels, np.ones((4_000, 2), int), 1)
    low, high = metrics.mean_class_accuracy_interval
    assert high - low == pytest.approx(2 * 1.96 * spread_of_mean, rel=0.1)
    low, high = metrics.log_loss_interval
    losses = -np.log(np.delete(probabilities[np.arange(4_000), labels], 1))
    assert high - low == pytest.approx(2 * 1.96 * losses.std() / np.sqrt(3_999), rel=0.1)


def test_calibration_error_by_hand():
    # Two videos in the bin 0.6 to 0.667, one right; one wrong at 1; one right at 0.2, the end of a bin.
    confidences, is_right = np.array([0.625, 0.65, 1.0, 0.2]), np.array([True, False, False, True])
    assert calibration_error(confidences, is_right) == pytest.approx((abs(1 - 1.275) + 1.0 + 0.8) / 4)


def test_without_any_prediction_there_are_no_figures_of_probabilities():
    metrics = compute_metrics(np.full((3, 2), np.nan, "f4"), np.array([0, 1, 1]), np.zeros((3, 2), int), 1)
    assert (metrics.top1, metrics.f1_macro, metrics.num_bad_videos) == (0.0, 0.0, 3)
    assert {metrics.log_loss, metrics.log_loss_interval, metrics.calibration_error, metrics.roc_auc} == {None}


def test_two_classes_of_which_one_was_tested_have_no_roc():
    metrics = compute_metrics(np.array([[0.7, 0.3]], "f4"), np.array([0]), np.ones((1, 2), int), 1)
    assert (metrics.roc_auc, metrics.average_precision) == (None, None)
    assert metrics.log_loss == pytest.approx(-np.log(0.7))


def test_score_classes_names_the_worst_mix_up_and_keeps_empty_classes():
    ranked = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [-1, -1]])
    scores = score_classes(ranked, np.array([0, 0, 0, 1, 1]), 3)
    # Class 0: one of three recognised, never predicted wrongly; class 1: predicted for three videos, one right.
    assert scores[0] == (0, 3, pytest.approx(1 / 3), 1.0, 1.0, pytest.approx(0.5), 1, 2, wilson_interval(1 / 3, 3))
    assert scores[1] == (1, 2, 0.5, 0.5, pytest.approx(1 / 3), pytest.approx(0.4), -1, 0, wilson_interval(0.5, 2))
    assert scores[2][:2] == (2, 0)
    assert np.isnan([*scores[2][2:6], *scores[2].interval]).all()
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
