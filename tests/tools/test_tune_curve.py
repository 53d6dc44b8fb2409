"""Simulated curves whose answers are known."""

import numpy as np
import pytest

from vswin.tools.tune_curve import smooth, suggest

RATES = np.geomspace(1e-7, 1, 141)  # 20 steps per decade


def falling_then_diverging(noise=0.0):
    """Falls by 1.5 around 1e-3 and rises from 1e-1 on."""
    places = np.log10(RATES)
    losses = 2.0 - 1.5 / (1 + np.exp(-6 * (places + 3))) + 20 * np.clip(places + 1, 0, None) ** 2
    return losses + noise * np.random.default_rng(0).standard_normal(len(losses))


def test_a_smoothed_curve_is_not_delayed_and_keeps_a_line():
    assert smooth([3.0] * 30) == pytest.approx([3.0] * 30)
    line = np.arange(100.0)
    assert smooth(line)[30:70] == pytest.approx(line[30:70])


def test_the_lower_of_both_rules_is_suggested():
    found = suggest(RATES, falling_then_diverging(), has_diverged=True)
    assert found.warnings == ()
    assert found.steepest == pytest.approx(1e-3)
    assert found.third == pytest.approx(10**-1.75 / 3)
    assert found.rate == 1e-3


def test_noise_of_batches_moves_the_suggestion_little():
    found = suggest(RATES, falling_then_diverging(noise=0.1), has_diverged=True)
    assert found.warnings == ()
    assert 5e-4 < found.rate < 2e-3


def test_a_third_of_the_lowest_counts_where_the_fall_is_late():
    losses = np.where(np.arange(141) < 120, 2.0, 2.0 - 0.15 * (np.arange(141) - 119)).tolist()
    losses[130:] = [8.0] * 11
    found = suggest(RATES, losses, has_diverged=True)
    assert found.third < found.steepest
    assert found.rate == float(f"{found.third:.1e}")


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_flat_curve_suggests_nothing(noise):
    losses = 2.0 + noise * np.random.default_rng(1).standard_normal(141)
    found = suggest(RATES, losses, has_diverged=False)
    assert found.rate is None
    assert len(found.warnings) == 1
    assert "never fell by more than its noise" in found.warnings[0]


def test_a_curve_that_only_rises_suggests_nothing():
    assert suggest(RATES, np.linspace(1, 3, 141), has_diverged=True).rate is None


def test_no_finite_loss_at_all_is_said_to_be_no_matter_of_the_rate():
    found = suggest([], [], has_diverged=True)
    assert found.rate is None
    assert "not finite at the first step" in found.warnings[0]


def test_too_few_steps_suggest_nothing():
    found = suggest(RATES[:19], np.linspace(3, 1, 19), has_diverged=True)
    assert found.rate is None
    assert found.warnings == (
        "the loss diverged after 19 steps, too few for a suggestion: lower --min, or take more --steps",
    )


def test_a_loss_that_still_falls_at_the_end_is_told():
    found = suggest(RATES, np.linspace(3, 1, 141), has_diverged=False)
    assert found.rate is not None
    assert any("raise --max" in warning for warning in found.warnings)
