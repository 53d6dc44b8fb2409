"""Compare runs: `vswin compare`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vswin.atomic import replacing
from vswin.compare.differences import config_differences, environment, protocol_differences
from vswin.compare.figures import as_json
from vswin.compare.folders import find_folders, label_runs, name_folders
from vswin.compare.pairs import compare_pairs
from vswin.compare.tables import print_differences, print_environment, print_pairs, print_runs
from vswin.console import Console
from vswin.errors import InputError
from vswin.predict.results import STDOUT, check_outputs
from vswin.runs.files import read_run
from vswin.wording import printable

_PICTURES = (".png", ".pdf", ".svg")


def run_compare(
    arguments: Sequence[str],
    is_all_pairs: bool = False,
    plot: Path | None = None,
    json_file: Path | None = None,
    is_overwriting: bool = False,
) -> None:
    """Prints what runs reached, what differed between them, and whether the difference is more than chance.

    Args:
        arguments: Run folders and patterns, see `find_folders`.
        is_all_pairs: Whether each run is tested against each, and not against the first alone.
        plot: Where to draw the validation by epoch; None for nowhere.
        json_file: Where to write everything, a file or `STDOUT`; None for nowhere.
        is_overwriting: Whether files that are there may be replaced.

    Raises:
        InputError: If there are fewer than two runs, a file of theirs is damaged, or an output cannot be written.
    """
    _check(plot, json_file, is_overwriting)
    folders = find_folders(arguments)
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
        _write_json(json_file, json.dumps(as_json(runs, differences, known, pairs), indent=2, allow_nan=False) + "\n")
    if plot is not None:
        # Half a second that only those who draw should wait.
        from vswin.compare.plot import draw_history

        draw_history(plot, runs)
        console.print()
        console.print(f"plot: {printable(str(plot))}", markup=False, soft_wrap=True)


def _check(plot: Path | None, json_file: Path | None, is_overwriting: bool) -> None:
    if plot is not None and plot.suffix.lower() not in _PICTURES:
        raise InputError(f"--plot {plot}: the name of a picture ends in {', '.join(_PICTURES)}")
    check_outputs([path for path in (plot, json_file) if path is not None], is_overwriting)


def _write_json(path: Path, text: str) -> None:
    if path == STDOUT:
        sys.stdout.write(text)
        return
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
