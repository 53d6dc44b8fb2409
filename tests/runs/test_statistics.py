"""Tests of `vswin.runs.statistics` against values computed by hand and by slower methods."""

import math
from fractions import Fraction

import numpy as np
import pytest

from vswin.runs.statistics import difference_interval, mcnemar_p


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # one coin proves nothing
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
    assert mcnemar_p(0, 5_000) == 0.0  # 2 to the power of -4999, too small for a float


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(7)
    for share, surplus, num_videos in ((0.05, 0.0, 200), (0.3, 0.8, 100), (0.5, 0.9, 2_000)):
        kinds = [share * (1 - surplus) / 2, share * (1 + surplus) / 2, 1 - share]
        draws = rng.multinomial(num_videos, kinds, 300).tolist()
        intervals = [difference_interval(first, second, num_videos) for first, second, _ in draws]
        assert np.mean([low <= share * surplus <= high for low, high in intervals]) >= 0.93
        # And it is hardly wider than the mean plus and minus 1.96 standard errors.
        error = math.sqrt((share - (share * surplus) ** 2) / num_videos)
        assert np.mean([high - low for low, high in intervals]) < 1.1 * 2 * 1.96 * error


def test_the_interval_turns_with_the_pair_and_stays_within_what_is_possible():
    low, high = difference_interval(30, 70, 1_000)
    assert difference_interval(70, 30, 1_000) == (-high, -low)
    low, high = difference_interval(0, 0, 10)
    assert -low == high == pytest.approx(0.28, abs=0.01)  # no difference in ten videos
    low, high = difference_interval(0, 10, 10)
    assert (low > 0.2, high) == (True, 1.0)
