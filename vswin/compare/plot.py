"""Draw the validation of several runs, epoch by epoch; needs no display."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.runs.files import Run
from vswin.wording import printable

# Okabe and Ito's colours, which most people tell apart; gray stands for their yellow, too faint for a line on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F")
# Eight colours and five styles have no common divisor: 40 runs differ, and neighbours do in both.
_STYLES = ("-", "--", "-.", ":", (0, (8, 2, 1, 2, 1, 2)))
_LONGEST_NAME = 80
_LONGEST_OF_TWO = 50  # where the legend has two columns
_PANELS = {"val_top1": ("top-1 in validation, %", 100.0), "val_loss": ("loss in validation", 1.0)}


def draw_history(path: Path, runs: Sequence[Run]) -> None:
    """Draws top-1 and loss in validation by epoch, a line for each run.

    Args:
        path: The picture; its ending says of which kind, as Matplotlib knows them. Its folder exists.
        runs: The runs; those without a history are passed over.

    Raises:
        InputError: If none has one.
    """
    drawn = [run for run in runs if run.history is not None]
    if not drawn:
        raise InputError(f"--plot {path}: none of the runs has a history.csv yet, so there is nothing to draw")
    names = [_legend_name(run) for run in drawn]
    num_columns = 2 if len(drawn) > 3 and max(map(len, names)) <= _LONGEST_OF_TWO else 1
    figure = Figure(figsize=(10, 4 + 0.22 * math.ceil(len(drawn) / num_columns)), layout="constrained")
    panels = figure.subplots(1, len(_PANELS))
    for axes, (column, (title, scale)) in zip(panels, _PANELS.items(), strict=True):
        _draw_panel(axes, drawn, column, scale)
        axes.set(title=title, xlabel="epoch")
    handles = [Line2D([], [], **_look(place), label=name) for place, name in enumerate(names)]
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


def _draw_panel(axes: Axes, runs: Sequence[Run], column: str, scale: float) -> None:
    ends: list[tuple[float, float, int]] = []
    for place, run in enumerate(runs):
        assert run.history is not None
        values = run.history.get(column)
        if values is None or not np.isfinite(values).any():
            continue
        epochs = run.history["epoch"]
        axes.plot(epochs, scale * values, **_look(place))
        # Where the eye looks for whose line it is; of a run of one epoch the point is all there is.
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        axes.plot(epochs[last], scale * values[last], "o", color=_look(place)["color"], markersize=4)
        ends.append((scale * values[last], epochs[last], place))
    # Neighbours in height take turns in distance, so that their letters do not cover each other.
    for rank, (value, epoch, place) in enumerate(sorted(ends)):
        axes.annotate(
            runs[place].label,
            (epoch, value),
            xytext=(6 + 11 * (rank % 2 if len(ends) > 3 else 0), 0),
            textcoords="offset points",
            va="center",
            color=_look(place)["color"],
            fontsize=9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.margins(x=0.08)
    if {epoch for _, epoch, _ in ends} == {1.0}:
        axes.set_xlim(0, 2)  # There are no parts of an epoch.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _look(place: int) -> dict[str, Any]:
    color, style = next(itertools.islice(zip(itertools.cycle(_COLORS), itertools.cycle(_STYLES)), place, None))
    return {"color": color, "linestyle": style, "linewidth": 1.8}


def _legend_name(run: Run) -> str:
    name = printable(run.name)
    if len(name) > _LONGEST_NAME:
        # Names of runs differ at their ends.
        name = f"{name[: _LONGEST_NAME // 3]}...{name[-2 * _LONGEST_NAME // 3 :]}"
    return f"{run.label}  {name}"
