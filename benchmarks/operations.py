"""Record a few forward passes or training steps: a profile for TensorBoard, and the time of each operation type.

    python benchmarks/operations.py model profiles                     swin_tiny on one clip of 32 x 224 x 224
    python benchmarks/operations.py step profiles --precision bfloat16

TensorBoard shows the folder with tensorboard-plugin-profile. Times are sums over the threads that start operations,
without nested operations. Kernels of a GPU appear only in the profile.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from vswin.console import print_table
from vswin.errors import clean_errors
from vswin.runtime import console
from vswin.tools.bench_model import Workload, make_forward
from vswin.tools.bench_result import timed
from vswin.tools.bench_step import Variant, make_step

NUM_RUNS = 3
_PICOSECONDS = 1e-12
_HOST = "/host:CPU"
_NUM_SHOWN = 15


class Operation(NamedTuple):
    """The operations of one type, per run.

    Args:
        name: their type, e.g. "MatMul"; for operations compiled by XLA, "XLA " and the name of the fusion.
        number: number of operations.
        seconds: their time, summed over all threads that start operations, without nested operations.
    """

    name: str
    number: float
    seconds: float


def record(folder: Path, run: Callable[[], object]) -> tuple[float, list[Operation]]:
    """Records a few runs of a function that has run before; replaces an existing profile.

    Returns:
        Seconds per run (recording slows a run down), and the operations of the host, the slowest first.
    """
    shutil.rmtree(folder / "plugins", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    tf.profiler.experimental.start(str(folder))
    seconds = [timed(run)() for _ in range(NUM_RUNS)]
    tf.profiler.experimental.stop()
    return sum(seconds) / NUM_RUNS, read_operations(folder)


def read_operations(folder: Path) -> list[Operation]:
    """Adds up the operations in a profile written by `record`, per run and type, the slowest first."""
    totals: dict[str, tuple[int, int]] = {}
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            if plane.name != _HOST:
                continue
            for line in plane.lines:
                for name, picoseconds in _self_times(_named_events(plane, line)):
                    count, total = totals.get(name, (0, 0))
                    totals[name] = (count + 1, total + picoseconds)
    operations = [
        Operation(name, count / NUM_RUNS, total * _PICOSECONDS / NUM_RUNS) for name, (count, total) in totals.items()
    ]
    return sorted(operations, key=lambda operation: -operation.seconds)


def _named_events(plane: Any, line: Any) -> Iterator[tuple[int, int, str]]:
    """Lists the operations that a thread ran, in order: start, end (picoseconds) and type."""
    for event in sorted(line.events, key=lambda event: (event.offset_ps, -event.duration_ps)):
        name = _operation_name(plane, event)
        if name is not None:
            yield event.offset_ps, event.offset_ps + event.duration_ps, name


def _operation_name(plane: Any, event: Any) -> str | None:
    """Gives the type of an event's operation; None for other events, e.g. of thread pools."""
    metadata = plane.event_metadata[event.metadata_id]
    if metadata.display_name and metadata.name.endswith(f":{metadata.display_name}"):
        return metadata.display_name
    for stat in event.stats:
        key = plane.stat_metadata[stat.metadata_id].name
        if key in ("hlo_op", "kernel_type"):
            value = stat.str_value or plane.stat_metadata[stat.ref_value].name
            # Remove the numbers of XLA's operations.
            return f"XLA {re.sub(r'[.][0-9.]+$', '', value)}" if key == "hlo_op" else value
    return None


def _self_times(events: Iterable[tuple[int, int, str]]) -> Iterator[tuple[str, int]]:
    """Subtracts the time of nested events from each event; `events` are those of one thread, in order."""
    open_events: list[list[Any]] = []  # end, name, own time
    for start, end, name in events:
        while open_events and open_events[-1][0] <= start:
            yield _close(open_events)
        if open_events:
            open_events[-1][2] -= end - start
        open_events.append([end, name, end - start])
    while open_events:
        yield _close(open_events)


def _close(open_events: list[list[Any]]) -> tuple[str, int]:
    _, name, own = open_events.pop()
    return name, own


def main() -> None:
    """Records with the options of the command line, and prints the slowest operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("model", "step"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="swin_tiny")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    workload = Workload(given.model, given.frames, given.size, given.batch)
    if given.what == "model":
        run = make_forward(workload, given.precision)
    else:
        run = make_step(workload, Variant(given.precision))
    run()
    seconds, operations = record(given.folder, run)
    total = sum(operation.seconds for operation in operations) or 1.0
    lines = [["operation", "per run", "ms", "share"]]
    for name, number, taken in operations[:_NUM_SHOWN]:
        lines.append([name, f"{number:.0f}", f"{1e3 * taken:.2f}", f"{taken / total:.1%}"])
    lines.append(["all, on all threads", "", f"{1e3 * total:.2f}", ""])
    lines.append(["a run, recorded", "", f"{1e3 * seconds:.2f}", ""])
    print_table(console, lines)


if __name__ == "__main__":
    with clean_errors():
        main()
