"""Print predictions, and write them as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vswin.atomic import STDOUT, replacing
from vswin.console import printable

_BAR_WIDTH = 20
_NARROWEST_WITH_BAR = 50


class Prediction(NamedTuple):
    """The best classes of a video, or why there are none.

    Attributes:
        path: The file, or the camera.
        labels: Classes, best first, int64 [k]; empty for a bad video.
        names: The k names of the classes.
        probabilities: float32 [k].
        problem: Why a video is bad; otherwise empty.
        seconds: Time at which the clip ends in the stream of a camera, in seconds; None for a file.
    """

    path: str
    labels: np.ndarray
    names: list[str]
    probabilities: np.ndarray
    problem: str = ""
    seconds: float | None = None


def rank(
    path: str, probabilities: np.ndarray, class_names: Sequence[str], top_k: int, seconds: float | None = None
) -> Prediction:
    """Takes the `top_k` best classes of probabilities, float32 [K]; among equal ones, the smaller label comes first."""
    labels = np.argsort(-probabilities, kind="stable")[:top_k]  # [k]
    return Prediction(path, labels, [class_names[label] for label in labels], probabilities[labels], "", seconds)


def make_bad(path: str, problem: str) -> Prediction:
    """Makes the entry of a bad video."""
    return Prediction(path, np.zeros(0, np.int64), [], np.zeros(0, np.float32), problem)


def print_prediction(console: Console, prediction: Prediction) -> None:
    """Prints a video and its best classes, with a bar for each where there is room."""
    title = printable(prediction.path)
    if prediction.seconds is not None:
        title += f"  {prediction.seconds:.1f} s"
    if prediction.problem:
        console.print(Text(f"{title}: passed over, {printable(prediction.problem)}", style="red"))
        return
    # A style given to `print` itself would also colour a bar below it.
    console.print(Text(title, style="bold"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    has_bar = console.width >= _NARROWEST_WITH_BAR
    table.add_column(justify="right", no_wrap=True)
    if has_bar:
        table.add_column(width=_BAR_WIDTH)
    table.add_column(overflow="fold")
    for name, probability in zip(prediction.names, prediction.probabilities.tolist(), strict=True):
        bar = [ProgressBar(total=1, completed=probability, width=_BAR_WIDTH)] if has_bar else []
        table.add_row(f"{100 * probability:6.2f} %", *bar, Text(printable(name)))
    console.print(table, soft_wrap=False)


def write_json(path: Path, predictions: Sequence[Prediction], about: Mapping[str, Any]) -> None:
    """Writes predictions as one JSON object, the whole file or nothing; the metadata `about` comes first.

    A bad video has an `error` instead of a `top` list.
    """
    content = {**about, "predictions": [_entry(prediction) for prediction in predictions]}
    _write(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, predictions: Sequence[Prediction], top_k: int) -> None:
    """Writes predictions as CSV, the whole file or nothing.

    The columns are those of an evaluation's `predictions.csv`, `seconds` for a camera, and `error`.
    """
    has_seconds = any(prediction.seconds is not None for prediction in predictions)
    best = [f"{word}_{number}" for number in range(1, top_k + 1) for word in ("class", "probability")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *(["seconds"] if has_seconds else []), *best, "error"])
    for prediction in predictions:
        row: list[str] = [prediction.path]
        if has_seconds:
            row.append(f"{prediction.seconds:.3f}")
        pairs = zip(prediction.names, prediction.probabilities.tolist(), strict=True)
        cells = [cell for name, value in pairs for cell in (name, f"{value:.6f}")]
        writer.writerow([*row, *cells, *[""] * (2 * top_k - len(cells)), prediction.problem])
    _write(path, text.getvalue())


def _entry(prediction: Prediction) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": prediction.path}
    if prediction.seconds is not None:
        entry["seconds"] = round(prediction.seconds, 3)
    if prediction.problem:
        return entry | {"error": prediction.problem}
    rows = zip(prediction.labels.tolist(), prediction.names, prediction.probabilities.tolist(), strict=True)
    return entry | {"top": [{"class": name, "label": label, "probability": value} for label, name, value in rows]}


def _write(path: Path, text: str) -> None:
    # A file name may hold bytes that are not UTF-8.
    content = text.encode(errors="backslashreplace")
    if path == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    with replacing(path) as partial:
        partial.write_bytes(content)
