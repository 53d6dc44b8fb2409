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
    "fraction_of_bound": ("of bound", "{:.0%}"),
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


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuses counts below 1, given by option."""
    for option, count in counts.items():
        if count < 1:
            raise InputError(f"{option} {count}: at least 1")


def interleave(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Runs every contender once in each round; returns the seconds of each round by name.

    A first round, which does not count, traces graphs and fills caches and pools.
    """
    check_counts({"--rounds": rounds})
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with make_progress_bar(console, "runs") as bar:
        task = bar.add_task("", total=(1 + rounds) * len(contenders), note="")
        for number in range(1 + rounds):
            for name, contender in contenders.items():
                bar.update(task, description=f"round {number}" if number else "warm-up", note=name)
                seconds[name].append(contender())
                bar.advance(task)
    return {name: taken[1:] for name, taken in seconds.items()}


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

    def as_json(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        return {"name": self.name, "median_seconds": self.median, "seconds": list(self.seconds), **self.figures}


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
            **vars(self),
            "rows": [row.as_json() | {"speed": self.rows[0].median / row.median} for row in self.rows],
            "references": [row.as_json() for row in self.references],
        }


def show_result(result: Result, output: Path | None = None, earlier: Path | None = None) -> None:
    """Prints a table: median, smallest and largest time, and speed as a multiple of the first row's.

    `output` is a file for the result as JSON. With an `earlier` one, the table also shows the speed as a multiple of
    that one's.

    Raises:
        InputError: if the file cannot be written, or the earlier benchmark or its options differ.
    """
    if output is not None:
        try:
            with replacing(output) as partial:
                partial.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--json {output}: {error.strerror}; name a file in a folder that exists") from error
    before = {} if earlier is None else _read_medians(earlier, result)
    rows = [*result.rows, *result.references]
    columns = [key for key in _COLUMNS if any(key in row.figures for row in rows)]
    headings = [result.benchmark, "median s", "min .. max", *(_COLUMNS[key][0] for key in columns), "speed"]
    lines = [[*headings, "against earlier"] if before else headings]
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


def _read_medians(path: Path, result: Result) -> dict[str, float]:
    """Reads the medians of an earlier result, in seconds by row; an `InputError` if the two cannot be compared."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        name, options = earlier["benchmark"], earlier["options"]
        medians = {row["name"]: float(row["median_seconds"]) for row in [*earlier["rows"], *earlier["references"]]}
    except OSError as error:
        raise InputError(f"--compare {path}: {error.strerror}; name a file that --json wrote") from error
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"--compare {path} is no result of a benchmark; name a file that --json wrote") from error
    if (name, options) != (result.benchmark, dict(result.options)):
        raise InputError(
            f"--compare {path} is of another benchmark or other options: {name} {options} there, "
            f"{result.benchmark} {dict(result.options)} here; give the same"
        )
    return medians
