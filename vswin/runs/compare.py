"""Compares runs: `vswin compare` prints their results, how they differed, and whether that is more than chance."""

from __future__ import annotations

import itertools
import json
import math
import string
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import rich.console

from vswin.atomic import STDOUT, check_outputs, replacing
from vswin.config.schema import MONITORS
from vswin.console import Console, print_table, printable, program, say
from vswin.errors import InputError
from vswin.runs.figures import (
    ABSENT,
    Difference,
    config_differences,
    format_speed,
    known_environment,
    protocol_differences,
    sum_up,
)
from vswin.runs.files import Run, list_runs, read_run
from vswin.runs.pairs import Pair, compare_pairs, describe_pair

_PICTURES = (".png", ".pdf", ".svg")
_TEST_FIGURES = (
    *("top1", "top1_interval", "top5", "top5_interval", "mean_class_accuracy", "num_videos"),
    *("f1_macro", "f1_macro_interval", "log_loss", "calibration_error", "roc_auc", "average_precision"),
    *("map", "map_interval", "f1_micro"),
)
_HEADINGS = ("", "run", "epochs", "val best", "last", "top-1", "top-5", "mean", "clips/s")
_MULTI_LABEL_HEADINGS = ("", "run", "epochs", "val best", "last", "mAP", "micro F1", "macro F1", "clips/s")
_INDENT = 3


def run_compare(
    arguments: Sequence[str],
    is_all_pairs: bool = False,
    plot: Path | None = None,
    json_file: Path | None = None,
    is_overwriting: bool = False,
) -> None:
    """Prints the results of runs, how the runs differed, and whether their accuracies differ by more than chance.

    Args:
        arguments: Run folders and patterns, see `list_runs`; at least two runs.
        is_all_pairs: Whether all pairs of runs are tested, not only each run against the first.
        plot: Where to draw the validation results by epoch.
        json_file: Where to write everything, a file or `STDOUT`.
        is_overwriting: Whether outputs may replace existing files.

    Raises:
        InputError: If there are fewer than two runs, one of their files is damaged, or an output cannot be written.
    """
    if plot is not None and plot.suffix.lower() not in _PICTURES:
        raise InputError(f"--plot {plot}: the name of a picture ends in {', '.join(_PICTURES)}")
    check_outputs([path for path in (plot, json_file) if path is not None], is_overwriting)
    folders = list_runs(arguments)
    if len(folders) < 2:
        raise InputError(
            f"{' '.join(arguments)}: this is one run; name another one to compare it with, or a pattern in quotes, "
            "e.g. 'outputs/*'"
        )
    entries = zip(label_runs(len(folders)), name_folders(folders), folders, strict=True)
    runs = [read_run(label, name, folder) for label, name, folder in entries]
    pairs = compare_pairs(runs, is_all_pairs)

    console = Console(is_stderr=json_file == STDOUT)
    print_comparison(console, runs, pairs)
    if json_file is not None:
        text = json.dumps(as_json(runs, pairs), indent=2, allow_nan=False) + "\n"
        if json_file == STDOUT:
            sys.stdout.write(text)
        else:
            with replacing(json_file) as partial:
                partial.write_text(text, encoding="utf-8")
    if plot is not None:
        # The import takes half a second, and only plots need it.
        from vswin.runs.plots import draw_comparison

        draw_comparison(plot, runs)
        console.print()
        console.print(f"plot: {printable(str(plot))}", markup=False, soft_wrap=True)


def name_folders(folders: Sequence[Path]) -> list[str]:
    """Names each folder by the shortest end of its path that no other folder has."""
    parts = [folder.resolve().parts for folder in folders]
    names = [""] * len(folders)
    for length in range(1, max(map(len, parts)) + 1):
        ends = [str(Path(*path[-length:])) for path in parts]
        counts = Counter(ends)
        names = [name or (end if counts[end] == 1 else "") for name, end in zip(names, ends, strict=True)]
    return [name or str(folder) for name, folder in zip(names, folders, strict=True)]


def label_runs(count: int) -> list[str]:
    """Gives each of `count` runs a letter: a ... z, aa, ab ..."""
    words = (
        letters for length in itertools.count(1) for letters in itertools.product(string.ascii_lowercase, repeat=length)
    )
    return list(map("".join, itertools.islice(words, count)))


def print_comparison(console: rich.console.Console, runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Prints a table of the results, a line for each difference, and a sentence for each pair with its notes."""
    several = any(run.is_multi_label for run in runs)
    lines = [list(_MULTI_LABEL_HEADINGS if several else _HEADINGS)]
    for run in runs:
        figures, test = sum_up(run), run.metrics or {}
        epochs = str(figures.epochs_done) + (f"/{figures.epochs}" if figures.epochs is not None else "")
        is_trained = run.history is not None or run.config is not None
        shares = [figures.best_top1, figures.last_top1, *map(test.get, ("top1", "top5", "mean_class_accuracy"))]
        if several:
            shares = [figures.best_map, figures.last_map, *map(test.get, ("map", "f1_micro", "f1_macro"))]
        best, *others = (ABSENT if share is None else f"{100 * share:.1f}" for share in shares)
        best += f" ({figures.best_epoch})" if figures.best_epoch is not None else ""
        speed = ABSENT if figures.clips_per_sec is None else format_speed(figures.clips_per_sec)
        lines.append([run.label, run.name, epochs if is_trained else ABSENT, best, *others, speed])
    print_table(console, lines, texts=(0, 1))
    name, tested = ("mAP", "mAP and F1") if several else ("top-1", "top-1, top-5, mean (class accuracy)")
    legend = (
        f"val best: highest {name} in validation (its epoch), last: after the last epoch; {tested}: of the test. All "
        "in percent."
    )
    say(console, legend, style="dim")
    for monitor in MONITORS:
        others = [run.label for run in runs if sum_up(run).monitor == monitor not in ("val_top1", "val_map")]
        if others:
            say(console, f"best epoch by {monitor}, val best is its {name}: {', '.join(others)}")
    if averaged := [run.label for run in runs if sum_up(run).is_average]:
        say(console, f"best by the averaged weights (val_ema_*): {', '.join(averaged)}")
    if unlogged := [run.label for run in runs if run.history is None and run.config is not None]:
        say(console, f"no epoch is complete, or history.csv is missing: {', '.join(unlogged)}")

    _heading(console, "What differed")
    if without := [run.label for run in runs if run.config is None]:
        say(console, f"no config.yaml, so the settings of the training are unknown: {', '.join(without)}")
    differences = [*config_differences(runs), *protocol_differences(runs)]
    if not differences:
        say(console, "nothing in the configuration, apart from where the runs write")
    for row in differences:
        values = [f"{value} ({', '.join(labels)})" for value, labels in _group_by_value(runs, row).items()]
        say(console, f"{row.key}: {'; '.join(values)}", hanging=_INDENT)
    for row in known_environment(runs):
        owners = _group_by_value(runs, row)
        unknown = owners.pop(ABSENT, [])
        values = [f"{value} ({', '.join(labels)})" for value, labels in owners.items()]
        if len(owners) == 1:
            values = [f"{next(iter(owners))} ({', '.join(unknown)} not known)" if unknown else f"{row.values[0]} (all)"]
        say(console, f"{row.key}: {'; '.join(values)}", style="bold" if len(owners) > 1 else "")

    kind = "mAP of the test, the same resamples of the videos" if several else "Top-1 of the test, video by video"
    _heading(console, f"Is the difference more than chance? {kind}")
    if untested := [run.label for run in runs if run.predictions is None]:
        names = ", ".join(untested)
        say(console, f"no predictions.csv yet: {names} ({program('evaluate')} run=FOLDER writes one)")
    if not pairs:
        say(console, "a test needs two runs with predictions.csv")
    for pair in pairs:
        say(console, describe_pair(pair))
        for note in pair.notes:
            say(console, note, indent=_INDENT)
    if num_tests := sum(not pair.problem for pair in pairs):
        corrected = f", both corrected for {num_tests} tests (Bonferroni)" if num_tests > 1 else ""
        method = "paired bootstrap" if several else "exact McNemar test"
        explanation = (
            f"p: {method}, and an interval that agrees with it{corrected}. Both ask whether other videos "
            "would show the same, not whether another seed would."
        )
        say(console, explanation, style="dim")


def _heading(console: rich.console.Console, text: str) -> None:
    console.print()
    say(console, text, style="bold")


def _group_by_value(runs: Sequence[Run], row: Difference) -> dict[str, list[str]]:
    """Gives value -> letters of its runs, in the order of the runs."""
    owners: dict[str, list[str]] = {}
    for run, value in zip(runs, row.values, strict=True):
        owners.setdefault(value, []).append(run.label)
    return owners


def as_json(runs: Sequence[Run], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Gives a whole comparison as JSON values; accuracies are fractions, unknown values are null."""

    def by_run(rows: Sequence[Difference]) -> dict[str, Mapping[str, str]]:
        return {row.key: {run.label: value for run, value in zip(runs, row.values, strict=True)} for row in rows}

    run_entries = []
    for run in runs:
        test = None
        if run.metrics is not None:
            test = {key: run.metrics.get(key) for key in _TEST_FIGURES} | {"protocol": run.protocol}
        run_entries.append(
            {
                "label": run.label,
                "name": run.name,
                "folder": str(run.folder),
                "training": sum_up(run)._asdict(),
                "history": {column: values.tolist() for column, values in (run.history or {}).items()},
                "test": test,
            }
        )
    pair_entries = []
    for pair in pairs:
        entry = asdict(replace(pair, resampled=())) | {
            "sentence": describe_pair(pair),
            "difference": pair.difference,
        }
        del entry["resampled"]
        if pair.problem:
            entry = {key: entry[key] for key in ("first", "second", "problem", "sentence")}
        pair_entries.append(entry)
    return _finite(
        {
            "runs": run_entries,
            "differences": by_run([*config_differences(runs), *protocol_differences(runs)]),
            "environment": by_run(known_environment(runs)),
            "pairs": pair_entries,
        }
    )


def _finite(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON does not have, by None at every depth."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
    return value
