"""Makes the report of a run: `vswin report`, and the end of every training and evaluation.

The report is one page without other files (`vswin.runs.page`); its clips are small animations of tested videos.
"""

from __future__ import annotations

import base64
import io
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vswin.atomic import replacing
from vswin.console import printable
from vswin.data.decode import VIDEO_FILES, VideoStore
from vswin.data.frames import FrameLoader
from vswin.data.packed import is_packed, open_packed
from vswin.data.samples import split_name
from vswin.errors import DecodeError, InputError
from vswin.runs.files import Predictions, check_is_run, list_runs, read_run
from vswin.runs.page import Clip, write_page
from vswin.runs.plots import draw_curves

REPORT_NAME, CURVES_NAME = "report.html", "curves.png"
_NUM_CLIPS = 6
_HEIGHT, _WIDEST = 112, 200  # pixels
_NUM_FRAMES = 14
_MILLISECONDS = 130  # per frame
_SECONDS_FOR_ONE, _SECONDS_FOR_ALL = 5.0, 20.0


def make_report(folder: Path, frames: FrameLoader | None = None) -> list[Path]:
    """Writes `report.html` and PNG plots into the folder of a run or an evaluation, from the files there.

    `frames` loads the videos of the evaluation; None opens them as the files of the evaluation say.

    Returns:
        The written files, the report first; each replaces an earlier one.

    Raises:
        InputError: If the folder does not exist, or a file in it is damaged.
        OSError: If a file cannot be written.
    """
    check_is_run(folder)
    run = read_run("", folder.resolve().name, folder)
    curves, picture = draw_curves(run.history) if run.history is not None else ([], b"")
    best: list[Clip] = []
    worst: list[Clip] = []
    if run.predictions is not None:
        best, worst = choose_clips(run.predictions, _NUM_CLIPS)
        drawn = _draw_clips([*worst, *best], frames or _open_videos(run.test_set))
        worst, best = drawn[: len(worst)], drawn[len(worst) :]
    page, pictures = write_page(run, curves, best, worst)
    # A class or a file may have a name that is not UTF-8.
    contents = {REPORT_NAME: page.encode(errors="backslashreplace")}
    contents |= {CURVES_NAME: picture} if picture else {}
    contents |= pictures
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in contents]


def report_or_say_why(folder: Path, frames: FrameLoader | None = None) -> str:
    """Makes the report at the end of a run; returns a sentence with its path, or with an error that ends no run."""
    try:
        report, *_ = make_report(folder, frames)
    # No error of the report may end hours of work.
    except Exception as error:
        again = shlex.join(["vswin", "report", str(folder)])
        return (
            f"there is no {REPORT_NAME} ({type(error).__name__}: {error}); everything else is complete. Make it later "
            f"with {again}"
        )
    return f"report: {report}"


def run_report(arguments: Sequence[str]) -> None:
    """Makes the reports of run folders and patterns, see `list_runs`, and prints their paths.

    Raises:
        InputError: If an argument matches no run, or if runs have damaged files; the other reports are still made.
    """
    problems = []
    for folder in list_runs(arguments):
        try:
            for path in make_report(folder):
                print(printable(str(path)))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n  ".join(problems))


def choose_clips(predictions: Predictions, count: int) -> tuple[list[Clip], list[Clip]]:
    """Chooses up to `count` right and up to `count` wrong predictions with the highest probabilities.

    Among the right predictions, each class comes once before any class comes twice.
    """
    order = np.argsort(-predictions.probabilities, kind="stable").tolist()
    right = [index for index in order if predictions.is_right[index]]
    is_decoded = ~np.isnan(predictions.probabilities)
    wrong = [index for index in order if is_decoded[index] and not predictions.is_right[index]]
    firsts: dict[str, int] = {}
    for index in right:
        firsts.setdefault(predictions.labels[index], index)
    right = list(dict.fromkeys([*firsts.values(), *right]))
    columns = (predictions.paths, predictions.labels, predictions.predicted, predictions.probabilities.tolist())
    rows = list(zip(*columns, strict=True))
    return [Clip(*rows[index]) for index in right[:count]], [Clip(*rows[index]) for index in wrong[:count]]


def _open_videos(test_set: Mapping[str, Any]) -> FrameLoader:
    """Opens the videos of an evaluation, given `protocol.dataset` of its `metrics.json`; reads packed data sets too."""
    root = test_set.get("root")
    store: VideoStore = VIDEO_FILES
    # If the packed data set cannot be read, each of its videos counts as missing.
    with suppress(InputError, OSError, ValueError):
        if isinstance(root, str) and is_packed(root):
            store = open_packed(root)
    return FrameLoader(timeout_sec=_SECONDS_FOR_ONE, store=store)


def _draw_clips(clips: Sequence[Clip], frames: FrameLoader) -> list[Clip]:
    """Adds animations to clips, or the reason why there is none; starts no clip after 20 seconds."""
    end = time.monotonic() + _SECONDS_FOR_ALL
    drawn = []
    for clip in clips:
        try:
            drawn.append(_animate(clip, frames) if time.monotonic() < end else _without("decoding took too long", clip))
        except DecodeError as error:
            is_gone = error.cause == "missing"
            reason = "the file is not there any more, or not seen from this folder" if is_gone else error.reason
            drawn.append(_without(reason, clip))
        # A store whose files have changed, or a picture that Pillow cannot write.
        except (InputError, OSError, ValueError) as error:
            drawn.append(_without(str(error), clip))
    return drawn


def _without(reason: str, clip: Clip) -> Clip:
    return clip._replace(problem=printable(reason))


def _animate(clip: Clip, frames: FrameLoader) -> Clip:
    def spread(num_video_frames: int) -> np.ndarray:
        return np.linspace(0, num_video_frames - 1, min(_NUM_FRAMES, num_video_frames)).round().astype(np.int64)

    images = []
    path, part = split_name(clip.path)
    for frame in frames.load(path, _HEIGHT, spread, part):
        height, width = frame.shape[:2]
        scale = min(_HEIGHT / height, _WIDEST / width)
        size = max(1, round(scale * width)), max(1, round(scale * height))
        images.append(Image.fromarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)))
    film, still = io.BytesIO(), io.BytesIO()
    images[0].save(
        film, "WEBP", save_all=True, append_images=images[1:], duration=_MILLISECONDS, loop=0, quality=60, method=2
    )
    images[len(images) // 2].save(still, "WEBP", quality=60, method=2)
    film_text, still_text = (base64.b64encode(file.getvalue()).decode() for file in (film, still))
    return clip._replace(film=film_text, still=still_text, size=images[0].size)
