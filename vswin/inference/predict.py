"""Predict the actions in videos: `vswin predict`."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vswin.atomic import STDOUT, check_outputs, replacing
from vswin.console import count_of, printable
from vswin.data.bad_videos import BadVideos
from vswin.errors import InputError
from vswin.evaluation.views import check_finite, show_progress
from vswin.inference.annotate import save_annotated
from vswin.inference.cameras import watch_camera
from vswin.inference.inputs import Input, find_camera, find_videos, name_outputs
from vswin.inference.model import LoadedModel, find_protocol, open_model
from vswin.runtime import console, logger, start_log

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
        is_predicted: If a video may have several labels: whether the classes reach their thresholds, bool [k].
    """

    path: str
    labels: np.ndarray = np.zeros(0, np.int64)
    names: Sequence[str] = ()
    probabilities: np.ndarray = np.zeros(0, np.float32)
    problem: str = ""
    seconds: float | None = None
    is_predicted: np.ndarray | None = None

    @property
    def predicted(self) -> list[str]:
        """The names of the classes that reach their thresholds; empty if a video has one label."""
        flags = [] if self.is_predicted is None else self.is_predicted.tolist()
        return [name for name, flag in zip(self.names, flags, strict=False) if flag]


class Outputs(NamedTuple):
    """Where predictions go besides the terminal: files or `STDOUT`, and a folder for annotated videos."""

    json: Path | None = None
    csv: Path | None = None
    save: Path | None = None
    is_overwriting: bool = False


def run_predict(
    arguments: Sequence[str],
    weights: str,
    overrides: Sequence[str] = (),
    classes: Path | None = None,
    top_k: int = 5,
    outputs: Outputs | None = None,
    seconds: float | None = None,
) -> list[Prediction]:
    """Predicts videos, prints the best `top_k` classes of each, and writes the outputs; returns the predictions.

    `arguments` are files, folders, patterns, or a camera, which is watched for some `seconds` or until Ctrl-C.
    `weights` name the model, and `overrides` change the views and where the model runs, see `find_protocol`. `classes`
    is a file with one class name per line. Bad videos are among the predictions, in order.

    If a video may have several labels, all classes that reach their thresholds are shown, too, and marked.

    Raises:
        InputError: if there are no such videos or model, or an output cannot be written.
        SystemExit: with code 1, if videos could not be decoded; all others are predicted.
    """
    outputs = outputs or Outputs()
    files = [path for path in (outputs.json, outputs.csv) if path is not None]
    start_log(None, is_stderr=STDOUT in files)
    camera = find_camera(arguments)
    _check_options(outputs, top_k, seconds, camera is not None)
    check_outputs(files, outputs.is_overwriting)
    inputs = [] if camera is not None else find_videos(arguments)
    films = {} if outputs.save is None else name_outputs(inputs, outputs.save, outputs.is_overwriting)
    # A camera gives one view at a time: the latest clip, cropped at the centre.
    one_view = [] if camera is None else ["clip.num_clips=1", "clip.num_crops=1"]
    protocol = find_protocol(weights, [*overrides, *one_view])
    loaded = open_model(weights, protocol, classes)
    note = "" if loaded.has_names else ", whose names are not known (--classes FILE gives them)"
    logger.info(f"{weights}: {count_of(loaded.model.num_classes, 'class')}{note}; {protocol.origin}")

    predictions: list[Prediction] = []
    is_interrupted = False
    found = _predict_files(loaded, inputs, top_k) if camera is None else _predict_camera(loaded, camera, top_k, seconds)
    try:
        with closing(found):
            for prediction in found:
                print_prediction(console, prediction)
                predictions.append(prediction)
    except KeyboardInterrupt:
        is_interrupted = True

    # Write the predictions made so far, even after Ctrl-C.
    if outputs.json is not None:
        write_json(outputs.json, predictions, weights, loaded)
    if outputs.csv is not None:
        write_csv(outputs.csv, predictions, min(top_k, loaded.model.num_classes))
    for path in files:
        if path != STDOUT:
            logger.info(f"wrote {path}")
    if loaded.thresholds is not None:
        origin = "0.5, as the weights bring none" if protocol.thresholds is None else "as chosen on validation"
        logger.info(f"* marks the classes whose probability reaches their threshold ({origin})")
    logger.info(loaded.describe())
    if is_interrupted and camera is None:
        raise KeyboardInterrupt
    num_bad = sum(bool(prediction.problem) for prediction in predictions)
    if num_bad:
        logger.info(f"{num_bad} of {len(predictions)} videos could not be decoded and were passed over")
    good = [prediction.path for prediction in predictions if not prediction.problem]
    num_left_out = save_annotated(loaded, {path: films[path] for path in good if path in films})
    if num_bad + num_left_out:
        raise SystemExit(1)
    return predictions


def _check_options(outputs: Outputs, top_k: int, seconds: float | None, is_camera: bool) -> None:
    if top_k < 1:
        raise InputError(f"--top-k {top_k}: at least 1")
    if outputs.json is not None and outputs.json == outputs.csv:
        raise InputError(f"--json and --csv both name {outputs.json}; name two files")
    if seconds is not None and seconds <= 0:
        raise InputError(f"--seconds {seconds:g}: above 0")
    if seconds is not None and not is_camera:
        raise InputError("--seconds says how long a camera is watched; leave it out for files")
    if outputs.save is not None and is_camera:
        raise InputError("--save goes with files; record the camera first, e.g. with ffmpeg, and predict the recording")


def _predict_camera(
    loaded: LoadedModel, camera: int, top_k: int, seconds: float | None
) -> Generator[Prediction, None, None]:
    with closing(watch_camera(loaded, camera, seconds)) as watched:
        for at, probabilities in watched:
            yield rank(f"camera:{camera}", probabilities, loaded.class_names, top_k, at, loaded.thresholds)


def _predict_files(loaded: LoadedModel, inputs: Sequence[Input], top_k: int) -> Generator[Prediction, None, None]:
    """Predicts files in order."""
    bad = BadVideos()
    paths = [entry.path for entry in inputs]
    with closing(show_progress(loaded.predict(paths, bad), len(paths), "predict")) as batches:
        for batch in batches:
            problems = {path: reason for path, reason, _ in bad.rows()}
            rows = zip(batch["indices"].tolist(), batch["labels"].tolist(), batch["probabilities"], strict=True)
            for index, label, probabilities in rows:
                if index < 0:
                    continue
                path = paths[index]
                if label < 0:
                    yield Prediction(path, problem=problems[path])
                    continue
                check_finite(probabilities[None], [path])
                yield rank(path, probabilities, loaded.class_names, top_k, thresholds=loaded.thresholds)


def rank(
    path: str,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    top_k: int,
    seconds: float | None = None,
    thresholds: np.ndarray | None = None,
) -> Prediction:
    """Takes the `top_k` best classes of probabilities, float32 [K]; among equal ones, the smaller label comes first.

    With `thresholds`, float [K], all classes that reach theirs are taken, too.
    """
    labels = np.argsort(-probabilities, kind="stable")
    is_taken = np.arange(len(labels)) < top_k
    if thresholds is not None:
        is_taken |= (probabilities >= thresholds)[labels]
    labels = labels[is_taken]  # [k]
    names = [class_names[label] for label in labels]
    flags = None if thresholds is None else (probabilities >= thresholds)[labels]
    return Prediction(path, labels, names, probabilities[labels], seconds=seconds, is_predicted=flags)


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
    marks = [""] * len(prediction.names)
    if prediction.is_predicted is not None:
        marks = ["* " if flag else "  " for flag in prediction.is_predicted]
    for name, probability, mark in zip(prediction.names, prediction.probabilities.tolist(), marks, strict=True):
        bar = [ProgressBar(total=1, completed=probability, width=_BAR_WIDTH)] if has_bar else []
        table.add_row(f"{100 * probability:6.2f} %", *bar, Text(mark + printable(name)))
    console.print(table, soft_wrap=False)


def write_json(path: Path, predictions: Sequence[Prediction], weights: str, loaded: LoadedModel) -> None:
    """Writes predictions as one JSON object after its metadata; a bad video has an `error` instead of a `top` list."""
    config = loaded.protocol.config
    clip = {key: value for key, value in vars(config.clip).items() if key != "views_per_step"}
    entries = []
    for prediction in predictions:
        entry: dict[str, Any] = {"path": prediction.path}
        if prediction.seconds is not None:
            entry["seconds"] = round(prediction.seconds, 3)
        if prediction.problem:
            entry["error"] = prediction.problem
        else:
            rows = zip(prediction.labels.tolist(), prediction.names, prediction.probabilities.tolist(), strict=True)
            entry["top"] = [{"class": name, "label": label, "probability": value} for label, name, value in rows]
            if prediction.is_predicted is not None:
                entry["predicted"] = prediction.predicted
        entries.append(entry)
    content = {
        "model": weights,
        "num_classes": loaded.model.num_classes,
        "protocol": {**clip, "average": config.average, "origin": loaded.protocol.origin},
        "precision": config.runtime.precision,
        "predictions": entries,
    }
    _write(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, predictions: Sequence[Prediction], top_k: int) -> None:
    """Writes predictions as CSV: the columns of an evaluation's `predictions.csv`, `seconds` for a camera, `error`."""
    has_predicted = any(prediction.is_predicted is not None for prediction in predictions)
    has_seconds = any(prediction.seconds is not None for prediction in predictions)
    best = [f"{word}_{number}" for number in range(1, top_k + 1) for word in ("class", "probability")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = [name for name, is_there in (("seconds", has_seconds), ("predicted", has_predicted)) if is_there]
    writer.writerow(["path", *more, *best, "error"])
    for prediction in predictions:
        seconds = [f"{prediction.seconds:.3f}"] if has_seconds else []
        seconds += [";".join(prediction.predicted)] if has_predicted else []
        pairs = zip(prediction.names[:top_k], prediction.probabilities[:top_k].tolist(), strict=True)
        cells = [cell for name, value in pairs for cell in (name, f"{value:.6f}")]
        cells += [""] * (2 * top_k - len(cells))
        writer.writerow([prediction.path, *seconds, *cells, prediction.problem])
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    """Writes the whole file or nothing; file names in it may hold bytes that are not UTF-8."""
    content = text.encode(errors="backslashreplace")
    if path == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    with replacing(path) as partial:
        partial.write_bytes(content)
