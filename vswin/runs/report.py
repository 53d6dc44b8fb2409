"""Make the report of a run: `vswin report`, and the end of every training and evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vswin.atomic import replacing
from vswin.console import printable
from vswin.data.frames import FrameLoader
from vswin.errors import InputError
from vswin.runs.clips import Clip, choose_clips, draw_clips, open_videos
from vswin.runs.files import check_is_run, list_runs, read_run
from vswin.runs.page import write_page
from vswin.runs.plots import draw_curves

REPORT_NAME, CURVES_NAME = "report.html", "curves.png"
_NUM_CLIPS = 6


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
        drawn = draw_clips([*worst, *best], frames or open_videos(run.test_set))
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
