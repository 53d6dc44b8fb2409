"""Writes the results of an evaluation to its folder, to the screen, and into the table of all evaluations.

The table is `results.json` for programs and `results.md` for people. Every evaluation rewrites the Markdown from the
JSON, so keep notes in another file.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from vswin.atomic import locked, replacing
from vswin.console import count_of, print_table, say
from vswin.data.bad_videos import BadVideos
from vswin.errors import InputError
from vswin.evaluation.multi_label import SCORES_NAME, MultiLabelResult
from vswin.evaluation.published import TOLERANCE_POINTS, Comparison, summarise
from vswin.runs.figures import accuracy_table, describe_views, difference_points, percent
from vswin.runs.metrics import NO_PREDICTION, Metrics, order_by_accuracy, rank_classes, score_classes
from vswin.runs.multi_label import MultiLabelMetrics
from vswin.runs.page import CLASSES_NAME
from vswin.runs.plots import draw_confusion_matrix
from vswin.runs.report import REPORT_NAME

# A training run keeps its own list in the same folder.
BAD_VIDEOS_NAME = "evaluation_bad_videos.csv"
FILE_NAMES = (
    *("predictions.csv", "per_class.csv", "confusion_matrix.png", SCORES_NAME),
    *(REPORT_NAME, CLASSES_NAME, "metrics.json"),
)
_NUM_WORST = 5
_COMPARED = ("official", "difference", "verdict")
_HEADINGS = ["date", "weights", "data", "videos", "protocol", "top-1 %", *_COMPARED, "top-5 %", *_COMPARED]
_MORE_COLUMNS = {"clip_top1": "clip top-1 %", "mean_class_accuracy": "mean class %", "map": "mAP %"}
_MORE_COLUMNS |= {"f1_macro": "macro F1 %"}
_RECORDED = (
    *("num_videos", "num_bad_videos", "clip_top1", "clip_top5", "mean_class_accuracy", "f1_macro", "precision_macro"),
    *("log_loss", "calibration_error", "roc_auc", "average_precision", "task", "map", "map_interval", "f1_micro"),
)
_TEXT_COLUMNS = ("date", "weights", "data", "protocol", "verdict")


@dataclass(frozen=True)
class Result:
    """The results of an evaluation of N videos in K classes.

    Attributes:
        labels: Class of each video, int64 [N].
        probabilities: Of every class, float32 [N, K]; NaN where the video is bad.
    """

    paths: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]
    metrics: Metrics

    @cached_property
    def ranked(self) -> np.ndarray:
        """The best classes, int64 [N, min(5, K)], best first; -1 where the video is bad."""
        return rank_classes(self.probabilities)


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
    result: Result | MultiLabelResult,
    comparison: Comparison,
    protocol: Mapping[str, object],
    session: Mapping[str, object] | None = None,
    bad: BadVideos | None = None,
) -> None:
    """Writes the tables and plots of an evaluation and `metrics.json`, each whole or not at all.

    `protocol` and `session` describe how and on what it was measured, as JSON values. `bad` videos, if any, go into
    `evaluation_bad_videos.csv`.
    """
    summary = summarise(result.metrics, comparison) | {"protocol": protocol}
    summary |= {"environment": session} if session else {}
    if bad:
        bad.write(folder / BAD_VIDEOS_NAME)
    if isinstance(result, MultiLabelResult):
        contents = {
            "predictions.csv": _csv_bytes(result.prediction_rows()),
            "per_class.csv": _csv_bytes(result.class_rows()),
            SCORES_NAME: _csv_bytes(result.score_rows()),
        }
    else:
        contents = {
            "predictions.csv": _csv_bytes(_prediction_rows(result)),
            "per_class.csv": _csv_bytes(_class_rows(result)),
            "confusion_matrix.png": draw_confusion_matrix(result.labels, result.ranked[:, 0], result.class_names),
        }
    contents["metrics.json"] = (json.dumps(summary, indent=2) + "\n").encode()
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)


def print_report(console: Console, result: Result | MultiLabelResult, comparison: Comparison) -> None:
    """Prints the figures beside the published ones, and the worst classes."""
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
    if isinstance(result, MultiLabelResult):
        if empty := result.metrics.num_empty_classes:
            say(console, f"{count_of(empty, 'class')} without videos, which count in no mean over classes")
        _, *rows = result.class_rows()
        rows = sorted((row for row in rows if row[2]), key=lambda row: str(row[3]))[:_NUM_WORST]
        lines = [["Worst classes", "videos", "average precision", "F1"]]
        lines += [[str(row[1]), str(row[2]), *(percent(float(str(row[i] or 0))) for i in (3, 6))] for row in rows]
        console.print()
        print_table(console, lines)
        return
    lines = [["Worst classes", "videos", "top-1", "most often predicted as"]]
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
        for predicted in classes:
            row += ["", ""] if predicted == NO_PREDICTION else [names[predicted], f"{values[predicted]:.6f}"]
        yield row


def _class_rows(result: Result) -> Iterable[list[object]]:
    names = result.class_names
    counted = ["top1", "top5", "confused_with", "num_confused", "precision", "f1", "top1_low", "top1_high"]
    yield ["label", "label_name", "num_videos", *counted]
    for score in score_classes(result.ranked, result.labels, len(names)):
        shares = (score.top1, score.top5, score.precision, score.f1, *score.interval)
        top1, top5, precision, f1, *interval = ("" if np.isnan(share) else f"{share:.4f}" for share in shares)
        confused_with = "" if score.confused_with == NO_PREDICTION else names[score.confused_with]
        counts = (score.label, names[score.label], score.num_videos)
        yield [*counts, top1, top5, confused_with, score.num_confused, precision, f1, *interval]


def _csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A file name may contain bytes that are not UTF-8.
    return text.getvalue().encode(errors="backslashreplace")


def append_result(
    folder: Path,
    metrics: Metrics | MultiLabelMetrics,
    comparison: Comparison,
    protocol: Mapping[str, Any],
    report: Path,
) -> None:
    """Adds an evaluation, whose report is in the folder `report`, to the table in `folder`.

    Several processes may do this at the same time.

    Raises:
        InputError: if the table cannot be read or written.
    """
    published, summary = comparison.published, summarise(metrics, comparison)
    record: dict[str, Any] = {**protocol, "report": str(report)}
    record |= {key: summary[key] for key in _RECORDED if key in summary}
    record |= {"official": published and published.name, "no_official": comparison.reason, "note": comparison.note}
    for name in filter(summary.__contains__, ("top1", "top5")):
        record[name] = {"measured": summary[name], "interval": list(summary[f"{name}_interval"])}
        if published is not None:
            official, page = summary["published"][name], published.hub_page
            record[name] |= {
                "official": official,
                "hub_page": None if page is None else getattr(page, name) / 100,
                "difference_points": difference_points(summary[name], official),
                "verdict": summary["published"][f"{name}_verdict"],
            }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".results.lock"):
            records = [*_read_records(folder / "results.json"), record]
            contents = {
                "results.json": json.dumps(records, indent=2, ensure_ascii=False) + "\n",
                "results.md": format_results(records),
            }
            for name, text in contents.items():
                with replacing(folder / name) as partial:
                    # Paths may contain bytes that are not UTF-8; JSON reads them back.
                    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"the evaluation is complete and stands in {report}, but the table in results_dir={folder} cannot be "
            f"written: {error}; set results_dir to another folder, or null for no table"
        ) from error


def _read_records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(records, list):
            raise TypeError("it holds no list")
        # Check the rows: foreign ones would end the Markdown table half-way.
        format_results(records)
        return records
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"{path} is no table of vswin ({error}); it is left as it is. Move it away, or set results_dir to another "
            "folder"
        ) from None


def format_results(records: Sequence[Mapping[str, Any]]) -> str:
    """Formats the records of `results.json` as Markdown, the whole of `results.md`, with the newest last."""
    # mAP has a column if any evaluation had several labels per sample.
    more = {key: title for key, title in _MORE_COLUMNS.items() if key != "map" or any(key in one for one in records)}
    headings = [*_HEADINGS, *more.values(), "log loss"]
    rule = ["---" if heading in _TEXT_COLUMNS else "---:" for heading in headings]
    rows: list[list[str]] = []
    notes: dict[str, None] = {}
    unmatched: dict[str, None] = {}
    for record in records:
        rows.append(_format_row(record, list(more)))
        weights, data = _escape(str(record["weights"]["init_from"])), _escape(_title(record["dataset"]))
        if record["note"]:
            notes[f"- {weights}: {_escape(record['note'])}"] = None
        if record["no_official"]:
            unmatched[f"- {weights} on {data}: {_escape(record['no_official'])}"] = None
    parts = [
        "# Results",
        "",
        "In brackets the Wilson interval of 95 %: the range of true accuracies that so many videos allow for. A",
        f"difference of up to {TOLERANCE_POINTS} points counts as reproduced. Clip top-1 judges every view by itself,",
        "the other figures judge videos. `results.json` has the whole protocol of each row.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)),
        "",
        *(["What the TF-Hub page says differently:", "", *notes, ""] if notes else []),
        *(["Without an official number:", "", *unmatched, ""] if unmatched else []),
    ]
    return "\n".join(parts)


def _title(dataset: Mapping[str, Any]) -> str:
    """Returns the title of a data set; records of earlier versions only have its name."""
    return str(dataset.get("title") or dataset["name"])


def _format_row(record: Mapping[str, Any], more: Sequence[str]) -> list[str]:
    dataset = record["dataset"]
    missing = f", {dataset['num_missing']:,} missing" if dataset.get("num_missing") else ""
    bad = f", {record['num_bad_videos']:,} bad" if record["num_bad_videos"] else ""
    cells = [
        _escape(record["date"].partition("T")[0]),
        _escape(str(record["weights"]["init_from"])),
        _escape(_title(dataset) + (f", split {dataset['split']}" if dataset.get("split") else "")),
        f"{record['num_videos']:,}{missing}{bad}",
        ", ".join(describe_views(record).values()),
    ]
    for accuracy in (record.get("top1"), record.get("top5")):
        if accuracy is None:
            cells += ["-"] * 4
            continue
        low, high = accuracy["interval"]
        cells.append(f"{100 * accuracy['measured']:.2f} ({100 * low:.2f} to {100 * high:.2f})")
        if "official" not in accuracy:
            cells += ["-", "-", "-"]
            continue
        official, page = accuracy["official"], accuracy["hub_page"]
        differs = page is not None and page != official
        cells += [
            f"{100 * official:.1f}" + (f" (TF-Hub page: {100 * page:.1f})" if differs else ""),
            f"{accuracy['difference_points']:+.2f}",
            _escape(accuracy["verdict"]),
        ]
    cells += [f"{100 * record[key]:.2f}" if key in record else "-" for key in more]
    return [*cells, f"{record['log_loss']:.4f}" if "log_loss" in record else "-"]


def _escape(text: str) -> str:
    """Escapes a name so that Markdown shows it unchanged: no cell, line, link or HTML begins in it."""
    shown = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", shown)
