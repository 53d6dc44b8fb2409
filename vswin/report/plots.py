"""Every plot of runs and evaluations: curves over the epochs, accuracies of classes, confusion matrices; no display."""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.runs.files import Run
from vswin.runs.metrics import confusion_matrix
from vswin.wording import count_of, printable

# Okabe and Ito's colours, which most people tell apart; their yellow is darkened and their black gray. Lower case, as
# they stand in an SVG, where the colours of the page's style sheet, light or dark, take their place.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#e69f00", "#7f7f7f")
_INK, _GRID = "#333333", "#bbbbbb"
# Eight colours and five styles have no common divisor: 40 lines differ, and neighbours do in both.
_STYLES = ("-", "--", "-.", ":", (0, (8, 2, 1, 2, 1, 2)))
_SIZE = (5.4, 3.1)  # inches
# Text stays text, in the font of the page, and no name is a formula.
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False}
# Rates of which one is so many times another are not seen on the same linear axis.
_LOG_RATIO = 5
# Up to so many classes the confusion matrix shows counts, and names on its axes.
_MAX_COUNTS, _MAX_NAMES = 20, 110
_LONGEST_NAME, _LONGEST_OF_TWO = 80, 50  # characters in a legend of one column, and of two


class _Line(NamedTuple):
    """Hold a line over the epochs: its name in the legend, values float64 [E], numbers of its colour and style."""

    name: str
    values: np.ndarray
    color: int = 0
    style: int = 0


class _Panel(NamedTuple):
    """Hold a plot over the epochs; shares are shown as percent."""

    title: str
    lines: list[_Line]
    is_share: bool = False
    is_log: bool = False


def draw_curves(history: Mapping[str, np.ndarray]) -> tuple[list[str], bytes]:
    """Draws loss, accuracy, learning rates and throughput of a training, as far as its history has them.

    Args:
        history: Column -> its values, float64 [E]; `epoch` among them.

    Returns:
        An SVG element for each plot, and a PNG of all; both empty if there is nothing to draw.
    """

    def lines(*wanted: tuple[str, str, int, int]) -> list[_Line]:
        return [
            _Line(name, history[column], color, style)
            for column, name, color, style in wanted
            if column in history and np.isfinite(history[column]).any()
        ]

    # A line for each rate; groups of weights that have the same one share it.
    columns = [column for column in history if column.startswith("lr_")] or ["learning_rate"]
    groups: dict[bytes, list[str]] = {}
    for column in columns:
        if column in history and np.isfinite(history[column]).any():
            groups.setdefault(history[column].tobytes(), []).append(column)
    rates = []
    for index, group in enumerate(groups.values()):
        names = [column.removeprefix("lr_").replace("_", " ") for column in group]
        name = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        rates.append(_Line(name, history[group[0]], index, index))
    highest = [np.nanmax(line.values) for line in rates]
    is_log = bool(rates) and min(highest) > 0 and max(highest) / min(highest) >= _LOG_RATIO

    loss = (("loss", "training"), ("val_loss", "validation"), ("val_ema_loss", "validation, averaged weights"))
    accuracy = lines(
        ("top1", "training, top-1", 0, 0),
        ("val_top1", "validation, top-1", 1, 0),
        ("val_ema_top1", "validation, top-1, averaged weights", 2, 1),
        ("val_top5", "validation, top-5", 3, 3),
    )
    panels = [
        _Panel("loss", lines(*((*names, index, index // 2) for index, names in enumerate(loss)))),
        _Panel("accuracy, %", accuracy, is_share=True),
        _Panel("learning rate at the end of an epoch", rates, is_log=is_log),
        _Panel("training clips per second", lines(("clips_per_sec", "", 0, 0))),
    ]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return [], b""
    svgs = [_draw_figure(partial(_draw_panel, panel=panel, epochs=history["epoch"]))[0] for panel in panels]
    num_columns = min(2, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(num_columns * _SIZE[0], num_rows * _SIZE[1]), layout="constrained")
        for index, panel in enumerate(panels):
            _draw_panel(figure.add_subplot(num_rows, num_columns, index + 1), panel, history["epoch"])
        return svgs, _as_png(figure)


def draw_class_accuracy(shares: Sequence[float]) -> tuple[str, bytes]:
    """Draws the accuracies of K classes, fractions 0..1, the lowest first: an SVG element and a PNG."""
    values = np.sort(shares)

    def draw(axes: Axes) -> None:
        ends = np.append(values, values[-1])
        axes.fill_between(np.arange(len(ends)), ends, step="post", color=PALETTE[0], alpha=0.45)
        axes.axhline(values.mean(), color=PALETTE[1], linestyle="--", linewidth=1.4)
        mean = f"mean {100 * values.mean():.1f}"
        axes.annotate(mean, (0, values.mean()), xytext=(4, 4), textcoords="offset points", color=_INK, fontsize=9)
        axes.set(xlim=(0, len(values)), ylim=(0, 1.02), xlabel="classes, from the worst to the best")
        axes.set_title("top-1 of each class, %", fontsize=10, color=_INK)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        _dress(axes)

    return _draw_figure(draw)


def draw_confusion_matrix(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Draws the confusion matrix as PNG; colours are shares of a row, so that rare classes show as well.

    Args:
        labels: int [N].
        predictions: int [N]; -1 for no prediction.
        class_names: K names.
    """
    names, num_classes = [printable(name) for name in class_names], len(class_names)
    matrix = confusion_matrix(labels, predictions, num_classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 12.0  # inches
    if num_classes <= _MAX_NAMES:
        side = max(3.5, num_classes * (0.5 if num_classes <= _MAX_COUNTS else 0.18))
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    # The root keeps a mix-up of a few percent visible.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    axes.set(xlabel="prediction", ylabel="label")
    axes.set_title(f"{count_of(len(labels), 'video')}, top-1 {100 * np.mean(predictions == labels):.2f} %")
    if num_classes <= _MAX_NAMES:
        font_size = 9 if num_classes <= _MAX_COUNTS else 7
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=font_size)
        axes.set_yticks(range(num_classes), names, fontsize=font_size)
    if num_classes <= _MAX_COUNTS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if shares[row, column] > 0.35 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color)
    color_axes = figure.add_axes((1 + 0.25 / side, 0, 0.2 / side, 1))
    figure.colorbar(image, cax=color_axes, label="share of the videos of the label")
    return _as_png(figure, dpi=100, bbox_inches="tight")


def draw_comparison(path: Path, runs: Sequence[Run]) -> None:
    """Draws top-1 and loss in validation by epoch, a line for each run that has a history.

    Args:
        path: The picture, of the kind that its ending names. Its folder exists.
        runs: The runs.

    Raises:
        InputError: If none has a history.
    """
    drawn = [run for run in runs if run.history is not None]
    if not drawn:
        raise InputError(f"--plot {path}: none of the runs has a history.csv yet, so there is nothing to draw")
    names = []
    for run in drawn:
        name = printable(run.name)
        if len(name) > _LONGEST_NAME:
            # Names of runs differ at their ends.
            name = f"{name[: _LONGEST_NAME // 3]}...{name[-2 * _LONGEST_NAME // 3 :]}"
        names.append(f"{run.label}  {name}")
    num_columns = 2 if len(drawn) > 3 and max(map(len, names)) <= _LONGEST_OF_TWO else 1
    figure = Figure(figsize=(10, 4 + 0.22 * math.ceil(len(drawn) / num_columns)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_runs(left, drawn, "val_top1", "top-1 in validation, %", 100)
    _draw_runs(right, drawn, "val_loss", "loss in validation", 1)
    handles = [Line2D([], [], **_look(index), label=name) for index, name in enumerate(names)]
    legend = figure.legend(handles=handles, loc="outside lower left", frameon=False, handlelength=4, ncols=num_columns)
    for text in legend.get_texts():
        text.set_parse_math(False)  # A name may hold dollars.
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A name may hold letters that the font does not have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    with replacing(path) as partial:
        partial.write_bytes(picture.getvalue())


def _draw_runs(axes: Axes, runs: Sequence[Run], column: str, title: str, scale: float) -> None:
    ends: list[tuple[float, float, int]] = []
    for index, run in enumerate(runs):
        assert run.history is not None
        values = run.history.get(column)
        if values is None or not np.isfinite(values).any():
            continue
        epochs = run.history["epoch"]
        axes.plot(epochs, scale * values, **_look(index))
        # Where the eye looks for whose line it is; of a run of one epoch the point is all there is.
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        axes.plot(epochs[last], scale * values[last], "o", color=_look(index)["color"], markersize=4)
        ends.append((scale * values[last], epochs[last], index))
    # Neighbours in height take turns in distance, so that their letters do not cover each other.
    for rank, (value, epoch, index) in enumerate(sorted(ends)):
        axes.annotate(
            runs[index].label,
            (epoch, value),
            xytext=(6 + 11 * (rank % 2 if len(ends) > 3 else 0), 0),
            textcoords="offset points",
            va="center",
            color=_look(index)["color"],
            fontsize=9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.margins(x=0.08)
    if {epoch for _, epoch, _ in ends} == {1.0}:
        axes.set_xlim(0, 2)  # There are no parts of an epoch.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title, xlabel="epoch")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _look(index: int) -> dict[str, Any]:
    color, style = next(itertools.islice(zip(itertools.cycle(PALETTE), itertools.cycle(_STYLES)), index, None))
    return {"color": color, "linestyle": style, "linewidth": 1.8}


def _draw_panel(axes: Axes, panel: _Panel, epochs: np.ndarray) -> None:
    marker = "o" if len(epochs) <= 12 else None
    for line in panel.lines:
        look = {"color": _look(line.color)["color"], "linestyle": _look(line.style)["linestyle"], "linewidth": 1.8}
        axes.plot(epochs, line.values, label=line.name, marker=marker, markersize=3.5, **look)
    axes.set_title(panel.title, fontsize=10, color=_INK)
    axes.set_xlabel("epoch")
    if panel.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol="") if panel.is_share else plain)
    axes.margins(x=0.03)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)  # There are no parts of an epoch.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(axes)
    if any(line.name for line in panel.lines):
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK, handlelength=2.6)


def _dress(axes: Axes) -> None:
    axes.grid(color=_GRID, alpha=0.5, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(which="both", colors=_INK, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(9)


def _draw_figure(draw: Callable[[Axes], None]) -> tuple[str, bytes]:
    """Draws a plot as an SVG element in the colours of the page, and as a PNG on white."""
    with rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.add_subplot())
        text, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
        png = _as_png(figure)
    svg = text.getvalue()
    # The names of groups are the same in every plot, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])
    variables = {_INK: "ink", _GRID: "grid"} | {color: f"line-{index}" for index, color in enumerate(PALETTE)}
    for color, name in variables.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg, png


def _as_png(figure: Figure, dpi: int = 130, **options: Any) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, facecolor="white", **options)
    return png.getvalue()
