"""Builds the report of a run: one self-contained HTML page."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vswin import __version__
from vswin.config.compose import compose_config
from vswin.config.load import flatten
from vswin.config.schema import MONITORS, TrainConfig
from vswin.console import count_of, printable
from vswin.errors import InputError
from vswin.runs.figures import (
    accuracy_table,
    describe_seen,
    describe_views,
    format_interval,
    format_speed,
    format_value,
    is_setting,
    percent,
    sum_up,
)
from vswin.runs.files import Run
from vswin.runs.metrics import (
    NO_PREDICTION,
    Confusion,
    confusion_matrix,
    most_confused,
    order_by_accuracy,
    score_classes,
)
from vswin.runs.plots import draw_class_accuracy

CLASSES_NAME = "class_accuracy.png"
_NUM_PAIRS = 20
_NUM_WORST, _NUM_BEST = 20, 10
# Most classes for the whole confusion matrix; otherwise the number of most confused classes in the part that is shown.
_MAX_WHOLE_MATRIX, _NUM_IN_PART = 20, 12
# Of the strongest cell of the matrix: its number must be readable on a light and on a dark page.
_OPACITY = 0.6


class Clip(NamedTuple):
    """A tested video as the page shows it."""

    path: str
    label: str
    predicted: str
    probability: float
    film: str = ""  # an animated WebP in base64
    still: str = ""  # one frame as WebP in base64
    size: tuple[int, int] = (0, 0)  # width and height in pixels
    problem: str = ""  # why there is no picture


def write_page(
    run: Run, curves: Sequence[str], best: Sequence[Clip], worst: Sequence[Clip]
) -> tuple[str, dict[str, bytes]]:
    """Builds the page of a run with SVG elements of its curves and its clips with right and wrong predictions.

    Returns the HTML, and plots to store beside it: name -> PNG.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["percent"] = lambda share, digits=1: percent(share, digits).replace(" ", "\N{NO-BREAK SPACE}")
    environment.filters["interval"] = format_interval
    config, metrics = run.config or {}, run.metrics or {}
    model = config.get("model.name") or run.protocol.get("model")
    dataset = config.get("dataset.title") or config.get("dataset.name") or run.test_set.get("name")
    published, test_session, weights = metrics.get("published"), metrics.get("environment"), run.protocol.get("weights")
    # An evaluation in the folder of a training run may have tested weights from elsewhere.
    file = weights.get("file") if isinstance(weights, dict) else None
    is_other_weights = (
        run.config is not None
        and isinstance(file, str)
        and (run.folder / "checkpoints").resolve() != Path(file).resolve().parent
    )
    by_class, pictures = _describe_classes(run)
    html = environment.get_template("page.html.j2").render(
        **by_class,
        run=run,
        title=printable(f"{model} on {dataset}" if model and dataset else run.name),
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        version=__version__,
        tiles=_make_tiles(run),
        state=_describe_progress(run),
        # S704: our own drawings, in which Matplotlib has escaped every text.
        curves=[Markup(svg) for svg in curves],  # noqa: S704
        epochs=_tabulate_epochs(run),
        accuracies=accuracy_table(metrics),
        published=published if isinstance(published, dict) else {},
        seen=describe_seen(run.test_set),
        best=best,
        worst=worst,
        test=_describe_test(run),
        protocol=_list_settings(run.protocol),
        changes=None if run.config is None else _list_changes(run.config),
        settings=None if run.config is None else _list_settings(run.config),
        sessions=[_list_settings(session) for session in run.sessions],
        test_session=_list_settings(test_session if isinstance(test_session, dict) else {}),
        is_other_weights=is_other_weights,
        evaluate=shlex.quote(f"run={run.folder}"),
    )
    return html, pictures


def _make_tiles(run: Run) -> list[tuple[str, str, str]]:
    """Lists the main figures of the test and the training: name, value, and a line below it."""
    tiles, figures = [], sum_up(run)
    if run.metrics is not None:
        # With five classes or fewer, top-5 says nothing.
        keys = {"top1": "test top-1"} | ({} if 0 < len(run.class_names) <= 5 else {"top5": "test top-5"})
        keys = {"map": "test mAP"} | keys | {"f1_micro": "micro F1", "f1_macro": "macro F1"}
        for key, name in keys.items():
            if key not in run.metrics:
                continue
            interval = format_interval(run.metrics.get(f"{key}_interval"))
            tiles.append((name, percent(run.metrics[key], 2), interval and f"95 % interval {interval}"))
        bad = run.metrics.get("num_bad_videos")
        videos = count_of(run.metrics["num_videos"], "video")
        videos += f", {bad:,} of them bad" if isinstance(bad, int) and bad else ""
        if run.is_multi_label:
            tiles.append(("micro precision", percent(run.metrics.get("precision_micro"), 2), videos))
        else:
            tiles.append(("mean class accuracy", percent(run.metrics["mean_class_accuracy"], 2), videos))
    if figures.best is not None and figures.monitor in MONITORS:
        monitor, average = MONITORS[figures.monitor], ", averaged weights" if figures.is_average else ""
        note = f"epoch {figures.best_epoch}{average}"
        tiles.append((f"best validation {monitor.name}", monitor.format(figures.best), note))
    if figures.clips_per_sec is not None:
        tiles.append(("throughput", format_speed(figures.clips_per_sec), "training clips per second"))
    return tiles


def _describe_progress(run: Run) -> str:
    if run.config is None and run.history is None:
        return "evaluation only"
    figures = sum_up(run)
    if figures.epochs is None:
        return count_of(figures.epochs_done, "epoch")
    end = ", stopped early or not finished" if figures.epochs_done < figures.epochs else ""
    return f"{figures.epochs_done} of {count_of(figures.epochs, 'epoch')}{end}"


def _tabulate_epochs(run: Run) -> list[list[str]]:
    """Gives headings and rows of the history, rounded for reading."""
    if run.history is None:
        return []
    epochs = zip(*run.history.values(), strict=True)
    rows = [["-" if math.isnan(value) else f"{value:.5g}" for value in epoch] for epoch in epochs]
    return [list(map(printable, run.history)), *rows]


def _describe_classes(run: Run) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Gives the most confused classes, the confusion matrix, the table of classes and, for many classes, a plot."""
    nothing: dict[str, Any] = {
        "pairs": [],
        "matrix": None,
        "classes": [],
        "shown_classes": [],
        "classes_plot": "",
        "label_table": [],
    }
    if run.predictions is None or run.is_multi_label:
        return nothing | {"label_table": run.class_rows}, {}
    # Map names to indices, in the order of the labels where it is known.
    found = run.predictions
    names = list(dict.fromkeys([*run.class_names, *found.labels, *filter(None, found.predicted)]))
    indices = {name: index for index, name in enumerate(names)}
    labels = np.array([indices[name] for name in found.labels])
    predictions = np.array([indices[name] if name else NO_PREDICTION for name in found.predicted])

    pairs = most_confused(labels, predictions, len(names), _NUM_PAIRS)
    scores = order_by_accuracy(score_classes(predictions[:, np.newaxis], labels, len(names)))
    rows = [(names[score.label], score, names[score.confused_with] if score.num_confused else "") for score in scores]
    # Show all classes at once, or the worst and the best of many.
    shown, svg, pictures = [("", rows)], "", {}
    if len(rows) > _NUM_WORST + _NUM_BEST:
        best = rows[-_NUM_BEST:][::-1]
        shown = [(f"The {_NUM_WORST} worst classes", rows[:_NUM_WORST]), (f"The {_NUM_BEST} best classes", best)]
    if len(rows) > _MAX_WHOLE_MATRIX:
        svg, pictures[CLASSES_NAME] = draw_class_accuracy([score.top1 for score in scores])
    by_class = nothing | {
        "pairs": [(names[pair.label], names[pair.predicted], pair) for pair in pairs],
        "matrix": _shade_matrix(labels, predictions, names, pairs[:_NUM_IN_PART]),
        "classes": rows,
        "shown_classes": shown,
        # S704: our own drawing, in which Matplotlib has escaped every text.
        "classes_plot": Markup(svg),  # noqa: S704
    }
    return by_class, pictures


def _shade_matrix(
    labels: np.ndarray, predictions: np.ndarray, names: Sequence[str], pairs: Sequence[Confusion]
) -> dict[str, Any]:
    """Gives rows of the confusion matrix or its most confused part; cells are (count, opacity, is on the diagonal)."""
    matrix, num_videos = confusion_matrix(labels, predictions, len(names)), np.bincount(labels, minlength=len(names))
    chosen = list(range(len(names)))
    is_whole = len(names) <= _MAX_WHOLE_MATRIX
    if not is_whole:
        # Classes that are confused with each other stand next to each other.
        chosen = list(dict.fromkeys(label for pair in pairs for label in (pair.label, pair.predicted)))[:_NUM_IN_PART]
    counts = matrix[np.ix_(chosen, chosen)]
    others, bad = matrix[chosen].sum(axis=1) - counts.sum(axis=1), num_videos[chosen] - matrix[chosen].sum(axis=1)
    more = [(name, column) for name, column in (("another", others), ("bad", bad)) if column.any()]
    counts = np.column_stack([counts, *(column for _, column in more)])
    rows = []
    for row, label in enumerate(chosen):
        shares = counts[row] / max(num_videos[label], 1)
        cells = [
            # The square root keeps confusions of a few percent visible.
            (int(count), round(_OPACITY * math.sqrt(share), 3), column == row)
            for column, (count, share) in enumerate(zip(counts[row], shares, strict=True))
        ]
        rows.append((names[label], cells))
    return {"rows": rows, "more": [name for name, _ in more], "is_whole": is_whole}


def _describe_test(run: Run) -> list[tuple[str, str]]:
    """Describes in short how a run was tested; leaves out what is unknown."""
    protocol, test_set = run.protocol, run.test_set
    weights, views, missing = protocol.get("weights"), describe_views(protocol), test_set.get("num_missing")
    split = f", split {test_set['split']}" if test_set.get("split") else ""
    note = f", {missing:,} of the list missing" if isinstance(missing, int) and missing else ""
    rows = {
        "weights": weights.get("init_from") if isinstance(weights, dict) else None,
        "data set": f"{test_set['name']}{split}" if test_set.get("name") else None,
        "videos": f"{test_set['num_videos']}{note}" if test_set.get("num_videos") else None,
        "views of a video": views.get("views"),
        "frames of a view": views.get("frames"),
        "pixels": views.get("pixels"),
        "precision": protocol.get("precision"),
        "date": protocol.get("date"),
    }
    return [(name, _show(value)) for name, value in rows.items() if value is not None]


def _list_changes(config: Mapping[str, Any]) -> list[tuple[str, str, str]] | None:
    """Lists key, default and value of each changed setting; None if this version lacks the model or the data set."""
    named = [f"{group}={config.get(f'{group}.name')}" for group in ("model", "dataset")]
    try:
        defaults = dict(flatten(dataclasses.asdict(compose_config("train", named, TrainConfig))))
    except InputError:
        return None
    return [
        (key, _show(defaults[key]) if key in defaults else "", _show(value))
        for key, value in config.items()
        if is_setting(key) and (key not in defaults or format_value(value) != format_value(defaults[key]))
    ]


def _list_settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(printable(key), _show(value)) for key, value in flatten(dict(values))]


def _show(value: Any) -> str:
    return printable(format_value(value))
