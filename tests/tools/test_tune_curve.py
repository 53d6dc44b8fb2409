"""Simulated curves whose answers are known."""

import numpy as np
import pytest

from vswin.tools.tune_rates import smooth, suggest

RATES = np.geomspace(1e-7, 1, 141)  # 20 steps per decade


def falling_then_diverging(noise=0.0):
    """Falls by 1.5 around 1e-3 and rises from 1e-1 on."""
    decades = np.log10(RATES)
    losses = 2.0 - 1.5 / (1 + np.exp(-6 * (decades + 3))) + 20 * np.clip(decades + 1, 0, None) ** 2
    return losses + noise * np.random.default_rng(0).standard_normal(len(losses))


def test_a_smoothed_curve_is_not_delayed_and_keeps_a_line():
    assert smooth([3.0] * 30) == pytest.approx([3.0] * 30)
    line = np.arange(100.0)
    assert smooth(line)[30:70] == pytest.approx(line[30:70])


def test_the_lower_of_both_rules_is_suggested_and_noise_moves_it_little():
    found = suggest(RATES, falling_then_diverging(), has_diverged=True)
    assert found.warnings == ()
    assert (found.steepest, found.third) == (pytest.approx(1e-3), pytest.approx(10**-1.75 / 3))
    assert found.rate == 1e-3
    found = suggest(RATES, falling_then_diverging(noise=0.1), has_diverged=True)
    assert found.warnings == ()
    assert 5e-4 < found.rate < 2e-3


def test_a_third_of_the_lowest_counts_where_the_fall_is_late():
    losses = np.where(np.arange(141) < 120, 2.0, 2.0 - 0.15 * (np.arange(141) - 119)).tolist()
    losses[130:] = [8.0] * 11
    found = suggest(RATES, losses, has_diverged=True)
    assert found.third < found.steepest
    assert found.rate == float(f"{found.third:.1e}")


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (np.full(141, 2.0), "never fell by more than its noise"),
        (2.0 + 0.2 * np.random.default_rng(1).standard_normal(141), "never fell by more than its noise"),
        (np.linspace(1, 3, 141), "never fell by more than its noise"),
        ([], "not finite at the first step"),
        (np.linspace(3, 1, 19), "the loss diverged after 19 steps, too few for a suggestion: lower --min"),
    ],
)
def test_a_curve_that_does_not_fall_or_is_too_short_suggests_nothing_and_says_why(losses, words):
    found = suggest(RATES[: len(losses)], losses, has_diverged=True)
    assert found.rate is None
    assert [words in warning for warning in found.warnings] == [True]


def test_a_loss_that_still_falls_at_the_end_is_told():
    found = suggest(RATES, np.linspace(3, 1, 141), has_diverged=False)
    assert found.rate is not None
    assert any("raise --max" in warning for warning in found.warnings)
