"""Test whether one model is better than another on the same videos: exact McNemar test and a matching interval."""

from __future__ import annotations

import math

import numpy as np

from vswin.runs.metrics import wilson_interval

_NUM_HALVINGS = 60


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Tests whether two models are right equally often, by the videos that only one of them got right.

    If they are, each of these videos belongs to either model with the same probability, independently of the others.

    Returns:
        The exact two-sided p-value, 0..1; 1 if there are no such videos.

    Source: Q. McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages,
        1947, with the binomial distribution in place of its approximation.
    """
    count, smaller = num_only_first + num_only_second, min(num_only_first, num_only_second)
    if 2 * smaller == count:
        return 1.0
    # Integers up to the only division: nothing underflows, however many videos there are.
    ways = tail = 1
    for chosen in range(1, smaller + 1):
        ways = ways * (count - chosen + 1) // chosen
        tail += ways
    return min(1.0, tail / 2 ** (count - 1))


def difference_interval(
    num_only_first: int, num_only_second: int, num_videos: int, level: float = 0.95
) -> tuple[float, float]:
    """Gives the interval of accuracy of the second - accuracy of the first, -1..1, for other videos of the same kind.

    The difference is a product: the share of the videos that only one model gets right, times the surplus of the second
    model among them. The limits of both factors (Wilson; Clopper and Pearson, which inverts the exact McNemar test) are
    combined by the method of Zou and Donner. Where that would contradict the test, the limits are multiplied instead,
    so that the interval excludes 0 exactly when `mcnemar_p` < 1 - level.

    Source: G. Y. Zou and A. Donner, Construction of Confidence Limits about Effect Measures: A General Approach, 2008.
    """
    return (
        -_largest_difference(num_only_second, num_only_first, num_videos, level),
        _largest_difference(num_only_first, num_only_second, num_videos, level),
    )


def _largest_difference(num_only_first: int, num_only_second: int, num_videos: int, level: float) -> float:
    count = num_only_first + num_only_second
    share, surplus = count / num_videos, (num_only_second - num_only_first) / max(count, 1)
    fewest, most = wilson_interval(share, num_videos, level)
    limit = 1 - 2 * _smallest_share(num_only_first, count, (1 - level) / 2)
    if count == 0:
        return most
    reach = math.hypot(share * (limit - surplus), surplus * ((most if surplus > 0 else fewest) - share))
    return min(share * surplus + reach, limit * fewest if limit < 0 else 1.0)


def _smallest_share(hits: int, count: int, chance: float) -> float:
    """Finds the share of hits at which `hits` or more of `count` have the probability `chance`."""
    if hits == 0:
        return 0.0
    numbers = np.arange(hits, count + 1)
    ways = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in numbers.tolist()]
    low, high = 0.0, 1.0
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        tail = np.exp(ways + numbers * math.log(middle) + (count - numbers) * math.log1p(-middle)).sum()
        low, high = (low, middle) if tail > chance else (middle, high)
    return low
