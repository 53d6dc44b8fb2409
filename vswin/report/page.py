"""Put a report together: from what is known of a run to one page of HTML that needs nothing beside it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vswin import __version__
from vswin.report.clips import Clip
from vswin.report.facts import describe_session, describe_test, list_changes, list_settings
from vswin.report.scores import ClassScore, Matrix, make_matrix, most_confused, score_classes
from vswin.runs.figures import say_seen, sum_up
from vswin.runs.files import Run
from vswin.wording import count_of, printable

_NUM_PAIRS = 20
_NUM_WORST, _NUM_BEST = 20, 10
# Of the strongest cell of the matrix; the numbers in it have to be read on a light and on a dark page.
_OPACITY = 0.6


class Tile(NamedTuple):
    """Hold a figure that is read first.

    Attributes:
        name: What it is.
        value: With its unit.
        note: A line below it; may be empty.
    """

    name: str
    value: str
    note: str = ""


class Plots(NamedTuple):
    """Hold the plots of a page, each an SVG element.

    Attributes:
        curves: Over the epochs.
        classes: Of the accuracies of the classes, where they are many; else empty.
    """

    curves: Sequence[str] = ()
    classes: str = ""


def write_page(run: Run, plots: Plots, best: Sequence[Clip], worst: Sequence[Clip]) -> str:
    """Writes the page.

    Args:
        run: what its folder says.
        plots: from `vswin.report.plots`.
        best: clips that were right.
        worst: clips that were wrong.

    Returns:
        HTML.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "printable": printable}
    scores = score_classes(run.predictions) if run.predictions else []
    return environment.get_template("page.html.j2").render(
        run=run,
        title=_title(run),
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        version=__version__,
        figures=sum_up(run),
        tiles=[*_test_tiles(run), *_training_tiles(run)],
        state=_state(run),
        # S704: our own drawings, in which Matplotlib has escaped every text.
        curves=[Markup(svg) for svg in plots.curves],  # noqa: S704
        classes_plot=Markup(plots.classes),  # noqa: S704
        epochs=_epoch_table(run),
        accuracies=_accuracies(run),
        published=_published(run),
        seen=say_seen(run.test_set),
        pairs=most_confused(run.predictions, _NUM_PAIRS) if run.predictions else [],
        matrix=_shade(make_matrix(run.predictions, run.class_names)) if run.predictions else None,
        scores=scores,
        shown_scores=_fold(scores),
        best=best,
        worst=worst,
        test=describe_test(run),
        protocol=list_settings(run.protocol),
        changes=None if run.config is None else list_changes(run.config),
        settings=None if run.config is None else list_settings(run.config),
        sessions=[describe_session(session) for session in run.sessions],
        test_session=describe_session(_test_session(run)),
        is_other_weights=_is_other_weights(run),
        evaluate=shlex.quote(f"run={run.folder}"),
    )


def _percent(share: Any, places: int = 1) -> str:
    """Writes a share as percent, e.g. "93.0 %", on one line; a dash where there is none."""
    if not isinstance(share, int | float) or not math.isfinite(share):
        return "-"
    return f"{100 * share:.{places}f}\N{NO-BREAK SPACE}%"


def _number(value: float) -> str:
    """Writes a number of a table in as many digits as a person reads."""
    if not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}" if 0.01 <= abs(value) < 100 else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2e}"


def _title(run: Run) -> str:
    config, protocol = run.config or {}, run.protocol
    model = config.get("model.name") or protocol.get("model")
    dataset = config.get("dataset.name") or run.test_set.get("name")
    return printable(f"{model} on {dataset}") if model and dataset else printable(run.name)


def _state(run: Run) -> str:
    """Says how far the training has come."""
    if run.config is None and run.history is None:
        return "evaluation only"
    figures = sum_up(run)
    if figures.epochs is None:
        return count_of(figures.epochs_done, "epoch")
    end = ", stopped early or not finished" if figures.epochs_done < figures.epochs else ""
    return f"{figures.epochs_done} of {count_of(figures.epochs, 'epoch')}{end}"


def _test_tiles(run: Run) -> list[Tile]:
    if run.metrics is None:
        return []
    metrics = run.metrics
    tiles = [Tile("test top-1", _percent(metrics["top1"], 2), _within(metrics.get("top1_interval")))]
    if not run.class_names or len(run.class_names) > 5:
        tiles.append(Tile("test top-5", _percent(metrics["top5"], 2), _within(metrics.get("top5_interval"))))
    bad = metrics.get("num_bad_videos")
    videos = count_of(metrics["num_videos"], "video") + (
        f", {bad:,} of them bad" if isinstance(bad, int) and bad else ""
    )
    return [*tiles, Tile("mean class accuracy", _percent(metrics["mean_class_accuracy"], 2), videos)]


def _training_tiles(run: Run) -> list[Tile]:
    figures, tiles = sum_up(run), []
    if figures.best_top1 is not None:
        average = ", averaged weights" if figures.is_average else ""
        tiles.append(Tile("best validation top-1", _percent(figures.best_top1), f"epoch {figures.best_epoch}{average}"))
    if figures.clips_per_sec is not None:
        speed = figures.clips_per_sec
        tiles.append(
            Tile("throughput", f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}", "training clips per second")
        )
    return tiles


def _interval(interval: Any) -> str:
    match interval:
        case [int() | float() as low, int() | float() as high]:
            return f"{100 * low:.1f} to {100 * high:.1f}"
    return ""


def _within(interval: Any) -> str:
    text = _interval(interval)
    return text and f"95 % interval {text}"


def _epoch_table(run: Run) -> tuple[list[str], list[list[str]]] | None:
    """Gives headings and rows of the history."""
    if run.history is None:
        return None
    columns = [column for column in run.history if column != "epoch"]
    rows = [
        [f"{epoch:.0f}", *(_number(run.history[column][place]) for column in columns)]
        for place, epoch in enumerate(run.history["epoch"])
    ]
    return ["epoch", *(printable(column) for column in columns)], rows


def _accuracies(run: Run) -> list[list[str]]:
    """Lists name, measured accuracy and interval, published accuracy, difference and verdict."""
    if run.metrics is None:
        return []
    published, rows = _published(run), []
    for key, name in (
        ("top1", "top-1"),
        ("top5", "top-5"),
        ("mean_class_accuracy", "mean class accuracy"),
        ("clip_top1", "clip top-1 (views by themselves)"),
        ("clip_top5", "clip top-5 (views by themselves)"),
    ):
        if key not in run.metrics:
            continue
        measured, reference = run.metrics[key], published.get(key)
        row = [name, _percent(measured, 2), _interval(run.metrics.get(f"{key}_interval"))]
        if isinstance(reference, int | float):
            difference = 100 * (measured - reference)
            row += [_percent(reference), f"{difference:+.2f}", printable(str(published.get(f"{key}_verdict", "")))]
        elif published.get("name"):
            row += ["", "", ""]
        rows.append(row)
    return rows


def _published(run: Run) -> dict[str, Any]:
    published = (run.metrics or {}).get("published")
    return published if isinstance(published, dict) else {}


def _shade(matrix: Matrix) -> dict[str, Any]:
    """Gives the rows of a matrix, each cell with its count and how strongly it is coloured; empty columns left out."""
    num_classes = len(matrix.names)
    shares = matrix.counts / np.maximum(matrix.counts.sum(axis=1, keepdims=True), 1)
    last = [column for column in (num_classes, num_classes + 1) if matrix.counts[:, column].any()]
    names = {num_classes: "another", num_classes + 1: "bad"}
    rows = [
        (
            name,
            [
                # The root keeps a mix-up of a few percent visible.
                (int(matrix.counts[row, column]), round(_OPACITY * math.sqrt(shares[row, column]), 3), row == column)
                for column in [*range(num_classes), *last]
            ],
        )
        for row, name in enumerate(matrix.names)
    ]
    return {"rows": rows, "more": [names[column] for column in last], "is_whole": matrix.is_whole}


def _fold(scores: Sequence[ClassScore]) -> list[tuple[str, Sequence[ClassScore]]]:
    """Takes the classes that are shown at once: all, or where they are many, the worst and the best."""
    if len(scores) <= _NUM_WORST + _NUM_BEST:
        return [("", scores)] if scores else []
    worst, best = scores[:_NUM_WORST], scores[-_NUM_BEST:][::-1]
    return [(f"the {_NUM_WORST} worst classes", worst), (f"the {_NUM_BEST} best classes", best)]


def _test_session(run: Run) -> dict[str, Any]:
    session = (run.metrics or {}).get("environment")
    return session if isinstance(session, dict) else {}


def _is_other_weights(run: Run) -> bool:
    """Tells whether a folder holds a training and an evaluation of weights that are not its own."""
    weights = run.protocol.get("weights")
    file = weights.get("file") if isinstance(weights, dict) else None
    if run.config is None or not isinstance(file, str):
        return False
    return (run.folder / "checkpoints").resolve() != Path(file).resolve().parent
