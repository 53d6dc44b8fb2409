import math

import numpy as np
import pytest

from vswin.training.optimizer import WarmupCosine

STEPS = 40


def official(is_staircase: bool = True) -> WarmupCosine:
    return WarmupCosine(1e-3, STEPS, epochs=30, warmup_epochs=2.5, warmup_ratio=0.1, is_staircase=is_staircase)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 1.000e-4),
        (0.5, 2.800e-4),
        (1, 4.587e-4),
        (2, 8.110e-4),
        (2.5, 9.891e-4),
        (15, 5.000e-4),
        (29.5, 2.739e-6),
    ],
)
def test_staircase_equals_the_official_values(epoch, rate):
    """Values computed with mmcv's CosineAnnealing hook under linear warm-up, Kinetics recipe of Swin-T."""
    assert float(official()(round(epoch * STEPS))) == pytest.approx(rate, rel=5e-4)


def test_staircase_is_flat_within_an_epoch_and_falls_between():
    rates = [float(official()(step)) for step in range(5 * STEPS, 7 * STEPS)]
    assert len(set(rates[:STEPS])) == 1
    assert len(set(rates[STEPS:])) == 1
    assert rates[STEPS] < rates[0]


def test_per_step_cosine_is_exact_and_ends_near_zero():
    schedule = official(is_staircase=False)
    step = 17 * STEPS + 13
    assert float(schedule(step)) == pytest.approx(5e-4 * (1 + math.cos(math.pi * step / (30 * STEPS))), rel=1e-5)
    assert 0 <= float(schedule(30 * STEPS)) < 1e-9


def test_without_warmup_the_first_rate_is_the_full_one():
    assert float(WarmupCosine(0.02, STEPS, epochs=3)(0)) == pytest.approx(0.02)


def test_first_step_of_every_epoch_belongs_to_it():
    """In float32, step / steps_per_epoch can round below the epoch's number."""
    schedule = WarmupCosine(1.0, 49, epochs=300, is_staircase=True)
    rates = np.array([float(schedule(49 * epoch)) for epoch in range(300)])
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(300) / 300))
    np.testing.assert_allclose(rates, expected, atol=1e-5)


def test_config_round_trip():
    schedule = official()
    again = WarmupCosine.from_config(schedule.get_config())
    assert [float(again(step)) for step in (0, 60, 700)] == [float(schedule(step)) for step in (0, 60, 700)]
