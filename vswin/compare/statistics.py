"""Is one model better than another on the same videos: exact McNemar test, bootstrap interval, Holm correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 10_000
_SEED = 0


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Tests whether two models are right equally often, by the videos that one of them alone got right.

    If they are, each of these videos is as likely to be the one's as the other's, whatever the others are.

    Args:
        num_only_first: Videos that only the first got right, >= 0.
        num_only_second: Videos that only the second got right, >= 0.

    Returns:
        The exact two-sided p-value, 0..1; 1 where there are no such videos.

    Source: Q. McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages,
        1947, with the binomial distribution in place of its approximation.
    """
    count, smaller = num_only_first + num_only_second, min(num_only_first, num_only_second)
    if 2 * smaller == count:
        return 1.0
    # Whole numbers up to the one division: nothing underflows, however many videos there are.
    ways = tail = 1
    for chosen in range(1, smaller + 1):
        ways = ways * (count - chosen + 1) // chosen
        tail += ways
    return min(1.0, tail / 2 ** (count - 1))


def bootstrap_interval(
    num_only_first: int, num_only_second: int, num_videos: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float]:
    """Says how far the difference of two accuracies might be another on other videos of the same kind.

    Videos are drawn again, with both their answers, so that the answers stay paired. Of a drawn video only matters
    which of three kinds it is of (one model alone is right, the other alone, neither alone), so the numbers of each
    kind are drawn at once, from the multinomial distribution that drawing video by video gives.

    Args:
        num_only_first: Videos that only the first got right.
        num_only_second: Videos that only the second got right.
        num_videos: All videos, N >= 1.
        num_resamples: Draws of N videos each.

    Returns:
        2.5 and 97.5 % quantiles of (accuracy of the second - accuracy of the first), -1..1. The same numbers give the
        same interval.

    Source: B. Efron, Bootstrap Methods: Another Look at the Jackknife, 1979; the percentile interval.
    """
    if num_only_first > num_only_second:
        # Which of two runs is named first must not change more than the sign.
        low, high = bootstrap_interval(num_only_second, num_only_first, num_videos, num_resamples)
        return -high, -low
    kinds = np.array([num_only_first, num_only_second, num_videos - num_only_first - num_only_second]) / num_videos
    draws = np.random.default_rng(_SEED).multinomial(num_videos, kinds, size=num_resamples)  # int64 [R, 3]
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / num_videos, [0.025, 0.975])
    return float(low), float(high)


def count_discordant(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Counts the videos that one of two models alone got right.

    Args:
        first: Which videos the first got right, bool [N].
        second: The same of the second, bool [N], in the same order.

    Returns:
        How many only the first got right, and how many only the second.
    """
    return int((first & ~second).sum()), int((second & ~first).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for there being several, so that the chance of any false alarm stays what it is for one.

    Args:
        p_values: M of them, 0..1.

    Returns:
        M corrected ones, 0..1, in the same order.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def format_p(p_value: float) -> str:
    """Writes a p-value as papers do, e.g. "p = 0.02" or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
