"""Measures the speed and memory of training steps on made-up clips; used by `vswin tune` and `vswin bench`.

`run_trial` takes the steps in a separate process, so that a lack of memory ends only that process:
`python -m vswin.training.trial REQUEST`, with REQUEST in JSON.
"""

import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import tensorflow as tf

from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.errors import InputError, is_out_of_memory
from vswin.models.zoo import configured_size
from vswin.runtime import make_strategy, set_precision
from vswin.training.setup import build_trainer
from vswin.weights.build import build_model

_POLL_SEC = 0.05
_STEPS_PER_EPOCH = 1000


class Trial(NamedTuple):
    """The result of some steps.

    Attributes:
        fits: whether the steps stayed within the memory limit.
        peak_gb: highest memory measured in GB: of the process on a CPU, of the device on a GPU.
        step_gb: how much the steps raised that peak, in GB; 0 if they do not fit.
        seconds: duration of the faster of two steps; 0 if they do not fit.
        reason: why they do not fit.
    """

    fits: bool
    peak_gb: float
    step_gb: float = 0.0
    seconds: float = 0.0
    reason: str = ""


def prepare_step(config: TrainConfig, num_classes: int, clips: tf.Tensor) -> Callable[[], None]:
    """Builds a run's model with random weights, its optimizer and trainer, on one device.

    `clips`, uint8 [B, T, H, W, 3], are one global batch. Each call of the returned function takes one step on them and
    returns when the step is complete.
    """
    set_precision(config.runtime.precision)
    with make_strategy("one_device").scope():
        size, dropout = configured_size(config.model), config.model.dropout
        model = build_model(size, num_classes, dropout=dropout, remat=config.runtime.remat)
        trainer = build_trainer(config, model, _STEPS_PER_EPOCH)
    set_precision("float32")
    batch_size = config.batch_size
    batch = {
        "clips": clips,
        "labels": tf.zeros([batch_size], tf.int32),
        "weights": tf.ones([batch_size]),
        "positions": tf.range(batch_size),
    }
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    step = trainer.make_train_function()

    def take() -> None:
        step(batches)
        tf.test.experimental.sync_devices()

    return take


def peak_gb() -> float:
    """Reads the peak resident memory of this process so far, in GB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # `getrusage` would also count the memory of the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def run_trial(overrides: Sequence[str], num_classes: int, limit_gb: float | None, is_cpu: bool) -> Trial:
    """Takes three steps in a separate process.

    `overrides` configure the run, including its batch size. `limit_gb` limits the process on a CPU, and TensorFlow on a
    GPU; None for no limit.

    Raises:
        InputError: if the process fails for another reason than memory.
    """
    request = {"overrides": list(overrides), "num_classes": num_classes, "limit_gb": None if is_cpu else limit_gb}
    limit = limit_gb if is_cpu and limit_gb is not None else float("inf")
    command = [sys.executable, "-m", "vswin.training.trial", json.dumps(request)]
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        # S603: this very module, with one argument in JSON.
        child = subprocess.Popen(command, stdout=printed, stderr=errors)  # noqa: S603
        peak = 0.0
        try:
            while child.poll() is None and peak <= limit:
                try:
                    peak = max(peak, psutil.Process(child.pid).memory_info().rss / 1e9)
                except psutil.Error:  # The process has just ended.
                    continue
                time.sleep(_POLL_SEC)
        finally:
            child.kill()
            child.wait()
        errors.seek(0)
        text = errors.read()
        if peak > limit:
            return Trial(False, peak, reason="more than the limit")
        if child.returncode == -signal.SIGKILL:
            return Trial(False, peak, reason="killed by the system, which was out of memory")
        if child.returncode != 0 and is_out_of_memory(RuntimeError(text)):
            return Trial(False, peak, reason="out of memory")
        if child.returncode != 0:
            raise InputError(
                f"the process that tries {' '.join(overrides)} ended with code {child.returncode}\n"
                + textwrap.indent(text[-2000:], "  ")
            )
        printed.seek(0)
        trial = Trial(True, **json.loads(printed.read().splitlines()[-1]))
    # The peak may fall between two polls.
    return trial if trial.peak_gb <= limit else Trial(False, trial.peak_gb, reason="more than the limit")


def _try_here(request: dict[str, Any]) -> dict[str, float]:
    """Takes three steps in this process; returns their memory, and the seconds of the faster of the last two."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and request["limit_gb"] is not None:
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(request["limit_gb"] * 1e9 / 2**20))
        tf.config.set_logical_device_configuration(gpus[0], [limit])
    config = compose_config("train", request["overrides"], TrainConfig)
    clip = config.clip
    shape = (config.batch_size, clip.num_frames, clip.crop, clip.crop, 3)
    clips = tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    take = prepare_step(config, request["num_classes"], clips)
    before = _peak(gpus)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        take()
        seconds.append(time.perf_counter() - start)
    peak = _peak(gpus)
    return {"peak_gb": peak, "step_gb": peak - before, "seconds": min(seconds[1:])}


def _peak(gpus: Sequence[object]) -> float:
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9 if gpus else peak_gb()


if __name__ == "__main__":
    print(json.dumps(_try_here(json.loads(sys.argv[1]))))
