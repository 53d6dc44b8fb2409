"""The base of all benchmarks: contenders run in turns; results are printed, written as JSON and compared."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from vswin.atomic import replacing
from vswin.console import make_progress_bar, print_table, say
from vswin.errors import InputError
from vswin.runs.environment import describe_machine, summarise
from vswin.runtime import console

# Figure of a row -> its heading and its number format.
_COLUMNS = {
    "clips_per_second": ("clips/s", "{:.2f}"),
    "videos_per_second": ("videos/s", "{:.2f}"),
    "share_of_floor": ("of floor", "{:.0%}"),
    "step_gb": ("step GB", "{:.2f}"),
    "estimated_gb": ("estimated", "{:.2f}"),
    "process_gb": ("process GB", "{:.2f}"),
    "gflops": ("GFLOP/s", "{:.0f}"),
}


# Runs once and returns its time in seconds; a contender in another process has its own clock.
Contender: TypeAlias = Callable[[], float]


def timed(run: Callable[[], object]) -> Contender:
    """Makes a contender of a function in this process; all its work must be done when it returns, also on a GPU."""

    def contender() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return contender


def interleave(contenders: Mapping[str, Contender], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Runs every contender once in each round.

    The first `warm_up` rounds trace graphs and fill caches and pools; they do not count.

    Returns:
        Name -> seconds of each counted round.
    """
    check_counts({"--rounds": rounds})
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with make_progress_bar(console, "runs") as bar:
        task = bar.add_task("", total=(warm_up + rounds) * len(contenders), note="")
        for number in range(-warm_up, rounds):
            for name, contender in contenders.items():
                bar.update(task, description="warm-up" if number < 0 else f"round {number + 1}", note=name)
                taken = contender()
                bar.advance(task)
                if number >= 0:
                    seconds[name].append(taken)
    return seconds


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuses counts below 1, given by option."""
    for option, count in counts.items():
        if count < 1:
            raise InputError(f"{option} {count}: at least 1")


@dataclass
class Row:
    """The measurements of one contender: seconds of each round, and further figures by keys of `_COLUMNS`."""

    name: str
    seconds: Sequence[float]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Gives the median of the rounds, in seconds."""
        return median(self.seconds)


@dataclass
class Result:
    """The result of a benchmark.

    Args:
        benchmark: its name, e.g. "model".
        options: its options; results with different options cannot be compared.
        rows: the contenders; each is compared with the first.
        references: further measurements, which are not compared.
        machine: see `describe_machine`.
        notes: further information, e.g. versions.
    """

    benchmark: str
    options: Mapping[str, Any]
    rows: list[Row]
    references: list[Row] = field(default_factory=list)
    machine: dict[str, object] = field(default_factory=describe_machine)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Gives everything as JSON values; `speed` of a row is a multiple of the first row's."""
        return {
            "benchmark": self.benchmark,
            "options": dict(self.options),
            "machine": self.machine,
            "rows": [_as_json(row) | {"speed": self.rows[0].median / row.median} for row in self.rows],
            "references": [_as_json(row) for row in self.references],
            "notes": self.notes,
        }


def _as_json(row: Row) -> dict[str, Any]:
    return {"name": row.name, "median_seconds": row.median, "seconds": list(row.seconds), **row.figures}


def print_result(result: Result, stored: Path | None = None) -> None:
    """Prints a table: median, smallest and largest time, and speed as a multiple of the first row's.

    With a `stored` result, the table also shows the speed as a multiple of the stored one; an `InputError` if the
    stored benchmark or its options differ.
    """
    before = {} if stored is None else load_medians(stored, result)
    rows = [*result.rows, *result.references]
    columns = [key for key in _COLUMNS if any(key in row.figures for row in rows)]
    headings = [result.benchmark, "median s", "min .. max", *(_COLUMNS[key][0] for key in columns), "speed"]
    lines = [[*headings, "against stored"] if before else headings]
    for row in rows:
        figures = [_COLUMNS[key][1].format(row.figures[key]) if key in row.figures else "" for key in columns]
        speed = "" if row in result.references else f"{result.rows[0].median / row.median:.2f}"
        ratio = [f"{before[row.name] / row.median:.2f}"] if row.name in before else []
        spread = f"{min(row.seconds):.3g} .. {max(row.seconds):.3g}"
        lines.append([row.name, f"{row.median:.3g}", spread, *figures, speed, *ratio])
    say(console, summarise(result.machine), style="dim")
    print_table(console, lines)
    for title, values in result.notes.items():
        say(console, f"{title}: {', '.join(values)}")


def load_medians(path: Path, result: Result) -> dict[str, float]:
    """Reads the medians of a stored result, row name -> seconds; an `InputError` if the two cannot be compared."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        named = [stored["benchmark"], stored["options"]]
        medians = {row["name"]: float(row["median_seconds"]) for row in [*stored["rows"], *stored["references"]]}
    except OSError as error:
        raise InputError(f"--compare {path}: {error.strerror}; name a file that --json wrote") from error
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"--compare {path} is no result of a benchmark; name a file that --json wrote") from error
    if named != [result.benchmark, dict(result.options)]:
        raise InputError(
            f"--compare {path} is of another benchmark or other options: {named[0]} {named[1]} there, "
            f"{result.benchmark} {dict(result.options)} here; give the same"
        )
    return medians


def save_result(result: Result, path: Path) -> None:
    """Writes a result as JSON; an `InputError` if the file cannot be written."""
    try:
        with replacing(path) as partial:
            partial.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json {path}: {error.strerror}; name a file in a folder that exists") from error
