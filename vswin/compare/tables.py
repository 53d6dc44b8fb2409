"""Print a comparison: what was reached, what differed, and what that shows, at any width of a window."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vswin.compare.differences import ABSENT, Difference
from vswin.compare.pairs import Pair, list_notes, say_pair
from vswin.runs.figures import format_speed, sum_up
from vswin.runs.files import Run
from vswin.tables import say
from vswin.wording import printable

# Heading of a column -> what it is called where a line has room for it.
_COLUMNS = {
    "epochs": "epochs done",
    "val best": "best top-1 in validation, % (in epoch)",
    "last": "last top-1 in validation, %",
    "top-1": "top-1 of the test, %",
    "top-5": "top-5 of the test, %",
    "mean": "mean class accuracy of the test, %",
    "clips/s": "training clips per second",
}
_LEGEND = (
    "val best: highest top-1 in validation (its epoch), last: after the last epoch; top-1, top-5, mean (class "
    "accuracy): of the test. All in percent."
)
_NARROWEST_NAME = 16
_INDENT = 3


def print_runs(console: Console, runs: Sequence[Run]) -> None:
    """Prints a row for each run, or a paragraph where a window is too narrow for rows."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("run", width=1, overflow="fold")
    for heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(run.label, Text(printable(run.name)), *_cells(run))
    # Names fold into what the numbers leave.
    width_of_names = console.width - Measurement.get(console, console.options.update(width=100_000), table).maximum + 1
    longest = max(cell_len(printable(run.name)) for run in runs)
    if width_of_names >= min(longest, _NARROWEST_NAME):
        table.columns[1].width = min(max(longest, 3), width_of_names)
        console.print(table)
        say(console, _LEGEND, style="dim")
    else:
        for run in runs:
            # A name stays on one line, however long.
            console.print(Text(f"{run.label}  {printable(run.name)}", style="bold"), soft_wrap=True)
            for name, cell in zip(_COLUMNS.values(), _cells(run), strict=True):
                say(console, f"{name}: {cell}", indent=_INDENT)
    if averaged := [run.label for run in runs if sum_up(run).is_average]:
        say(console, f"best by the averaged weights (val_ema_top1): {', '.join(averaged)}")
    if unlogged := [run.label for run in runs if run.history is None and run.config is not None]:
        say(console, f"no epoch is done or logged (history.csv): {', '.join(unlogged)}")


def print_differences(console: Console, runs: Sequence[Run], rows: Sequence[Difference]) -> None:
    """Prints a line for each setting that differs: its values, and which runs have them."""
    _heading(console, "What differed")
    without = [run.label for run in runs if run.config is None]
    if without:
        say(console, f"no config.yaml, so nothing is known of the training: {', '.join(without)}")
    if not rows:
        say(console, "nothing in the configuration, but for where the runs write")
    for row in rows:
        owners = _group_by_value(runs, row)
        values = [f"{value} ({', '.join(labels)})" for value, labels in owners.items()]
        say(console, f"{row.key}: {'; '.join(values)}", hanging=_INDENT)


def print_environment(console: Console, runs: Sequence[Run], rows: Sequence[Difference]) -> None:
    """Prints a line for each version and machine that is known: which runs have it, or that all have it."""
    for row in rows:
        owners = _group_by_value(runs, row)
        silent = owners.pop(ABSENT, [])
        values = [f"{value} ({', '.join(labels)})" for value, labels in owners.items()]
        if len(owners) == 1:
            values = [f"{next(iter(owners))} ({', '.join(silent)} not known)" if silent else f"{row.values[0]} (all)"]
        say(console, f"{row.key}: {'; '.join(values)}", style="bold" if len(owners) > 1 else "")


def print_pairs(console: Console, runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Prints a sentence for each pair, and below it what a reader has to know."""
    _heading(console, "Is the difference more than chance? Top-1 of the test, video by video")
    untested = [run.label for run in runs if run.predictions is None]
    if untested:
        command = "vswin evaluate run=FOLDER"
        say(console, f"no predictions.csv yet: {', '.join(untested)} ({command} writes one)")
    if not pairs:
        say(console, "a test needs two runs with one")
    for pair in pairs:
        say(console, say_pair(pair))
        for note in [] if pair.problem else list_notes(pair):
            say(console, note, indent=_INDENT)
    num_tests = sum(not pair.problem for pair in pairs)
    if num_tests:
        corrected = f", both corrected for {num_tests} tests (Bonferroni)" if num_tests > 1 else ""
        explanation = (
            f"p: exact McNemar test, and an interval that agrees with it{corrected}. Both ask whether other videos "
            "would show the same, not whether another seed would."
        )
        say(console, explanation, style="dim")


def _cells(run: Run) -> list[str]:
    figures, test = sum_up(run), run.metrics or {}
    best, last, *tested = (
        ABSENT if share is None else f"{100 * share:.1f}"
        for share in (
            *(figures.best_top1, figures.last_top1),
            *(test.get(key) for key in ("top1", "top5", "mean_class_accuracy")),
        )
    )
    epochs = str(figures.epochs_done) + (f"/{figures.epochs}" if figures.epochs is not None else "")
    return [
        ABSENT if run.history is None and run.config is None else epochs,
        best + (f" ({figures.best_epoch})" if figures.best_epoch is not None else ""),
        last,
        *tested,
        ABSENT if figures.clips_per_sec is None else format_speed(figures.clips_per_sec),
    ]


def _group_by_value(runs: Sequence[Run], row: Difference) -> dict[str, list[str]]:
    """Gives value -> letters of the runs that have it, in the order of the runs."""
    owners: dict[str, list[str]] = {}
    for run, value in zip(runs, row.values, strict=True):
        owners.setdefault(value, []).append(run.label)
    return owners


def _heading(console: Console, text: str) -> None:
    console.print()
    say(console, text, style="bold")
