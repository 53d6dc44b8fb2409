"""Write what an evaluation found into files and onto the screen; called by `vswin.evaluation.run`."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from rich.console import Console

from vswin.atomic import replacing
from vswin.data.bad_videos import BadVideos
from vswin.evaluation.metrics import (
    NO_PREDICTION,
    ClassScore,
    Metrics,
    confusion_matrix,
    score_classes,
)
from vswin.evaluation.published import Comparison, difference_points, verdict
from vswin.report.run import CLASSES_NAME, REPORT_NAME
from vswin.tables import print_table, say
from vswin.wording import count_of, printable

# Not the list that a training run keeps in the same folder.
BAD_VIDEOS_NAME = "evaluation_bad_videos.csv"
FILE_NAMES = (
    *("predictions.csv", "per_class.csv", "confusion_matrix.png"),
    *(REPORT_NAME, CLASSES_NAME, "metrics.json"),
)

# Up to so many classes the confusion matrix shows counts, and names on its axes.
_MAX_COUNTS = 20
_MAX_NAMES = 110
_NUM_WORST = 5


@dataclass(frozen=True)
class Result:
    """Hold the outcome of an evaluation, one row per video.

    Attributes:
        paths: N video files.
        labels: Class of each video, int64 [N].
        ranked: Best min(5, K) classes, int64 [N, min(5, K)], best first; -1 where the video is bad.
        probabilities: Their probabilities, float32 [N, min(5, K)].
        class_names: K names.
        metrics: The summary figures.
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
    # Each worker has a list of bad videos; the file that marks the set goes last.
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
    """Writes `metrics.json`, `predictions.csv`, `per_class.csv` and `confusion_matrix.png`.

    Each file appears whole or not at all.

    Args:
        folder: Where to write; must exist.
        result: What was found.
        comparison: The published row it stands beside, if there is one.
        protocol: How it was measured, as values JSON knows; goes into `metrics.json` under `protocol`.
        session: What it ran on, the same; goes there under `environment`.
        bad: Videos that could not be decoded, for `evaluation_bad_videos.csv`.
    """
    summary = {
        **asdict(result.metrics),
        "published": _published_entry(result.metrics, comparison),
        "protocol": protocol,
        **({"environment": session} if session else {}),
    }
    if bad:
        bad.write(folder / BAD_VIDEOS_NAME)
    _replace(folder / "predictions.csv", _csv_bytes(_prediction_rows(result)))
    _replace(folder / "per_class.csv", _csv_bytes(_class_rows(result)))
    _replace(folder / "confusion_matrix.png", draw_confusion_matrix(result))
    _replace(folder / "metrics.json", (json.dumps(summary, indent=2) + "\n").encode())


def print_report(console: Console, result: Result, comparison: Comparison) -> None:
    """Prints the accuracies beside the published ones, and the classes that fared worst.

    Args:
        console: Where to print.
        result: What was found.
        comparison: The published row, or why there is none.
    """
    metrics = result.metrics
    lines = _accuracy_lines(metrics, comparison)
    print_table(console, lines, texts=(0, 5))
    say(console, _describe_count(metrics), style="dim")
    if comparison.published is None:
        say(console, f"no published number for this: {comparison.reason}")
    elif comparison.note:
        say(console, comparison.note)
    scores = score_classes(result.ranked, result.labels, len(result.class_names))
    worst = sorted((score for score in scores if score.top1 < 1), key=lambda score: score.top1)
    if worst:
        console.print()
        print_table(console, _worst_lines(worst[:_NUM_WORST], result.class_names), texts=(0, 3))


def _published_entry(metrics: Metrics, comparison: Comparison) -> dict[str, object]:
    published = comparison.published
    if published is None:
        return {"name": None, "reason": comparison.reason}
    return {
        "name": published.name,
        "top1": published.top1 / 100,
        "top5": published.top5 / 100,
        "top1_verdict": verdict(metrics.top1, published.top1, metrics.top1_interval),
        "top5_verdict": verdict(metrics.top5, published.top5, metrics.top5_interval),
    }


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
    yield ["label", "label_name", "num_videos", "top1", "top5", "confused_with", "num_confused"]
    for score in score_classes(result.ranked, result.labels, len(names)):
        accuracies = [f"{score.top1:.4f}", f"{score.top5:.4f}"] if score.num_videos else ["", ""]
        confused_with = "" if score.confused_with == NO_PREDICTION else names[score.confused_with]
        yield [
            score.label,
            names[score.label],
            score.num_videos,
            *accuracies,
            confused_with,
            score.num_confused,
        ]


def _csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A file name may hold bytes that are no UTF-8.
    return text.getvalue().encode(errors="backslashreplace")


def draw_confusion_matrix(result: Result) -> bytes:
    """Draws the confusion matrix as PNG; colours are shares of a row, so that rare classes show as well."""
    class_names, metrics = [printable(name) for name in result.class_names], result.metrics
    num_classes = len(class_names)
    matrix = confusion_matrix(result.labels, result.ranked[:, 0], num_classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 12.0  # inches
    if num_classes <= _MAX_NAMES:
        side = max(3.5, num_classes * (0.5 if num_classes <= _MAX_COUNTS else 0.18))
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    # The root keeps a mix-up of a few percent visible.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    axes.set(xlabel="prediction", ylabel="label")
    axes.set_title(f"{count_of(metrics.num_videos, 'video')}, top-1 {100 * metrics.top1:.2f} %")
    if num_classes <= _MAX_NAMES:
        font_size = 9 if num_classes <= _MAX_COUNTS else 7
        axes.set_xticks(range(num_classes), class_names, rotation=90, fontsize=font_size)
        axes.set_yticks(range(num_classes), class_names, fontsize=font_size)
    if num_classes <= _MAX_COUNTS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.35 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    colour_axes = figure.add_axes((1 + 0.25 / side, 0, 0.2 / side, 1))
    figure.colorbar(image, cax=colour_axes, label="share of the videos of the label")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, bbox_inches="tight")
    return png.getvalue()


def _describe_count(metrics: Metrics) -> str:
    text = count_of(metrics.num_videos, "video")
    if metrics.num_bad_videos:
        text += f", {metrics.num_bad_videos} of them could not be decoded and count as wrong"
    return text


def _accuracy_lines(metrics: Metrics, comparison: Comparison) -> list[list[str]]:
    """Writes a line for each accuracy; without a published one the columns that compare are left out."""
    published = comparison.published
    compared = [] if published is None else ["published", "difference", "verdict"]
    lines = [["Accuracy", "measured", "95 % interval", *compared]]
    for name, measured, interval, reference in (
        ("top-1", metrics.top1, metrics.top1_interval, published.top1 if published else None),
        ("top-5", metrics.top5, metrics.top5_interval, published.top5 if published else None),
    ):
        low, high = interval
        lines.append([name, f"{100 * measured:.2f} %", f"{100 * low:.1f} to {100 * high:.1f}"])
        if reference is not None:
            difference = difference_points(measured, reference)
            lines[-1] += [f"{reference:.1f} %", f"{difference:+.2f}", verdict(measured, reference, interval)]
    for name, measured in (
        ("mean class accuracy", metrics.mean_class_accuracy),
        ("clip top-1 (views by themselves)", metrics.clip_top1),
    ):
        lines.append([name, f"{100 * measured:.2f} %"])
    return lines


def _worst_lines(scores: Sequence[ClassScore], class_names: Sequence[str]) -> list[list[str]]:
    lines = [["Worst classes", "videos", "top-1", "most often taken for"]]
    for score in scores:
        taken_for = ""
        if score.confused_with != NO_PREDICTION:
            taken_for = f"{class_names[score.confused_with]} ({score.num_confused})"
        lines.append([class_names[score.label], str(score.num_videos), f"{100 * score.top1:.1f} %", taken_for])
    return lines


def _replace(path: Path, content: bytes) -> None:
    """Puts a whole new file in place of an old one."""
    with replacing(path) as partial:
        partial.write_bytes(content)
