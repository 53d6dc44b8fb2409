"""Suggest a learning rate from the losses of a range test, and plot the curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vswin.atomic import replacing

# Width of the smoothing as a share of the curve: wide enough for the noise of batches, narrow enough for the slope.
_WIDTH = 1 / 25
_FEWEST_POINTS = 20
# Divisor for the rate of the lowest loss: that rate is the largest that still trains, and the best rate is below it.
_BELOW_LOWEST = 3
# A loss that falls by less than this share of its first value counts as flat.
_LEAST_FALL = 0.02
_FLAT = (
    "the loss never fell by more than its noise, so the curve suggests nothing: try more --steps, a larger batch_size, "
    "or a higher --max; weights that are trained already have little to gain"
)
# Okabe and Ito's colours, which most people tell apart.
_RAW, _SMOOTH, _MARK, _OTHER = "#999999", "#0072B2", "#D55E00", "#009E73"


@dataclass(frozen=True)
class Suggestion:
    """The learning rates that a curve suggests.

    Args:
        steepest: the rate at which the smoothed loss falls fastest; None if the loss did not fall.
        third: a third of the rate at which the smoothed loss is lowest; None if the loss did not fall.
        warnings: why the curve may mislead, one sentence each.
    """

    steepest: float | None
    third: float | None
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """Gives the lower of the two rates, to two digits; None if the loss did not fall."""
        if self.steepest is None or self.third is None:
            return None
        return float(f"{min(self.steepest, self.third):.1e}")


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Averages finite losses [N] with their neighbours on both sides by a Gaussian, without delay: float64 [N]."""
    values = np.asarray(losses, np.float64)
    width = max(1.0, _WIDTH * len(values))
    distance = np.arange(len(values))[:, None] - np.arange(len(values))  # [N, N]
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights @ values / weights.sum(axis=1)


def suggest(rates: Sequence[float], losses: Sequence[float], has_diverged: bool) -> Suggestion:
    """Reads a learning rate off a curve.

    Args:
        rates: rising rate of each step, [N].
        losses: finite loss of each step, [N].
        has_diverged: whether the test ended because the loss diverged.

    Returns:
        The rates of both rules, and warnings.

    Source: L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015, section 3.3, for the test and for a
        third of the largest rate; fastai, `fastai.callback.schedule.steep`, for the fastest fall. fastai's `minimum`, a
        tenth of the rate of the lowest loss, is too low here. Measured with swin_micro on motion: the lower of both
        rules gives 4.6e-4 to 9.8e-4 for four seeds; two epochs reach 83.5 % at 1.3e-4 (that tenth), 98.8 % at 4.5e-4,
        97.3 % at 1.6e-3 and 88.7 % at 3e-3.
    """
    if len(losses) == 0:
        return Suggestion(
            None,
            None,
            (
                "the loss is not finite at the first step, where nothing has been trained yet: look at the weights "
                "(init_from) and the clips (vswin data show), and try runtime.precision=float32",
            ),
        )
    if len(losses) < _FEWEST_POINTS:
        why = "the loss diverged" if has_diverged else "there are only"
        found = f"{why} after {len(losses)} steps, too few for a suggestion: lower --min, or take more --steps"
        return Suggestion(None, None, (found,))
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


def draw_curve(path: Path, rates: Sequence[float], losses: Sequence[float], found: Suggestion, title: str) -> None:
    """Draws raw and smoothed losses over the learning rate, with the suggested rates, into a PNG file."""
    # The import takes half a second, and only plots need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=_RAW, linewidth=1, marker=".", markersize=4, label="loss of each batch")
    smoothed = smooth(losses)
    axes.plot(rates, smoothed, color=_SMOOTH, linewidth=2.2, label="smoothed")
    if found.rate is not None and found.steepest is not None and found.third is not None:
        # Wide and behind the line of its rule, so that both are visible.
        axes.axvline(found.rate, color=_MARK, linewidth=5, alpha=0.5, zorder=1, label=f"suggested: {found.rate:.1e}")
        axes.axvline(found.steepest, color=_OTHER, linestyle=":", label=f"falls fastest: {found.steepest:.1e}")
        axes.axvline(found.third, color=_OTHER, linestyle="--", label=f"a third of the lowest: {found.third:.1e}")
    # The last losses may be far above all others; the axis ends a little above the first ones.
    top, bottom = 1.3 * float(smoothed[: max(1, len(smoothed) // 4)].max()), float(min(losses))
    axes.set_ylim(max(0.0, bottom - 0.05 * (top - bottom)), max(top, bottom + 1e-6))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate (optimizer.learning_rate)")
    axes.set_ylabel("training loss")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes, the legend covers nothing.
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
