"""The result of a benchmark: a table on the terminal, a JSON file, and both beside a stored one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.runs.environment import describe_machine, summarise
from vswin.runtime import console
from vswin.tables import print_table, say

if TYPE_CHECKING:
    from vswin.bench.trace import Breakdown

_NUM_OPERATIONS = 15
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
        breakdowns: name of a row -> where its time went, if that was recorded.
        notes: what else was found out, e.g. names of modules.
    """

    benchmark: str
    options: Mapping[str, Any]
    rows: list[Row]
    references: list[Row] = field(default_factory=list)
    machine: dict[str, object] = field(default_factory=describe_machine)
    breakdowns: dict[str, "Breakdown"] = field(default_factory=dict)
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
            "breakdowns": {name: _breakdown_as_json(breakdown) for name, breakdown in self.breakdowns.items()},
        }


def _as_json(row: Row) -> dict[str, Any]:
    return {"name": row.name, "median_seconds": row.median, "seconds": list(row.seconds), **row.figures}


def _breakdown_as_json(breakdown: "Breakdown") -> dict[str, Any]:
    operations = [operation._asdict() for operation in breakdown.operations]
    return {**breakdown._asdict(), "operations": operations}


def print_result(result: Result, stored: Path | None = None) -> None:
    """Prints a table: medians, smallest and largest, speed as a multiple of the first row's.

    Args:
        result: what was found.
        stored: a result in a file, to say beside each row how many times as fast it is now.

    Raises:
        InputError: if that is none of the same benchmark with the same options.
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
    for name, breakdown in result.breakdowns.items():
        _print_breakdown(name, breakdown)


def _print_breakdown(name: str, breakdown: "Breakdown") -> None:
    """Prints the operations that took longest, and the sum of the others."""
    operations = breakdown.operations
    total = sum(operation.seconds for operation in operations) or 1.0
    lines = [[f"operations, {name}", "per run", "ms", "share"]]
    for operation in operations[:_NUM_OPERATIONS]:
        seconds = operation.seconds
        lines.append([operation.name, f"{operation.number:.0f}", f"{1e3 * seconds:.2f}", f"{seconds / total:.1%}"])
    others = operations[_NUM_OPERATIONS:]
    if others:
        count, seconds = sum(other.number for other in others), sum(other.seconds for other in others)
        lines.append([f"{len(others)} others", f"{count:.0f}", f"{1e3 * seconds:.2f}", f"{seconds / total:.1%}"])
    lines.append(["all, on all threads", "", f"{1e3 * total:.2f}", ""])
    lines.append(["a run, recorded", "", f"{1e3 * breakdown.wall_seconds:.2f}", ""])
    lines.append(["its matrix products at the rate of a large one", "", f"{1e3 * breakdown.floor_seconds:.2f}", ""])
    console.print()
    print_table(console, lines)


def load_medians(path: Path, result: Result) -> dict[str, float]:
    """Reads the medians of a stored result.

    Args:
        path: what `save_result` wrote.
        result: what it is to be compared with.

    Returns:
        Name of a row -> seconds.

    Raises:
        InputError: if the two cannot be compared.
    """
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
    """Writes a result as JSON.

    Raises:
        InputError: if the file cannot be written.
    """
    try:
        with replacing(path) as partial:
            partial.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json {path}: {error.strerror}; name a file in a folder that exists") from error
