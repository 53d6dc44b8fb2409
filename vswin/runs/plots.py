"""Draws the plots of runs and evaluations without a display: curves, class accuracies and confusion matrices."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from vswin.atomic import replacing
from vswin.console import count_of, printable
from vswin.errors import InputError
from vswin.runs.files import Run
from vswin.runs.metrics import confusion_matrix

# Okabe and Ito's colours, which most people tell apart, with a darker yellow and gray instead of black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#e69f00", "#7f7f7f")
# Eight colours and five styles have no common divisor: 40 lines differ, and neighbours differ in both.
_STYLES = ("-", "--", "-.", ":", (0, (8, 2, 1, 2, 1, 2)))
_INK, _GRID = "#333333", "#bbbbbb"
_SIZE = (5.4, 3.1)  # inches
# Text in an SVG stays text in the font of the page; names are not parsed as formulas.
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False}
# Learning rates with at least this ratio get a logarithmic axis.
_LOG_RATIO = 5
# Largest number of classes for which the confusion matrix shows counts, and names on its axes.
_MAX_COUNTS, _MAX_NAMES = 20, 110
_LONGEST_NAME = 80  # characters in a legend


class _Line(NamedTuple):
    name: str  # in the legend
    values: np.ndarray  # float64 [E]
    epochs: np.ndarray  # float64 [E]
    look: dict[str, Any]


def draw_curves(history: Mapping[str, np.ndarray]) -> tuple[list[str], bytes]:
    """Draws a training run as far as its history has figures: an SVG element for each plot, and a PNG of all plots.

    `history` maps column -> values, float64 [E], and contains `epoch`. Without figures, both results are empty.
    """
    drawn = {column for column, values in history.items() if np.isfinite(values).any()}

    # One line for each learning rate; groups of weights with the same rate share a line.
    groups: dict[bytes, list[str]] = {}
    for column in [column for column in history if column.startswith("lr_")] or ["learning_rate"]:
        if column in drawn:
            groups.setdefault(history[column].tobytes(), []).append(column)
    rates = {}
    for columns in groups.values():
        names = [column.removeprefix("lr_").replace("_", " ") for column in columns]
        rates[columns[0]] = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    highest = [np.nanmax(history[column]) for column in rates] or [1]
    has_log_rates = min(highest) > 0 and max(highest) / min(highest) >= _LOG_RATIO

    losses = {"loss": "training", "val_loss": "validation", "val_ema_loss": "validation, averaged weights"}
    accuracies = {
        "top1": "training, top-1",
        "val_map": "validation, mAP",
        "val_ema_map": "validation, mAP, averaged weights",
        "val_top1": "validation, top-1",
        "val_ema_top1": "validation, top-1, averaged weights",
        "val_top5": "validation, top-5",
        "val_f1_macro": "validation, macro F1",
    }
    panels = []
    for title, named, is_log in (
        ("loss", losses, False),
        ("accuracy, %", accuracies, False),
        ("learning rate at the end of an epoch", rates, has_log_rates),
        ("training clips per second", {"clips_per_sec": ""}, False),
    ):
        lines = [
            _Line(name, history[column], history["epoch"], _look(index))
            for index, (column, name) in enumerate(named.items())
            if column in drawn
        ]
        panels += [(title, lines, is_log)] if lines else []
    if not panels:
        return [], b""
    num_columns = min(2, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    with rc_context(_SETTINGS):
        everything = Figure(figsize=(num_columns * _SIZE[0], num_rows * _SIZE[1]), layout="constrained")
        svgs = []
        for index, (title, lines, is_log) in enumerate(panels):
            figure = Figure(figsize=_SIZE, layout="constrained")
            for axes in (figure.add_subplot(), everything.add_subplot(num_rows, num_columns, index + 1)):
                _draw_lines(axes, title, lines, is_log)
                if any(line.name for line in lines):
                    axes.legend(frameon=False, fontsize=8, labelcolor=_INK, handlelength=2.6)
            svgs.append(_as_svg(figure))
        return svgs, _as_png(everything)


def draw_class_accuracy(shares: Sequence[float]) -> tuple[str, bytes]:
    """Draws the accuracies of K classes, fractions 0..1, sorted from the lowest: an SVG element and a PNG."""
    values = np.sort(shares)
    ends = np.append(values, values[-1])
    with rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.fill_between(np.arange(len(ends)), ends, step="post", color=PALETTE[0], alpha=0.45)
        axes.axhline(values.mean(), color=PALETTE[1], linestyle="--", linewidth=1.4)
        mean = f"mean {100 * values.mean():.1f}"
        axes.annotate(mean, (0, values.mean()), xytext=(4, 4), textcoords="offset points", color=_INK, fontsize=9)
        axes.set(xlim=(0, len(values)), ylim=(0, 1.02), xlabel="classes, from the worst to the best")
        axes.set_title("top-1 of each class, %", fontsize=10, color=_INK)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        _style_axes(axes)
        return _as_svg(figure), _as_png(figure)


def draw_confusion_matrix(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Draws the confusion matrix as PNG; colours are shares of a row, so that rare classes are visible too.

    `labels` and `predictions` are int [N], with -1 for no prediction; `class_names` are K names.
    """
    names, num_classes = [printable(name) for name in class_names], len(class_names)
    matrix = confusion_matrix(labels, predictions, num_classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 12.0  # inches
    if num_classes <= _MAX_NAMES:
        side = max(3.5, num_classes * (0.5 if num_classes <= _MAX_COUNTS else 0.18))
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    # The square root keeps confusions of a few percent visible.
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
    """Draws validation top-1 (mAP with several labels) and loss by epoch, one line for each run that has a history.

    The ending of `path` sets the picture format. It is an `InputError` if no run has a history.
    """
    drawn = [(run, run.history) for run in runs if run.history is not None]
    if not drawn:
        raise InputError(f"--plot {path}: none of the runs has a history.csv yet, so there is nothing to draw")
    picture = io.BytesIO()
    with rc_context(_SETTINGS), warnings.catch_warnings():
        # A name may contain letters that the font does not have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(10, 4 + 0.22 * len(drawn)), layout="constrained")
        has_map = any("val_map" in history for _, history in drawn)
        first = ("val_map", "mAP in validation, %") if has_map else ("val_top1", "top-1 in validation, %")
        panels = (first, ("val_loss", "loss in validation"))
        for axes, (column, title) in zip(figure.subplots(1, 2), panels, strict=True):
            lines = [
                _Line(run.label, history[column], history["epoch"], _look(index))
                for index, (run, history) in enumerate(drawn)
                if column in history and np.isfinite(history[column]).any()
            ]
            _draw_lines(axes, title, lines)
            axes.autoscale(axis="y")  # Runs may be close to each other and far from 0.
            for line in lines:
                # The label stands at the end of the line; a run of one epoch is only this point.
                last = int(np.flatnonzero(np.isfinite(line.values))[-1])
                end, color = (line.epochs[last], line.values[last]), line.look["color"]
                axes.plot(*end, "o", color=color, markersize=4)
                offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(line.name, end, color=color, fontsize=9, **offset)
        handles = []
        for index, (run, _) in enumerate(drawn):
            name = printable(run.name)
            if len(name) > _LONGEST_NAME:
                # Names of runs usually differ at their ends.
                name = f"{name[: _LONGEST_NAME // 3]}...{name[-2 * _LONGEST_NAME // 3 :]}"
            handles.append(Line2D([], [], **_look(index), label=f"{run.label}  {name}"))
        figure.legend(handles=handles, loc="outside lower left", frameon=False, handlelength=4)
        figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    with replacing(path) as partial_file:
        partial_file.write_bytes(picture.getvalue())


def _look(index: int) -> dict[str, Any]:
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": _STYLES[index % len(_STYLES)], "linewidth": 1.8}


def _draw_lines(axes: Axes, title: str, lines: Sequence[_Line], is_log: bool = False) -> None:
    """Draws lines over the epochs; under a title with a percent sign, fractions are shown as percent."""
    num_epochs = max((len(line.epochs) for line in lines), default=0)
    marker = "o" if num_epochs <= 12 else None
    for line in lines:
        axes.plot(line.epochs, line.values, label=line.name, marker=marker, markersize=3.5, **line.look)
    axes.set_title(title, fontsize=10, color=_INK)
    axes.set_xlabel("epoch")
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol="") if title.endswith("%") else plain)
    axes.margins(x=0.03)
    if num_epochs == 1:
        first = lines[0].epochs[0]
        axes.set_xlim(first - 1, first + 1)  # no ticks at fractions of an epoch
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _style_axes(axes)


def _style_axes(axes: Axes) -> None:
    axes.grid(color=_GRID, alpha=0.5, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(which="both", colors=_INK, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(9)


def _as_svg(figure: Figure) -> str:
    text, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    # The ids of groups repeat in every plot, and nothing refers to them.
    return re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])


def _as_png(figure: Figure, dpi: int = 130, **options: Any) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, facecolor="white", **options)
    return png.getvalue()
