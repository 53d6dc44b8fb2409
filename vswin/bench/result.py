"""What all benchmarks share: contenders take turns; the result is a table and a JSON file, also beside a stored one."""

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

# Figure of a row -> its heading and how it is written.
_COLUMNS = {
    "clips_per_second": ("clips/s", "{:.2f}"),
    "videos_per_second": ("videos/s", "{:.2f}"),
    "share_of_floor": ("of floor", "{:.0%}"),
    "step_gb": ("step GB", "{:.2f}"),
    "estimated_gb": ("estimated", "{:.2f}"),
    "process_gb": ("process GB", "{:.2f}"),
    "gflops": ("GFLOP/s", "{:.0f}"),
}


# Runs once and says how many seconds it took; one that lives in another process has its own clock.
Contender: TypeAlias = Callable[[], float]


def timed(run: Callable[[], object]) -> Contender:
    """Makes a contender of what runs in this process; when it returns, its work is done, on a GPU as well."""

    def contender() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return contender


def interleave(contenders: Mapping[str, Contender], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Lets every contender run once in each round.

    The rounds of `warm_up`, in which graphs are traced, caches and pools filled, come first and do not count.

    Returns:
        Name -> seconds of each round that counts.
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
    """Refuses an option that counts something and is below 1."""
    for option, count in counts.items():
        if count < 1:
            raise InputError(f"{option} {count}: at least 1")


@dataclass
class Row:
    """Holds what was measured of one contender.

    Args:
        name: of the contender.
        seconds: of each round.
        figures: what follows from them or was measured besides; keys of `_COLUMNS`.
    """

    name: str
    seconds: Sequence[float]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Gives the median of the rounds, in seconds."""
        return median(self.seconds)


@dataclass
class Result:
    """Holds what a benchmark found.

    Args:
        benchmark: its name, e.g. "model".
        options: what was asked for; two results with other options cannot be compared.
        rows: the contenders, which are compared with the first.
        references: what was measured beside them and is compared with nothing.
        machine: where, see `describe_machine`.
        notes: what else was found out, e.g. versions.
    """

    benchmark: str
    options: Mapping[str, Any]
    rows: list[Row]
    references: list[Row] = field(default_factory=list)
    machine: dict[str, object] = field(default_factory=describe_machine)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Gives everything as values JSON knows; `speed` is that of the first row divided into each row's."""
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
    """Prints a table: medians, smallest and largest, speed as a multiple of the first row's.

    With a `stored` result also how many times as fast each row is now; an `InputError` if that is none of the same
    benchmark with the same options.
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
    """Reads the medians of a stored result, name of a row -> seconds; an `InputError` if the two cannot be compared."""
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
