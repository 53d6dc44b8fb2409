"""Tests of `vswin.compare.statistics` against values worked out by hand and against slower ways to the same."""

import math
from fractions import Fraction

import numpy as np
import pytest

from vswin.compare.statistics import bootstrap_interval, count_discordant, format_p, holm, mcnemar_p


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # one coin says nothing
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (1, 9, 2 * (1 + 10) / 1024),
        (3, 7, 2 * (1 + 10 + 45 + 120) / 1024),
        (5, 5, 1.0),
    ],
)
def test_mcnemar_by_hand(first, second, p_value):
    assert mcnemar_p(first, second) == pytest.approx(p_value, rel=1e-6)
    assert mcnemar_p(second, first) == mcnemar_p(first, second)


def test_mcnemar_is_the_sum_of_all_outcomes_that_are_at_most_as_likely():
    for count in range(1, 40):
        chances = [Fraction(math.comb(count, k), 2**count) for k in range(count + 1)]
        for first in range(count + 1):
            expected = sum(chance for chance in chances if chance <= chances[first])
            assert mcnemar_p(first, count - first) == pytest.approx(float(expected), rel=1e-12)


def test_many_videos_neither_overflow_nor_take_long():
    assert mcnemar_p(9_000, 11_000) == pytest.approx(math.erfc(1_999 / math.sqrt(20_000) / math.sqrt(2)), rel=0.02)
    assert mcnemar_p(0, 5_000) == 0.0  # 2 to the power of -4999, which is no float


def test_the_interval_is_that_of_drawing_video_by_video():
    num_videos, first, second = 200, 12, 26
    differences = np.repeat([-1, 1, 0], [first, second, num_videos - first - second])
    rng = np.random.default_rng(7)
    means = differences[rng.integers(num_videos, size=(20_000, num_videos))].mean(axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(first, second, num_videos) == pytest.approx(expected, abs=0.006)
    # And by hand: the mean plus or minus 1.96 standard errors.
    error = math.sqrt(((first + second) / num_videos - 0.07**2) / num_videos)
    low, high = bootstrap_interval(first, second, num_videos)
    assert (low, high) == pytest.approx((0.07 - 1.96 * error, 0.07 + 1.96 * error), abs=0.006)


def test_the_interval_is_repeatable_and_turns_with_the_pair():
    low, high = bootstrap_interval(30, 70, 1_000)
    assert bootstrap_interval(30, 70, 1_000) == (low, high)
    assert bootstrap_interval(70, 30, 1_000) == (-high, -low)
    assert bootstrap_interval(0, 0, 10) == (0.0, 0.0)
    assert bootstrap_interval(0, 10, 10) == (1.0, 1.0)


def test_discordant_videos_are_counted():
    first, second = np.array([True, True, True, False, False]), np.array([True, False, False, True, False])
    assert count_discordant(first, second) == (2, 1)


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, none below the one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_p_values_as_papers_write_them():
    assert [format_p(p) for p in (1.0, 0.451, 0.049, 0.02, 0.0034, 0.00099, 0.0)] == [
        "p = 1",
        "p = 0.45",
        "p = 0.049",
        "p = 0.02",
        "p = 0.0034",
        "p < 0.001",
        "p < 0.001",
    ]
