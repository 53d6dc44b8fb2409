"""Print a comparison: the results of the runs, their differences, and the tests."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from vswin.console import print_table, say
from vswin.runs.differences import ABSENT, Difference
from vswin.runs.figures import format_speed, sum_up
from vswin.runs.files import Run
from vswin.runs.pairs import Pair, list_notes, say_pair

_HEADINGS = ("", "run", "epochs", "val best", "last", "top-1", "top-5", "mean", "clips/s")
_LEGEND = (
    "val best: highest top-1 in validation (its epoch), last: after the last epoch; top-1, top-5, mean (class "
    "accuracy): of the test. All in percent."
)
_INDENT = 3


def print_runs(console: Console, runs: Sequence[Run]) -> None:
    """Prints a row with the results of each run."""
    lines = [list(_HEADINGS)]
    for run in runs:
        figures, test = sum_up(run), run.metrics or {}
        epochs = str(figures.epochs_done) + (f"/{figures.epochs}" if figures.epochs is not None else "")
        shares = [
            figures.best_top1,
            figures.last_top1,
            test.get("top1"),
            test.get("top5"),
            test.get("mean_class_accuracy"),
        ]
        best, *others = (ABSENT if share is None else f"{100 * share:.1f}" for share in shares)
        best += f" ({figures.best_epoch})" if figures.best_epoch is not None else ""
        speed = ABSENT if figures.clips_per_sec is None else format_speed(figures.clips_per_sec)
        is_trained = run.history is not None or run.config is not None
        lines.append([run.label, run.name, epochs if is_trained else ABSENT, best, *others, speed])
    print_table(console, lines, texts=(0, 1))
    say(console, _LEGEND, style="dim")
    if averaged := [run.label for run in runs if sum_up(run).is_average]:
        say(console, f"best by the averaged weights (val_ema_top1): {', '.join(averaged)}")
    if unlogged := [run.label for run in runs if run.history is None and run.config is not None]:
        say(console, f"no epoch is done or logged (history.csv): {', '.join(unlogged)}")


def print_differences(console: Console, runs: Sequence[Run], rows: Sequence[Difference]) -> None:
    """Prints a line for each setting that differs: its values, and the runs with each value."""
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
    """Prints a line for each known version and device: the runs with each value, or that all runs have it."""
    for row in rows:
        owners = _group_by_value(runs, row)
        silent = owners.pop(ABSENT, [])
        values = [f"{value} ({', '.join(labels)})" for value, labels in owners.items()]
        if len(owners) == 1:
            values = [f"{next(iter(owners))} ({', '.join(silent)} not known)" if silent else f"{row.values[0]} (all)"]
        say(console, f"{row.key}: {'; '.join(values)}", style="bold" if len(owners) > 1 else "")


def print_pairs(console: Console, runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Prints a sentence for each pair, and its notes below it."""
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


def _group_by_value(runs: Sequence[Run], row: Difference) -> dict[str, list[str]]:
    """Gives value -> letters of its runs, in the order of the runs."""
    owners: dict[str, list[str]] = {}
    for run, value in zip(runs, row.values, strict=True):
        owners.setdefault(value, []).append(run.label)
    return owners


def _heading(console: Console, text: str) -> None:
    console.print()
    say(console, text, style="bold")
