"""One trial of a batch size, in a process of its own, so that too little memory ends that process alone.

Such a process builds the model, takes three steps and ends: `python -m vswin.tune.trial REQUEST`, in JSON.
"""

import json
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import tensorflow as tf

from vswin.bench.memory import peak_gb
from vswin.bench.step import prepare_step
from vswin.compose import compose_config
from vswin.errors import InputError, is_out_of_memory
from vswin.schema import TrainConfig

_POLL_SEC = 0.05
_TIMED_STEPS = 2


@dataclass(frozen=True)
class Trial:
    """Holds what came of a batch size.

    Args:
        batch_size: clips of a step on one device.
        fits: whether the steps were taken within the limit.
        peak_gb: the most memory that was seen: of the process on a CPU, of the device on a GPU.
        clips_per_second: of the faster of two steps; 0 where it does not fit.
        reason: why it does not fit.
    """

    batch_size: int
    fits: bool
    peak_gb: float
    clips_per_second: float = 0.0
    reason: str = ""


def run_trial(
    overrides: Sequence[str], batch_size: int, num_classes: int, limit_gb: float | None, is_cpu: bool
) -> Trial:
    """Takes steps of a batch size in a process of its own.

    Args:
        overrides: those of the run.
        batch_size: clips of a step.
        num_classes: classes K.
        limit_gb: what the process may hold on a CPU, or TensorFlow on a GPU; None for all of a GPU.
        is_cpu: whether the steps are taken on a CPU.

    Raises:
        InputError: if the process fails for another reason than memory.
    """
    request = {"overrides": list(overrides), "batch_size": batch_size, "num_classes": num_classes}
    request["limit_gb"] = None if is_cpu else limit_gb
    command = [sys.executable, "-m", "vswin.tune.trial", json.dumps(request)]
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        # S603: this very module, with one argument in JSON.
        child = subprocess.Popen(command, stdout=printed, stderr=errors)  # noqa: S603
        try:
            peak, is_over = _watch(child, limit_gb if is_cpu else None)
        finally:
            child.kill()
            child.wait()
        if is_over:
            return Trial(batch_size, False, peak, reason="more than the limit")
        if child.returncode == -signal.SIGKILL:
            return Trial(batch_size, False, peak, reason="killed by the system, which was out of memory")
        errors.seek(0)
        text = errors.read()
        if child.returncode != 0 and is_out_of_memory(RuntimeError(text)):
            return Trial(batch_size, False, peak, reason="out of memory")
        if child.returncode != 0:
            raise InputError(
                f"batch_size={batch_size}: the process that tries it ended with code {child.returncode}\n"
                + textwrap.indent(text[-2000:], "  ")
            )
        printed.seek(0)
        return _read(json.loads(printed.read().splitlines()[-1]), batch_size, limit_gb if is_cpu else None)


def _read(answer: dict[str, float], batch_size: int, limit_gb: float | None) -> Trial:
    """Reads what a process found that took all steps."""
    peak = answer["peak_gb"]
    if limit_gb is not None and peak > limit_gb:
        return Trial(batch_size, False, peak, reason="more than the limit")
    return Trial(batch_size, True, peak, batch_size / answer["seconds"])


def _watch(child: "subprocess.Popen[bytes]", limit_gb: float | None) -> tuple[float, bool]:
    """Waits for a process; returns the most memory it held, in GB, and whether it was ended for that."""
    peak, process = 0.0, psutil.Process(child.pid)
    while child.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss / 1e9)
        except psutil.Error:  # It has just ended.
            continue
        if limit_gb is not None and peak > limit_gb:
            return peak, True
        time.sleep(_POLL_SEC)
    return peak, False


def try_here(request: dict) -> dict[str, float]:
    """Takes three steps in this process; returns its peak in GB, and the seconds of the faster of the last two."""
    _limit_gpu(request["limit_gb"])
    overrides = [*request["overrides"], f"batch_size={request['batch_size']}", "runtime.micro_batches=1"]
    config = compose_config("train", overrides, TrainConfig)
    clip = config.clip
    shape = (config.batch_size, clip.num_frames, clip.crop, clip.crop, 3)
    take = prepare_step(
        config, request["num_classes"], tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    )
    take()
    seconds = []
    for _ in range(_TIMED_STEPS):
        start = time.perf_counter()
        take()
        seconds.append(time.perf_counter() - start)
    gpus = tf.config.list_logical_devices("GPU")
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9 if gpus else peak_gb()
    return {"peak_gb": peak, "seconds": min(seconds)}


def _limit_gpu(limit_gb: float | None) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and limit_gb is not None:
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(limit_gb * 1e9 / 2**20))
        tf.config.set_logical_device_configuration(gpus[0], [limit])


if __name__ == "__main__":
    print(json.dumps(try_here(json.loads(sys.argv[1]))))
