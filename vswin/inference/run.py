"""Predict the actions in videos: `vswin predict`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from vswin.atomic import STDOUT, check_outputs
from vswin.console import count_of
from vswin.data.bad_videos import BadVideos
from vswin.errors import InputError
from vswin.evaluation.views import check_finite, show_progress
from vswin.inference.camera import predict_camera
from vswin.inference.inputs import Input, find_camera, find_videos
from vswin.inference.model import LoadedModel, open_model
from vswin.inference.protocol import find_protocol
from vswin.inference.results import Prediction, make_bad, print_prediction, rank, write_csv, write_json
from vswin.inference.save import name_outputs, save_annotated
from vswin.runtime import console, logger, start_log


class Outputs(NamedTuple):
    """Where predictions go besides the terminal: files or `STDOUT`, and a folder for annotated videos."""

    json: Path | None = None
    csv: Path | None = None
    save: Path | None = None
    is_overwriting: bool = False

    @property
    def files(self) -> list[Path]:
        """Lists the files to write, including `STDOUT`."""
        return [path for path in (self.json, self.csv) if path is not None]


def run_predict(
    arguments: Sequence[str],
    weights: str,
    overrides: Sequence[str] = (),
    classes: Path | None = None,
    top_k: int = 5,
    outputs: Outputs | None = None,
    seconds: float | None = None,
) -> list[Prediction]:
    """Predicts videos, prints the best classes of each, and writes the outputs.

    Args:
        arguments: files, folders, patterns, or a camera, see `vswin.inference.inputs`.
        weights: the model, see `find_protocol`.
        overrides: change the views, and where the model runs.
        classes: a file with one class name per line, for weights without class names.
        top_k: number of classes for each video.
        outputs: where predictions go besides the terminal.
        seconds: how long to watch a camera; None: until Ctrl-C.

    Returns:
        The predictions in order, including bad videos.

    Raises:
        InputError: if there are no such videos or model, or an output cannot be written.
        SystemExit: with code 1, if videos could not be decoded; all others are predicted.
    """
    outputs = outputs or Outputs()
    start_log(None, is_stderr=STDOUT in outputs.files)
    if top_k < 1:
        raise InputError(f"--top-k {top_k}: at least 1")
    if seconds is not None and seconds <= 0:
        raise InputError(f"--seconds {seconds:g}: above 0")
    if outputs.json is not None and outputs.json == outputs.csv:
        raise InputError(f"--json and --csv both name {outputs.json}; name two files")
    check_outputs(outputs.files, outputs.is_overwriting)
    camera = find_camera(arguments)
    if camera is None and seconds is not None:
        raise InputError("--seconds says how long a camera is watched; leave it out for files")
    if camera is not None and outputs.save is not None:
        raise InputError("--save goes with files; record the camera first, e.g. with ffmpeg, and predict the recording")
    inputs = [] if camera is not None else find_videos(arguments)
    targets = name_outputs(inputs, outputs.save, outputs.is_overwriting) if outputs.save is not None else {}
    # A camera gives one view at a time: the latest clip, cropped at the centre.
    one_view = [] if camera is None else ["clip.num_clips=1", "clip.num_crops=1"]
    protocol = find_protocol(weights, [*overrides, *one_view])
    loaded = open_model(weights, protocol, classes)
    named = "" if loaded.has_names else ", whose names are not known (--classes FILE gives them)"
    logger.info(f"{weights}: {count_of(loaded.model.num_classes, 'class')}{named}; {loaded.protocol.origin}")

    predictions: list[Prediction] = []
    is_interrupted = False
    found = _predict_files(loaded, inputs, top_k) if camera is None else predict_camera(loaded, camera, top_k, seconds)
    try:
        with closing(found):
            for prediction in found:
                print_prediction(console, prediction)
                predictions.append(prediction)
    except KeyboardInterrupt:
        is_interrupted = True
    # Write the predictions made so far, even after Ctrl-C.
    _write(outputs, predictions, top_k, weights, loaded)
    logger.info(loaded.describe())
    if is_interrupted and camera is None:
        raise KeyboardInterrupt
    num_bad = sum(bool(prediction.problem) for prediction in predictions)
    if num_bad:
        logger.info(f"{num_bad} of {len(predictions)} videos could not be decoded and were passed over")
    good = [prediction.path for prediction in predictions if not prediction.problem]
    num_left_out = save_annotated(loaded, {path: targets[path] for path in good if path in targets})
    if num_bad + num_left_out:
        raise SystemExit(1)
    return predictions


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
                if label < 0:
                    yield make_bad(paths[index], problems[paths[index]])
                    continue
                check_finite(probabilities[None], [paths[index]])
                yield rank(paths[index], probabilities, loaded.class_names, top_k)


def _write(outputs: Outputs, predictions: Sequence[Prediction], top_k: int, weights: str, loaded: LoadedModel) -> None:
    if outputs.json is not None:
        config = loaded.protocol.config
        clip = {key: value for key, value in vars(config.clip).items() if key != "views_per_step"}
        about = {
            "model": weights,
            "num_classes": loaded.model.num_classes,
            "protocol": {**clip, "average": config.average, "origin": loaded.protocol.origin},
            "precision": config.runtime.precision,
        }
        write_json(outputs.json, predictions, about)
    if outputs.csv is not None:
        write_csv(outputs.csv, predictions, min(top_k, loaded.model.num_classes))
    for path in outputs.files:
        if path != STDOUT:
            logger.info(f"wrote {path}")
