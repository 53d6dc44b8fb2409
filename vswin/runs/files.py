"""Reads the files of a training run and its evaluation from a folder; any of them may be damaged or missing."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vswin.config.load import saved_values
from vswin.config.schema import MULTI_LABEL, SINGLE_LABEL
from vswin.console import printable, program
from vswin.errors import InputError
from vswin.runs.environment import read_sessions

# Any of these files makes a folder a run; a run that was only evaluated has no training configuration.
_FILES = ("config.yaml", "history.csv", "metrics.json", "predictions.csv")
_SHARES: dict[str, tuple[str, ...]] = {SINGLE_LABEL: ("top1", "mean_class_accuracy"), MULTI_LABEL: ("map", "f1_micro")}
_MORE_SHARES = ("top5", "f1_macro")  # not of every task or version


class Predictions(NamedTuple):
    """The predictions for N test videos; classes are names, several of one video separated by semicolons."""

    paths: list[str]
    labels: list[str]
    predicted: list[str]  # best class of each video, or all that reach their thresholds; empty for a bad video
    probabilities: np.ndarray  # of the best class, float64 [N]; NaN for a bad video
    is_right: np.ndarray  # bool [N]; false for a bad video
    scores: np.ndarray | None = None  # with several labels the probabilities of all classes, float64 [N, K]


class Run(NamedTuple):
    """The contents of a run's folder; what is missing there is None or empty."""

    label: str  # its letter in tables, e.g. "b"
    name: str  # the end of its path that distinguishes it from the other runs
    folder: Path
    config: Mapping[str, Any] | None = None  # key -> value, e.g. {"clip.crop": 224}
    # Column of history.csv -> float64 [epochs], NaN where there is no value; the column `epoch` counts from 1.
    history: Mapping[str, np.ndarray] | None = None
    metrics: Mapping[str, Any] | None = None  # contents of metrics.json; accuracies are fractions
    predictions: Predictions | None = None
    class_names: tuple[str, ...] = ()  # of the evaluation, in the order of their labels
    class_rows: Sequence[Sequence[str]] = ()  # with several labels headings and figures of each class
    sessions: tuple[Mapping[str, Any], ...] = ()  # environment of each training session

    @property
    def is_multi_label(self) -> bool:
        """Whether its samples have several labels each."""
        settings = (self.metrics or {}).get("task") or (self.config or {}).get("dataset.task")
        return settings == MULTI_LABEL

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The protocol of the evaluation; empty if unknown."""
        return (self.metrics or {}).get("protocol") or {}

    @property
    def test_set(self) -> Mapping[str, Any]:
        """The entry of the data set in `metrics.json`; empty if unknown."""
        return self.protocol.get("dataset", {})

    @property
    def devices(self) -> str:
        """The devices of the last training session, in words; empty if unknown."""
        return printable(str(self.sessions[-1].get("devices") or "")) if self.sessions else ""


def list_runs(arguments: Sequence[str]) -> list[Path]:
    """Lists the run folders that arguments name, each once, in their order; each argument must name a run.

    Arguments are folders, or patterns such as `outputs/*_ucf101`; a pattern skips folders that are no runs.
    """
    # A folder that is named twice is one run: `outputs/best 'outputs/*'` puts the best one first.
    found: dict[Path, Path] = {}
    for argument in arguments:
        if Path(argument).is_dir():
            check_is_run(Path(argument))
            folders = [Path(argument)]
        else:
            folders = [path for path in map(Path, sorted(glob.glob(argument, recursive=True))) if _is_run(path)]
        if not folders:
            what = "no run matches this pattern; mind quotes" if glob.has_magic(argument) else "there is no such folder"
            raise InputError(f"{argument}: {what}; runs lie in outputs/ unless output_dir said otherwise")
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def check_is_run(folder: Path) -> None:
    """Raises an `InputError` if a folder has no files of a run."""
    if not _is_run(folder):
        has_runs = any(map(_is_run, folder.glob("*")))
        way_out = f"there are runs in it: '{folder}/*'" if has_runs else "name a folder that vswin train has written"
        raise InputError(f"{folder} is not the folder of a run: it has none of {', '.join(_FILES)}; {way_out}")


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in _FILES)


def read_run(label: str, name: str, folder: Path) -> Run:
    """Reads the files that a run has; an `InputError` if one is damaged, or two are not from the same evaluation."""
    history = predictions = None
    path = folder / "history.csv"
    if rows := _read_rows(path, ["epoch"]):
        history = {column: _read_numbers(path, rows, column) for column in rows[0]}
        history["epoch"] = history["epoch"] + 1  # from 0 in the file, from 1 in the log
        if not (np.diff(history["epoch"]) > 0).all() or not history["epoch"][0] >= 1:
            raise _damaged(path, "its epochs are not in order")
    path = folder / "predictions.csv"
    if rows := _read_rows(path, ["path", "label_name", "class_1", "probability_1"]):
        key, scores = "predicted" if "predicted" in rows[0] else "class_1", None
        if key == "predicted":
            score_rows = _read_rows(folder / "scores.csv", ["path"])
            names = list(score_rows[0])[1:] if score_rows else []
            scores = np.array([_read_numbers(folder / "scores.csv", score_rows, name) for name in names]).T
            if [row["path"] for row in score_rows] != [row["path"] for row in rows]:
                raise _damaged(folder / "scores.csv", "it has other videos than predictions.csv")
        predictions = Predictions(
            paths=[row["path"] for row in rows],
            labels=[row["label_name"] for row in rows],
            predicted=[row[key] for row in rows],
            probabilities=_read_numbers(path, rows, "probability_1"),
            is_right=np.array([row["class_1"] != "" and row[key] == row["label_name"] for row in rows]),
            scores=scores,
        )
    metrics = read_metrics(folder / "metrics.json")
    if metrics is not None and predictions is not None:
        # Both must be from the same evaluation.
        num_listed, num_videos = len(predictions.paths), metrics["num_videos"]
        num_right, top1 = int(predictions.is_right.sum()), metrics.get("top1")
        is_other = top1 is not None and abs(num_right - top1 * num_videos) > 0.5
        if num_listed != num_videos or is_other or (top1 is None) != (predictions.scores is not None):
            right = "" if top1 is None else f", {num_right:,} of them right,"
            share = "" if top1 is None else f" with a top-1 of {100 * top1:.2f} %"
            raise InputError(
                f"{folder}: predictions.csv has {num_listed:,} videos{right} and metrics.json {num_videos:,}{share}, "
                "so one is cut off or of another evaluation; evaluate the run again "
                f"({program('evaluate')} run=...), or do without these files"
            )
    classes = _read_rows(folder / "per_class.csv", ["label_name"])
    is_listed = predictions is not None and predictions.scores is not None
    return Run(
        label=label,
        name=name,
        folder=folder,
        config=saved_values(folder) if (folder / "config.yaml").exists() else None,
        history=history,
        metrics=metrics,
        predictions=predictions,
        class_names=tuple(row["label_name"] for row in classes),
        class_rows=[list(classes[0]), *(list(row.values()) for row in classes)] if is_listed and classes else [],
        sessions=tuple(read_sessions(folder)),
    )


def read_metrics(path: Path) -> Mapping[str, Any] | None:
    """Reads `metrics.json`; returns None if it does not exist; raises an `InputError` if it is damaged."""
    text = _read_text(path)
    if text is None:
        return None
    try:
        metrics = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is no JSON ({error})") from None
    match metrics:
        case {"num_videos": int(count), **others} if count >= 1:
            needed = _SHARES.get(str(others.get("task", SINGLE_LABEL)), ())
            shares = [others.get(key) for key in needed] + [others[key] for key in _MORE_SHARES if key in others]
            protocol = others.get("protocol") or {}
            has_shares = all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
            if needed and has_shares and isinstance(protocol, dict) and isinstance(protocol.get("dataset", {}), dict):
                return metrics
    raise _damaged(path, "it is not what an evaluation writes: no accuracies between 0 and 1")


def _read_text(path: Path) -> str | None:
    """Reads a file; returns None if it does not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _damaged(path, f"it is no text ({error.reason})") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable, or do without it") from error


def _read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Reads a CSV file with at least one whole row and these columns; returns no rows if it does not exist."""
    text = _read_text(path)
    if text is None:
        return []
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise _damaged(path, str(error)) from None
    names = reader.fieldnames or []
    for column in columns:
        if column not in names:
            raise _damaged(path, f"it has no column {column}")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise _damaged(path, f"row {number} does not have {len(names)} columns")
    if not rows or not text.endswith("\n"):
        raise _damaged(path, "it is cut off in the middle of its last row" if rows else "it has no rows")
    return rows


def _read_numbers(path: Path, rows: list[dict[str, str]], column: str) -> np.ndarray:
    """Returns a column as float64 [rows], NaN where a cell is empty."""
    try:
        return np.array([float(row[column]) if row[column] else math.nan for row in rows])
    except ValueError as error:
        raise _damaged(path, printable(str(error))) from None


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged: {reason}; copy it again, or do without this file")
