"""What the losses of a learning-rate range test suggest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Width of the smoothing as a share of the curve: wide enough for the noise of batches, narrow for the slope.
_WIDTH = 1 / 25
_FEWEST_POINTS = 20
# What divides the rate of the lowest loss: there the rate is the largest that still teaches, and the best is below it.
_BELOW_LOWEST = 3
# A loss that fell by less than this share of its first value is called flat.
_LEAST_FALL = 0.02


@dataclass(frozen=True)
class Suggestion:
    """Holds what a curve suggests.

    Args:
        steepest: the rate at which the smoothed loss falls fastest; None where it did not fall.
        third: a third of the rate at which the smoothed loss is lowest; None where it did not fall.
        warnings: why the curve may not tell, a sentence each.
    """

    steepest: float | None
    third: float | None
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """Gives the lower of the two, to two digits; None where the loss did not fall."""
        if self.steepest is None or self.third is None:
            return None
        return float(f"{min(self.steepest, self.third):.1e}")


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Averages each loss with its neighbours on both sides, by a Gaussian; so that nothing is delayed.

    Args:
        losses: finite, [N].

    Returns:
        float64 [N].
    """
    values = np.asarray(losses, np.float64)
    width = max(1.0, _WIDTH * len(values))
    distance = np.arange(len(values))[:, None] - np.arange(len(values))  # [N, N]
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights @ values / weights.sum(axis=1)


def suggest(rates: Sequence[float], losses: Sequence[float], has_diverged: bool) -> Suggestion:
    """Reads a learning rate off a curve.

    Args:
        rates: of each step, rising, [N].
        losses: of each step, finite, [N].
        has_diverged: whether the test ended because the loss did.

    Returns:
        The rates of both rules, and what speaks against them.

    Source: L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015, section 3.3, for the test, and for
        a third of the largest rate; fastai, `fastai.callback.schedule.steep`, for the fastest fall. fastai's `minimum`,
        a tenth of the rate of the lowest loss, is too low here: four seeds of swin_micro on motion suggest 4.6e-4 to
        9.8e-4 by the lower of both rules, and two epochs reach 83.5 % at 1.3e-4 (that tenth), 98.8 % at 4.5e-4, 97.3 %
        at 1.6e-3 and 88.7 % at 3e-3.
    """
    if len(losses) < _FEWEST_POINTS:
        return Suggestion(None, None, (_too_few(len(losses), has_diverged),))
    smoothed = smooth(losses)
    lowest = int(smoothed.argmin())
    before = np.asarray(losses)[: lowest + 1] - smoothed[: lowest + 1]
    fall = float(smoothed[0] - smoothed[lowest])
    if lowest < 2 or fall < max(_LEAST_FALL * abs(float(smoothed[0])), float(before.std())):
        return Suggestion(None, None, (_FLAT,))
    slopes = np.gradient(smoothed, np.log10(np.asarray(rates)))
    steepest = int(slopes[: lowest + 1].argmin())
    warnings = []
    if not has_diverged and lowest == len(losses) - 1:
        warnings.append("the loss was still falling at the highest rate: raise --max to see where it turns")
    if steepest < 2:
        warnings.append("the loss fell fastest at the very first rates: lower --min to see where that begins")
    if lowest + 1 < _FEWEST_POINTS:
        warnings.append(f"the loss is lowest after {lowest + 1} steps already: more --steps give a better curve")
    return Suggestion(float(rates[steepest]), float(rates[lowest]) / _BELOW_LOWEST, tuple(warnings))


_FLAT = (
    "the loss never fell by more than its noise, so the curve suggests nothing: try more --steps, a larger batch_size, "
    "or a higher --max; weights that are trained already have little to gain"
)


def _too_few(number: int, has_diverged: bool) -> str:
    if number == 0:
        return (
            "the loss is not finite at the first step, where nothing has been trained yet: look at the weights "
            "(init_from) and the clips (vswin data show), and try runtime.precision=float32"
        )
    why = "the loss diverged" if has_diverged else "there are only"
    return f"{why} after {number} steps, too few for a suggestion: lower --min, or take more --steps"
