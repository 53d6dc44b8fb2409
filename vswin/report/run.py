"""Make the report of a run: `vswin report`, and the end of every training and evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vswin.atomic import replacing
from vswin.console import printable
from vswin.data.frames import FrameLoader
from vswin.errors import InputError
from vswin.report.clips import Clip, choose_clips, draw_clips, open_videos
from vswin.report.page import write_page
from vswin.report.plots import draw_curves
from vswin.runs.files import check_is_run, list_runs, read_run

REPORT_NAME, CURVES_NAME = "report.html", "curves.png"
_NUM_CLIPS = 6


def make_report(folder: Path, frames: FrameLoader | None = None) -> list[Path]:
    """Writes `report.html` into the folder of a run or an evaluation, and its plots as PNG, from the files there.

    The videos of the evaluation are opened as its files say, unless `frames` loads them.

    Returns:
        What was written, the report first; each file takes the place of an earlier one.

    Raises:
        InputError: If there is no such folder, or a file in it is damaged.
        OSError: If something cannot be written.
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
    # A class or a file may have a name that is no UTF-8.
    contents = {REPORT_NAME: page.encode(errors="backslashreplace")}
    contents |= {CURVES_NAME: picture} if picture else {}
    contents |= pictures
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in contents]


def report_or_say_why(folder: Path, frames: FrameLoader | None = None) -> str:
    """Makes the report at the end of a run, whose success does not depend on it; says where it is, or why not."""
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
    """Makes the reports of run folders and patterns, see `list_runs`, and prints where they are.

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
