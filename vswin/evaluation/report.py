"""Writes the results of an evaluation to files and prints them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from vswin.atomic import replacing
from vswin.console import count_of, print_table, say
from vswin.data.bad_videos import BadVideos
from vswin.evaluation.published import Comparison, summarise
from vswin.runs.figures import accuracy_table, percent
from vswin.runs.metrics import NO_PREDICTION, Metrics, order_by_accuracy, score_classes
from vswin.runs.page import CLASSES_NAME
from vswin.runs.plots import draw_confusion_matrix
from vswin.runs.report import REPORT_NAME

# A training run keeps its own list in the same folder.
BAD_VIDEOS_NAME = "evaluation_bad_videos.csv"
FILE_NAMES = (
    *("predictions.csv", "per_class.csv", "confusion_matrix.png"),
    *(REPORT_NAME, CLASSES_NAME, "metrics.json"),
)
_NUM_WORST = 5


@dataclass(frozen=True)
class Result:
    """The results of an evaluation of N videos in K classes.

    Attributes:
        labels: Class of each video, int64 [N].
        ranked: Best classes, int64 [N, min(5, K)], best first; -1 where the video is bad.
        probabilities: Their probabilities, float32 [N, min(5, K)].
    """

    paths: Sequence[str]
    labels: np.ndarray
    ranked: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]
    metrics: Metrics


def set_report_aside(folder: Path) -> None:
    """Moves the files of an earlier report, if there is one, into `earlier_evaluations/<its date and time>`."""
    if not (folder / "metrics.json").exists():
        return
    written = datetime.fromtimestamp((folder / "metrics.json").stat().st_mtime)
    aside = folder / "earlier_evaluations" / f"{written:%Y-%m-%d_%H%M%S_%f}"
    aside.mkdir(parents=True, exist_ok=True)
    # Each worker has its own list of bad videos; metrics.json, which marks a report, goes last.
    lists = [path.name for path in folder.glob(f"{Path(BAD_VIDEOS_NAME).stem}*.csv")]
    for name in [*lists, *FILE_NAMES]:
        if (folder / name).exists():
            os.replace(folder / name, aside / name)


def write_report(
    folder: Path,
    result: Result,
    comparison: Comparison,
    protocol: Mapping[str, object],
    session: Mapping[str, object] | None = None,
    bad: BadVideos | None = None,
) -> None:
    """Writes `metrics.json`, `predictions.csv`, `per_class.csv` and `confusion_matrix.png`, each whole or not at all.

    `protocol` and `session` describe how and on what it was measured, as JSON values. `bad` videos, if any, go into
    `evaluation_bad_videos.csv`.
    """
    summary = summarise(result.metrics, comparison) | {"protocol": protocol}
    summary |= {"environment": session} if session else {}
    if bad:
        bad.write(folder / BAD_VIDEOS_NAME)
    contents = {
        "predictions.csv": _csv_bytes(_prediction_rows(result)),
        "per_class.csv": _csv_bytes(_class_rows(result)),
        "confusion_matrix.png": draw_confusion_matrix(result.labels, result.ranked[:, 0], result.class_names),
        "metrics.json": (json.dumps(summary, indent=2) + "\n").encode(),
    }
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)


def print_report(console: Console, result: Result, comparison: Comparison) -> None:
    """Prints the accuracies beside the published ones, and the worst classes."""
    metrics, names = result.metrics, result.class_names
    print_table(console, accuracy_table(summarise(metrics, comparison)), texts=(0, 5))
    bad = (
        f", {metrics.num_bad_videos} of them could not be decoded and count as wrong" if metrics.num_bad_videos else ""
    )
    say(console, count_of(metrics.num_videos, "video") + bad, style="dim")
    if comparison.published is None:
        say(console, f"no published number for this: {comparison.reason}")
    elif comparison.note:
        say(console, comparison.note)
    lines = [["Worst classes", "videos", "top-1", "most often taken for"]]
    for score in order_by_accuracy(score_classes(result.ranked, result.labels, len(names)))[:_NUM_WORST]:
        if score.top1 < 1:
            taken_for = f"{names[score.confused_with]} ({score.num_confused})" if score.num_confused else ""
            lines.append([names[score.label], str(score.num_videos), percent(score.top1), taken_for])
    if len(lines) > 1:
        console.print()
        print_table(console, lines, texts=(0, 3))


def _prediction_rows(result: Result) -> Iterable[list[object]]:
    names, num_best = result.class_names, result.ranked.shape[1]
    best = [f"{word}_{rank}" for rank in range(1, num_best + 1) for word in ("class", "probability")]
    yield ["path", "label", "label_name", *best]
    for path, label, classes, values in zip(
        result.paths, result.labels, result.ranked, result.probabilities, strict=True
    ):
        row: list[object] = [path, label, names[label]]
        for predicted, value in zip(classes, values, strict=True):
            row += ["", ""] if predicted == NO_PREDICTION else [names[predicted], f"{value:.6f}"]
        yield row


def _class_rows(result: Result) -> Iterable[list[object]]:
    names = result.class_names
    yield ["label", "label_name", "num_videos", "top1", "top5", "confused_with", "num_confused", "precision", "f1"]
    for score in score_classes(result.ranked, result.labels, len(names)):
        top1, top5, precision, f1 = (
            "" if np.isnan(share) else f"{share:.4f}" for share in (score.top1, score.top5, score.precision, score.f1)
        )
        confused_with = "" if score.confused_with == NO_PREDICTION else names[score.confused_with]
        counts = (score.label, names[score.label], score.num_videos)
        yield [*counts, top1, top5, confused_with, score.num_confused, precision, f1]


def _csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A file name may contain bytes that are not UTF-8.
    return text.getvalue().encode(errors="backslashreplace")
