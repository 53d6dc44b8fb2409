"""Compare runs: `vswin compare`."""

from __future__ import annotations

import itertools
import json
import math
import string
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vswin.atomic import STDOUT, check_outputs, replacing
from vswin.console import Console, printable
from vswin.errors import InputError
from vswin.runs.compare_tables import print_differences, print_environment, print_pairs, print_runs
from vswin.runs.differences import Difference, config_differences, environment, protocol_differences
from vswin.runs.figures import sum_up
from vswin.runs.files import Run, list_runs, read_run
from vswin.runs.pairs import Pair, compare_pairs, list_notes, say_pair

_PICTURES = (".png", ".pdf", ".svg")
_TEST_FIGURES = ("top1", "top1_interval", "top5", "top5_interval", "mean_class_accuracy", "num_videos")


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
    differences, known = [*config_differences(runs), *protocol_differences(runs)], environment(runs)
    pairs = compare_pairs(runs, is_all_pairs)

    console = Console(is_stderr=json_file == STDOUT)
    print_runs(console, runs)
    print_differences(console, runs, differences)
    print_environment(console, runs, known)
    print_pairs(console, runs, pairs)
    if json_file is not None:
        text = json.dumps(as_json(runs, differences, known, pairs), indent=2, allow_nan=False) + "\n"
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


def as_json(
    runs: Sequence[Run], differences: Sequence[Difference], known: Sequence[Difference], pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Gives a whole comparison as JSON values; accuracies are fractions, unknown values are null."""

    def by_run(rows: Sequence[Difference]) -> dict[str, Mapping[str, str]]:
        return {row.key: {run.label: value for run, value in zip(runs, row.values, strict=True)} for row in rows}

    run_entries = []
    for run in runs:
        history = {column: values.tolist() for column, values in (run.history or {}).items()}
        test = {key: run.metrics.get(key) for key in _TEST_FIGURES} if run.metrics is not None else None
        run_entries.append(
            {
                "label": run.label,
                "name": run.name,
                "folder": str(run.folder),
                "training": sum_up(run)._asdict(),
                "history": history,
                "test": test and test | {"protocol": run.protocol},
            }
        )
    pair_entries = []
    for pair in pairs:
        entry = asdict(pair) | {"sentence": say_pair(pair)}
        if pair.problem:
            entry = {key: entry[key] for key in ("first", "second", "problem", "sentence")}
        else:
            entry |= {"notes": list_notes(pair), "difference": pair.difference}
        pair_entries.append(entry)
    content = {"runs": run_entries, "differences": by_run(differences), "environment": by_run(known)}
    return _finite(content | {"pairs": pair_entries})


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
