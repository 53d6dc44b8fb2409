"""Profiles for TensorBoard, and what they say of each type of operation; called by the benchmarks of the model."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from vswin.bench.timing import timed
from vswin.errors import InputError

NUM_RUNS = 3
_PICOSECONDS = 1e-12
_HOST = "/host:CPU"


class Operation(NamedTuple):
    """Holds what operations of one type took, per run.

    Args:
        name: their type, e.g. "MatMul"; "XLA " and the name of a fusion for what XLA has compiled.
        number: how many there were.
        seconds: they took, on all threads that start operations together, without the operations inside them.
    """

    name: str
    number: float
    seconds: float


class Breakdown(NamedTuple):
    """Holds where the time of a run went.

    Args:
        wall_seconds: of a run while it was recorded, which slows it down.
        operations: the slowest first.
        floor_seconds: of its matrix products at the rate of a large one.
    """

    wall_seconds: float
    operations: tuple[Operation, ...]
    floor_seconds: float


def trace(folder: Path, run: Callable[[], object], floor_seconds: float) -> Breakdown:
    """Records a few runs of something that has run before.

    Args:
        folder: where the profile goes, which TensorBoard shows with tensorboard-plugin-profile; one that is there is
            replaced.
        run: what to record.
        floor_seconds: see `Breakdown`.

    Returns:
        Where the time of the host went. Kernels of a GPU are in the profile alone.

    Raises:
        InputError: if the folder cannot be written into.
    """
    try:
        shutil.rmtree(folder / "plugins", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--trace {folder}: {error.strerror}; name a folder that can be written into") from error
    tf.profiler.experimental.start(str(folder))
    seconds = [timed(run)() for _ in range(NUM_RUNS)]
    tf.profiler.experimental.stop()
    return Breakdown(sum(seconds) / NUM_RUNS, tuple(read_operations(folder)), floor_seconds)


def read_operations(folder: Path) -> list[Operation]:
    """Adds up the operations of a profile that `trace` wrote, per run and by type, the slowest first."""
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
    """Gives the type of the operation that an event is of; None for other events, as of the thread pools."""
    metadata = plane.event_metadata[event.metadata_id]
    if metadata.display_name and metadata.name.endswith(f":{metadata.display_name}"):
        return metadata.display_name
    for stat in event.stats:
        key = plane.stat_metadata[stat.metadata_id].name
        if key in ("hlo_op", "kernel_type"):
            value = stat.str_value or plane.stat_metadata[stat.ref_value].name
            # Operations of XLA are numbered.
            return f"XLA {re.sub(r'[.][0-9.]+$', '', value)}" if key == "hlo_op" else value
    return None


def _self_times(events: Iterable[tuple[int, int, str]]) -> Iterator[tuple[str, int]]:
    """Takes from each event the time of those inside it.

    Args:
        events: of one thread, in order, so that they are inside each other or apart.
    """
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
