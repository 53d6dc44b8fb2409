"""Draw the plots of a report, for the page as SVG in its colours, light or dark, and as PNG; needs no display."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter


class Colors(NamedTuple):
    """Name the colours of a plot.

    Attributes:
        ink: Of text.
        grid: Of axes and grid.
        lines: Of what is drawn.
    """

    ink: str
    grid: str
    lines: tuple[str, ...]


# Okabe and Ito's, which most people tell apart, their yellow darkened.
_ON_WHITE = Colors("#333333", "#bbbbbb", ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8a6d00", "#56B4E9"))
# Stand-ins, which the SVG has exchanged for the colours of the page's style sheet, light or dark; black is none of
# them, for Matplotlib leaves it out.
_IN_PAGE = Colors("#010101", "#020202", tuple(f"#03030{number}" for number in range(6)))
_STYLES = ("-", "--", "-.", ":")
_SIZE = (5.4, 3.1)  # inches
# Text stays text, in the font of the page, and no name is a formula.
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False}
# Rates of which one is so many times another are not seen on the same linear axis.
_LOG_RATIO = 5


class Line(NamedTuple):
    """Hold what is drawn as one line.

    Attributes:
        name: For the legend; may be empty.
        values: After each epoch, float64 [E]; NaN where there is none.
        color: Number of its colour.
        style: Number of its style.
    """

    name: str
    values: np.ndarray
    color: int = 0
    style: int = 0


class Panel(NamedTuple):
    """Hold a plot over epochs.

    Attributes:
        title: What is drawn, with its unit.
        lines: At least one.
        is_share: Whether the values are shares, shown as percent.
        is_log: Whether the axis is logarithmic.
    """

    title: str
    lines: list[Line]
    is_share: bool = False
    is_log: bool = False


def find_panels(history: Mapping[str, np.ndarray]) -> list[Panel]:
    """Chooses what is drawn of a history: loss, accuracy, learning rates and throughput, as far as they are there."""

    def lines(*wanted: tuple[str, str, int, int]) -> list[Line]:
        return [
            Line(name, history[column], color, style)
            for column, name, color, style in wanted
            if column in history and np.isfinite(history[column]).any()
        ]

    rates = _learning_rates(history)
    highest = [np.nanmax(line.values) for line in rates]
    is_log = bool(rates) and min(highest) > 0 and max(highest) / min(highest) >= _LOG_RATIO
    panels = [
        Panel(
            "loss",
            lines(
                ("loss", "training", 0, 0),
                ("val_loss", "validation", 1, 0),
                ("val_ema_loss", "validation, averaged weights", 2, 1),
            ),
        ),
        Panel(
            "accuracy, %",
            lines(
                ("top1", "training, top-1", 0, 0),
                ("val_top1", "validation, top-1", 1, 0),
                ("val_ema_top1", "validation, top-1, averaged weights", 2, 1),
                ("val_top5", "validation, top-5", 3, 3),
            ),
            is_share=True,
        ),
        Panel("learning rate at the end of an epoch", rates, is_log=is_log),
        Panel("training clips per second", lines(("clips_per_sec", "", 0, 0))),
    ]
    return [panel for panel in panels if panel.lines]


def draw_panel(panel: Panel, epochs: np.ndarray) -> str:
    """Draws one plot for the page.

    Args:
        panel: what is drawn.
        epochs: numbers of the epochs, float64 [E].

    Returns:
        An SVG element.
    """
    with rc_context(_SETTINGS):
        return _as_svg(lambda axes, colors: _draw_lines(axes, colors, panel, epochs))


def draw_all(panels: Sequence[Panel], epochs: np.ndarray) -> bytes:
    """Draws plots beside and below each other, for a picture file.

    Args:
        panels: at least one.
        epochs: numbers of the epochs, float64 [E].

    Returns:
        A PNG.
    """
    num_columns = min(2, len(panels))
    num_rows = -(-len(panels) // num_columns)
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(num_columns * _SIZE[0], num_rows * _SIZE[1]), layout="constrained")
        for place, panel in enumerate(panels):
            _draw_lines(figure.add_subplot(num_rows, num_columns, place + 1), _ON_WHITE, panel, epochs)
        return _as_png(figure)


def draw_class_accuracy(shares: np.ndarray) -> tuple[str, bytes]:
    """Draws the accuracies of many classes, the lowest first.

    Args:
        shares: float64 [K], 0..1.

    Returns:
        An SVG element for the page, and a PNG.
    """
    values = np.sort(shares)

    def draw(axes: Axes, colors: Colors) -> None:
        ends = np.append(values, values[-1])
        axes.fill_between(np.arange(len(ends)), ends, step="post", color=colors.lines[0], alpha=0.45)
        axes.axhline(values.mean(), color=colors.lines[1], linestyle="--", linewidth=1.4)
        mean = f"mean {100 * values.mean():.1f}"
        axes.annotate(mean, (0, values.mean()), xytext=(4, 4), textcoords="offset points", color=colors.ink, fontsize=9)
        axes.set(xlim=(0, len(values)), ylim=(0, 1.02), xlabel="classes, from the worst to the best")
        axes.set_title("top-1 of each class, %", fontsize=10, color=colors.ink)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        _dress(axes, colors)

    with rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.add_subplot(), _ON_WHITE)
        return _as_svg(draw), _as_png(figure)


def _learning_rates(history: Mapping[str, np.ndarray]) -> list[Line]:
    """Makes a line for each rate; groups that have the same one share it."""
    columns = [column for column in history if column.startswith("lr_")] or ["learning_rate"]
    names: dict[bytes, list[str]] = {}
    for column in columns:
        if column in history and np.isfinite(history[column]).any():
            names.setdefault(history[column].tobytes(), []).append(column.removeprefix("lr_").replace("_", " "))
    values = {history[column].tobytes(): history[column] for column in columns if column in history}
    return [
        Line(_join(of_line), values[key], place % len(_ON_WHITE.lines), place % len(_STYLES))
        for place, (key, of_line) in enumerate(names.items())
    ]


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _draw_lines(axes: Axes, colors: Colors, panel: Panel, epochs: np.ndarray) -> None:
    marker = "o" if len(epochs) <= 12 else None
    for line in panel.lines:
        axes.plot(
            epochs,
            line.values,
            label=line.name,
            color=colors.lines[line.color],
            linestyle=_STYLES[line.style],
            marker=marker,
            markersize=3.5,
            linewidth=1.8,
        )
    axes.set_title(panel.title, fontsize=10, color=colors.ink)
    axes.set_xlabel("epoch")
    if panel.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol="") if panel.is_share else FuncFormatter(_plain))
    axes.margins(x=0.03)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)  # There are no parts of an epoch.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(axes, colors)
    if any(line.name for line in panel.lines):
        axes.legend(frameon=False, fontsize=8, labelcolor=colors.ink, handlelength=2.6)


def _plain(value: float, place: int) -> str:
    return f"{value:g}"


def _dress(axes: Axes, colors: Colors) -> None:
    axes.grid(color=colors.grid, alpha=0.5, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colors.grid)
    axes.tick_params(which="both", colors=colors.ink, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colors.ink)
        label.set_fontsize(9)


def _as_svg(draw: Callable[[Axes, Colors], None]) -> str:
    figure = Figure(figsize=_SIZE, layout="constrained")
    draw(figure.add_subplot(), _IN_PAGE)
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    # The names of groups are the same in every plot, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])
    names = ["ink", "grid", *(f"line-{number}" for number in range(len(_IN_PAGE.lines)))]
    for stand_in, name in zip((_IN_PAGE.ink, _IN_PAGE.grid, *_IN_PAGE.lines), names, strict=True):
        svg = svg.replace(stand_in, f"var(--{name})")
    return svg


def _as_png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130, facecolor="white")
    return png.getvalue()
