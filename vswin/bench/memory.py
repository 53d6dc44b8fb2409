"""The memory of training steps, each way in a process of its own; called by `vswin bench step --memory`.

Such a process builds the model, takes two steps and ends: `python -m vswin.bench.memory WORKLOAD WAY`, both as JSON.
The system says how much memory it held at most, and how much before the first step, which is Python, TensorFlow and
the model.
"""

import json
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from textwrap import indent

import tensorflow as tf

from vswin.bench.step import Way, make_step
from vswin.bench.workload import NUM_CLASSES, Workload
from vswin.errors import InputError
from vswin.training.memory import estimate_step
from vswin.zoo import find_size


def measure_memory(workload: Workload, way: Way) -> dict[str, float]:
    """Measures the memory that a step takes.

    Args:
        workload: network and clips.
        way: how the step is computed.

    Returns:
        `step_gb`, by how much the step raises the peak of the process; `process_gb`, that peak; and `estimated_gb`,
        what a run would say beforehand. In GB, of the host's memory alone.

    Raises:
        InputError: if the process fails; on a small machine it is killed.
    """
    arguments = [json.dumps(asdict(workload)), json.dumps(way._asdict())]
    command = [sys.executable, "-m", "vswin.bench.memory", *arguments]
    # S603: this very module, with two arguments in JSON.
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise InputError(
            f"{way}: the process that measures its memory ended with code {done.returncode}; a smaller --batch, --size "
            f"or --frames needs less\n{indent(done.stderr[-1500:], '  ')}"
        )
    peaks = json.loads(done.stdout.splitlines()[-1])
    return {
        "step_gb": peaks["after"] - peaks["before"],
        "estimated_gb": _estimate(workload, way),
        "process_gb": peaks["after"],
    }


def _estimate(workload: Workload, way: Way) -> float:
    clip_shape = (workload.num_frames, workload.size, workload.size)
    num_clips = workload.batch_size // way.micro_batches
    size = find_size(workload.model)
    is_cpu = not tf.config.list_physical_devices("GPU")
    memory = estimate_step(size, NUM_CLASSES, clip_shape, num_clips, way.precision, way.remat, is_cpu)
    return memory.total / 1e9


def measure_here(workload: Workload, way: Way) -> Mapping[str, float]:
    """Takes two steps in this process; returns its peak `before` the first and `after` the last, in GB."""
    take = make_step(workload, way)
    before = peak_gb()
    for _ in range(2):
        take()
    return {"before": before, "after": peak_gb()}


def peak_gb() -> float:
    """Reads the largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # `getrusage` would count what the process was that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    print(json.dumps(measure_here(Workload(**json.loads(sys.argv[1])), Way(**json.loads(sys.argv[2])))))
