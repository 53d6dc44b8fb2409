"""The figures of several labels per sample, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, recall_score

from vswin.runs.multi_label import (
    average_precisions,
    choose_thresholds,
    compute_multi_label,
    draw_resamples,
    resample_map,
)


@pytest.fixture
def tested():
    """Six classes, the last without positives; scores with ties; the last two videos are bad."""
    rng = np.random.default_rng(3)
    targets = (rng.random((60, 6)) < [0.5, 0.3, 0.2, 0.1, 0.1, 0.0]).astype("f4")
    scores = np.round(np.clip(0.3 * targets + rng.random((60, 6)) * 0.7, 0.01, 0.99), 1).astype("f4")
    scores[-2:] = np.nan
    return targets, scores, np.where(np.isnan(scores), -1, scores)


def test_average_precisions_are_those_of_scikit_learn_also_in_resamples(tested):
    targets, scores, ranked = tested
    expected = [average_precision_score(targets[:, label], ranked[:, label]) for label in range(5)]
    np.testing.assert_allclose(average_precisions(targets, scores), [*expected, np.nan])
    counts = draw_resamples(60)[:20]
    assert (counts.sum(axis=1) == 60).all()
    for row, found in zip(counts, average_precisions(targets, scores, counts), strict=True):
        there = np.flatnonzero(row @ targets)
        weighed = [average_precision_score(targets[:, k], ranked[:, k], sample_weight=row) for k in there]
        np.testing.assert_allclose(found[there], weighed)
        assert np.isnan(found).sum() == 6 - len(there)
    assert resample_map(targets, scores, counts)[-1] == pytest.approx(np.mean(weighed))


def test_figures_are_those_of_scikit_learn(tested):
    targets, scores, ranked = tested
    thresholds = np.linspace(0.3, 0.6, 6)
    predicted, metrics = ranked >= thresholds, compute_multi_label(targets, scores, thresholds)
    assert metrics.f1_micro == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert metrics.f1_macro == pytest.approx(f1_score(targets[:, :5], predicted[:, :5], average="macro"))
    assert metrics.precision_micro == pytest.approx(precision_score(targets, predicted, average="micro"))
    assert metrics.recall_micro == pytest.approx(recall_score(targets, predicted, average="micro"))
    losses = [log_loss(targets[:-2, label], scores[:-2, label].astype("f8"), labels=[0, 1]) for label in range(6)]
    assert metrics.log_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics.map == pytest.approx(np.nanmean(average_precisions(targets, scores)))
    assert metrics.map_interval[0] < metrics.map < metrics.map_interval[1]
    assert metrics.f1_macro_interval[0] < metrics.f1_macro < metrics.f1_macro_interval[1]
    assert (metrics.num_videos, metrics.num_bad_videos, metrics.num_classes, metrics.num_empty_classes) == (60, 2, 6, 1)


def test_thresholds_give_the_highest_f1_of_each_class(tested):
    targets, scores, ranked = tested
    thresholds = choose_thresholds(targets, scores)
    assert thresholds[5] == 0.5
    for label in range(5):
        tried = [f1_score(targets[:, label], ranked[:, label] >= threshold) for threshold in np.arange(0.005, 1, 0.01)]
        assert f1_score(targets[:, label], ranked[:, label] >= thresholds[label]) == pytest.approx(max(tried))
        # No video lies at a threshold, where rounding would decide.
        assert not np.isclose(ranked[:, label], thresholds[label]).any()
