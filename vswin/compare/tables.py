"""Print a comparison: what was reached, what differed, and what that shows, at any width of a window."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vswin.compare.differences import ABSENT, Difference, differs
from vswin.compare.pairs import Pair, say_missing, say_pair
from vswin.runs.figures import sum_up
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
_WIDEST_VALUE = 12


def print_runs(console: Console, runs: Sequence[Run]) -> None:
    """Prints a row for each run, or a paragraph where a window is too narrow for rows."""
    # What a table is wide besides the names, which fold into what is left.
    other = _width(console, _runs_table(runs, 1)) - 1
    longest = max(cell_len(printable(run.name)) for run in runs)
    if console.width - other >= min(longest, _NARROWEST_NAME):
        console.print(_runs_table(runs, min(max(longest, 3), console.width - other)))
        say(console, _LEGEND, style="dim")
    else:
        for run in runs:
            # A name stays on one line, however long.
            console.print(Text(f"{run.label}  {printable(run.name)}", style="bold"), soft_wrap=True)
            for name, cell in zip(_COLUMNS.values(), _cells(run), strict=True):
                say(console, f"{name}: {cell}", indent=_INDENT)
    for note in _notes(runs):
        say(console, note)


def print_differences(console: Console, runs: Sequence[Run], rows: Sequence[Difference]) -> None:
    """Prints a row for each setting that differs; or below each its values and whose they are, if these are too wide.

    Args:
        console: Where to.
        runs: The runs.
        rows: Settings that differ.
    """
    _heading(console, "What differed")
    configured = [run for run in runs if run.config is not None]
    if len(configured) < len(runs):
        without = ", ".join(run.label for run in runs if run.config is None)
        say(console, f"no config.yaml, so nothing is known of the training: {without}")
    if not rows:
        say(console, "nothing in the configuration, but for where the runs write")
        return
    # One long path must not take the others out of a table.
    short = [row for row in rows if max(map(len, row.values)) <= _WIDEST_VALUE]
    in_table = next((some for some in (rows, short) if _width(console, _settings(runs, some)) <= console.width), [])
    if in_table:
        console.print(_settings(runs, in_table))
    for row in rows:
        if row in in_table:
            continue
        say(console, row.key)
        for value in dict.fromkeys(row.values):
            labels = ", ".join(run.label for run, own in zip(runs, row.values, strict=True) if own == value)
            say(console, f"{labels}: {value}", indent=_INDENT)


def print_environment(console: Console, runs: Sequence[Run], rows: Sequence[Difference]) -> None:
    """Prints a line for each version and machine that is known: whose it is, or that all have it.

    Args:
        console: Where to.
        runs: The runs.
        rows: What is known.
    """
    for row in rows:
        values = [value for value in dict.fromkeys(row.values) if value != ABSENT]
        owners = {
            value: [run.label for run, own in zip(runs, row.values, strict=True) if own == value] for value in values
        }
        silent = [run.label for run, own in zip(runs, row.values, strict=True) if own == ABSENT]
        texts = [f"{value} ({', '.join(labels)})" for value, labels in owners.items()]
        if len(values) == 1:
            texts = [f"{values[0]} ({', '.join(silent)} not known)" if silent else f"{values[0]} (all)"]
        say(console, f"{row.key}: {'; '.join(texts)}", style="bold" if differs(row) else "")


def print_pairs(console: Console, runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Prints a sentence for each pair, and below it what a reader has to know.

    Args:
        console: Where to.
        runs: The runs.
        pairs: The tests.
    """
    _heading(console, "Is the difference more than chance? Top-1 of the test, video by video")
    untested = [run.label for run in runs if run.predictions is None]
    if untested:
        command = "vswin evaluate run=FOLDER"
        say(console, f"no predictions.csv yet: {', '.join(untested)} ({command} writes one)")
    if not pairs:
        say(console, "a test needs two runs with one")
        return
    for pair in pairs:
        say(console, say_pair(pair))
        missing = say_missing(pair)
        for note in [missing, *pair.notes] if missing else pair.notes:
            say(console, note, indent=_INDENT)
    num_tests = sum(not pair.problem for pair in pairs)
    if num_tests == 0:
        return
    corrected = f", both corrected for {num_tests} tests (Bonferroni)" if num_tests > 1 else ""
    explanation = (
        f"p: exact McNemar test, and an interval that agrees with it{corrected}. Both ask whether other videos would "
        "show the same, not whether another seed would."
    )
    say(console, explanation, style="dim")


def _cells(run: Run) -> list[str]:
    figures = sum_up(run)
    epochs = str(figures.epochs_done) + (f"/{figures.epochs}" if figures.epochs is not None else "")
    best = _percent(figures.best_top1) + (f" ({figures.best_epoch})" if figures.best_epoch is not None else "")
    test = run.metrics or {}
    speed = figures.clips_per_sec
    return [
        ABSENT if run.history is None and run.config is None else epochs,
        best,
        _percent(figures.last_top1),
        *(_percent(test.get(key)) for key in ("top1", "top5", "mean_class_accuracy")),
        ABSENT if speed is None else f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}",
    ]


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f}"


def _notes(runs: Sequence[Run]) -> list[str]:
    averaged = [run.label for run in runs if sum_up(run).is_average]
    unlogged = [run.label for run in runs if run.history is None and run.config is not None]
    notes = [f"best by the averaged weights (val_ema_top1): {', '.join(averaged)}"] if averaged else []
    return notes + ([f"no epoch is done or logged (history.csv): {', '.join(unlogged)}"] if unlogged else [])


def _table(*headings: str, has_numbers: bool = True) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        is_number = has_numbers and place > 1
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number)
    return table


def _runs_table(runs: Sequence[Run], name_width: int) -> Table:
    table = _table("", "run", *_COLUMNS)
    table.columns[1].width, table.columns[1].overflow = name_width, "fold"
    for run in runs:
        table.add_row(run.label, Text(printable(run.name)), *_cells(run))
    return table


def _settings(runs: Sequence[Run], rows: Sequence[Difference]) -> Table:
    table = _table("key", *(run.label for run in runs), has_numbers=False)
    for row in rows:
        table.add_row(Text(printable(row.key)), *(Text(printable(value)) for value in row.values))
    # Nothing is folded: half a number is another number.
    for column in table.columns:
        column.no_wrap = True
    return table


def _width(console: Console, table: Table) -> int:
    """Tells how wide a table is when nothing is cut."""
    return Measurement.get(console, console.options.update(width=100_000), table).maximum


def _heading(console: Console, text: str) -> None:
    console.print()
    say(console, text, style="bold")
