"""Make the report of a run: `vswin report`, and the end of every training and evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vswin.atomic import replacing
from vswin.data.frames import FrameLoader
from vswin.errors import InputError
from vswin.report.clips import Clip, choose_best, choose_worst, draw_clips, open_videos
from vswin.report.page import Plots, write_page
from vswin.report.plots import draw_all, draw_class_accuracy, draw_panel, find_panels
from vswin.report.scores import MAX_WHOLE_MATRIX, score_classes
from vswin.runs.files import Run, read_run
from vswin.runs.folders import check_is_run, list_runs
from vswin.wording import printable

REPORT_NAME, CURVES_NAME, CLASSES_NAME = "report.html", "curves.png", "class_accuracy.png"
_NUM_CLIPS = 6


def make_report(folder: Path, frames: FrameLoader | None = None) -> list[Path]:
    """Writes `report.html` into the folder of a run or an evaluation, and its plots as PNG, from the files there.

    Args:
        folder: Where the files are.
        frames: Loads the videos of the evaluation; None: they are opened as its files say.

    Returns:
        What was written, the report first; each file takes the place of an earlier one.

    Raises:
        InputError: If there is no such folder, or a file in it is damaged.
        OSError: If something cannot be written.
    """
    check_is_run(folder)
    run = read_run("", folder.resolve().name, folder)
    pictures: dict[str, bytes] = {}
    plots = _draw_plots(run, pictures)
    best, worst = _draw_clips(run, frames)
    page = write_page(run, plots, best, worst)
    # A class or a file may have a name that is no UTF-8.
    contents = {REPORT_NAME: page.encode(errors="backslashreplace"), **pictures}
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in contents]


def report_or_say_why(folder: Path, frames: FrameLoader | None = None) -> str:
    """Makes the report at the end of a run, whose success does not depend on it.

    Args:
        folder: See `make_report`.
        frames: See `make_report`.

    Returns:
        What there is to say about it, in a line or a paragraph.
    """
    try:
        report, *_ = make_report(folder, frames)
    # Whatever it is, hours of work do not end in it.
    except Exception as error:
        again = shlex.join(["vswin", "report", str(folder)])
        return (
            f"there is no {REPORT_NAME} ({type(error).__name__}: {error}); everything else is complete. Make it later "
            f"with {again}"
        )
    return f"report: {report}"


def run_report(arguments: Sequence[str]) -> None:
    """Makes the reports of runs and prints where they are.

    Args:
        arguments: Run folders and patterns, see `list_runs`.

    Raises:
        InputError: If an argument stands for no run, or files of some of them are damaged; all others are done then.
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


def _draw_plots(run: Run, pictures: dict[str, bytes]) -> Plots:
    """Draws the plots, and adds their PNGs to the pictures."""
    curves: list[str] = []
    if run.history is not None and (panels := find_panels(run.history)):
        epochs = run.history["epoch"]
        curves = [draw_panel(panel, epochs) for panel in panels]
        pictures[CURVES_NAME] = draw_all(panels, epochs)
    classes = ""
    scores = score_classes(run.predictions) if run.predictions else []
    if len(scores) > MAX_WHOLE_MATRIX:
        classes, pictures[CLASSES_NAME] = draw_class_accuracy(np.array([score.top1 for score in scores]))
    return Plots(curves, classes)


def _draw_clips(run: Run, frames: FrameLoader | None) -> tuple[list[Clip], list[Clip]]:
    if run.predictions is None:
        return [], []
    best, worst = (choose(run.predictions, _NUM_CLIPS) for choose in (choose_best, choose_worst))
    drawn = draw_clips([*worst, *best], frames or open_videos(run.test_set))
    return drawn[len(worst) :], drawn[: len(worst)]
