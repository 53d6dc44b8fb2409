"""Draw the curve of a learning-rate range test; needs no display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vswin.atomic import replacing
from vswin.tune.curve import Suggestion, smooth

# Okabe and Ito's colours, which most people tell apart.
_RAW, _SMOOTH, _MARK, _OTHER = "#999999", "#0072B2", "#D55E00", "#009E73"


def draw_curve(path: Path, rates: Sequence[float], losses: Sequence[float], found: Suggestion, title: str) -> None:
    """Draws raw and smoothed losses over the learning rate, with the rates that were found.

    Args:
        path: The PNG file, in a folder that exists.
        rates: Of each step.
        losses: Of each step, finite.
        found: What the curve suggests.
        title: What was trained.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=_RAW, linewidth=1, marker=".", markersize=4, label="loss of each batch")
    smoothed = smooth(losses)
    axes.plot(rates, smoothed, color=_SMOOTH, linewidth=2.2, label="smoothed")
    if found.rate is not None and found.steepest is not None and found.third is not None:
        # Wide and behind the rule it follows, so that both are seen.
        axes.axvline(found.rate, color=_MARK, linewidth=5, alpha=0.5, zorder=1, label=f"suggested: {found.rate:.1e}")
        axes.axvline(found.steepest, color=_OTHER, linestyle=":", label=f"falls fastest: {found.steepest:.1e}")
        axes.axvline(found.third, color=_OTHER, linestyle="--", label=f"a third of the lowest: {found.third:.1e}")
    # The last steps may be far above all others; what matters is below the beginning.
    top, bottom = 1.3 * float(smoothed[: max(1, len(smoothed) // 4)].max()), float(min(losses))
    axes.set_ylim(max(0.0, bottom - 0.05 * (top - bottom)), max(top, bottom + 1e-6))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate (optimizer.learning_rate)")
    axes.set_ylabel("training loss")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes it covers nothing.
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
