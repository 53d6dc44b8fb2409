"""The memory of a training step: estimated from the tensors that the gradient needs, or measured by some steps.

`run_trial` takes the steps in a separate process, so that a lack of memory ends only that process:
`python -m vswin.training.memory REQUEST`, with REQUEST in JSON.
"""

import json
import math
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
from vswin.models.zoo import ModelSize, Triple, configured_size, count_parameters, official_shapes, stage_grids
from vswin.runs.setup import make_model, set_up
from vswin.runtime import set_precision
from vswin.training.optimizer import count_passed_blocks, find_frozen
from vswin.training.trainer import build_trainer

# Weight, gradient and two moments of a parameter, float32; a frozen parameter has only its weight.
_BYTES_PER_PARAMETER, _BYTES_IF_FROZEN = 16, 4
# A CPU computes attention in chunks of a few megabytes, at least one window, and recomputes them for the gradient, see
# `vswin.models.attention`. So many tensors of the size of one window's logits are in memory at a time.
_LOGITS_OF_A_WINDOW = 6
_POLL_SEC = 0.05
_STEPS_PER_EPOCH = 1000


class _Counts(NamedTuple):
    """Counts the tensors of a block, in units of its attention logits (softmax: 1) and of its tokens (MLP: 4)."""

    kept_logits: int  # kept for the gradient
    live_logits: int  # in memory while the block is computed
    kept_tokens: int
    live_tokens: int
    passing_tokens: int  # in memory while a block is computed that no gradient reaches


_ON_GPU = _Counts(1, 2, 21, 42, 12)
_ON_CPU = _Counts(0, 0, 25, 42, 16)


class StepMemory(NamedTuple):
    """The bytes that a device needs at once."""

    parameters: int  # weights, gradients and optimizer
    activations: int  # tensors kept from the forward pass, and the largest block while it is computed

    @property
    def total(self) -> int:
        """The sum of both."""
        return self.parameters + self.activations


def estimate_step(
    size: ModelSize,
    num_classes: int,
    clip_shape: Triple,
    num_clips: int,
    precision: str,
    remat: bool,
    is_cpu: bool,
    frozen_parameters: int = 0,
    passed_blocks: int = 0,
) -> StepMemory:
    """Estimates the memory of a training step on one device.

    The counts for CPUs were fitted to measured peaks (`vswin bench step --memory`), which they meet within 15 %; the
    counts for GPUs were fitted with attention in all windows at once. TensorFlow itself and the traced graph need
    another 1 to 2 GB of the process.

    `clip_shape` is (frames, rows, columns), and `num_clips` is the number of clips that a device holds at a time: its
    part of a micro-batch. With `remat`, blocks are recomputed for the gradient. No gradient reaches the first
    `passed_blocks`.
    """
    width = 4 if precision == "float32" else 2
    # In half precision, softmax also exists in float32 while it is computed.
    live_width = 4 if precision == "float32" else 6
    counts = _ON_CPU if is_cpu else _ON_GPU
    kept = live = passing = window = 0
    stages = zip(stage_grids(size, clip_shape), size.stage_dims, size.depths, size.num_heads, strict=True)
    for stage, dim, depth, heads in stages:
        logits, features = stage.padded * stage.window * heads, stage.padded * dim * width
        block = counts.kept_logits * logits * width + counts.kept_tokens * features
        at_work = counts.live_logits * logits * live_width
        window = max(window, _LOGITS_OF_A_WINDOW * stage.window**2 * heads * 4 if is_cpu else 0)
        num_kept = depth - min(depth, passed_blocks)
        passed_blocks -= depth - num_kept
        kept += num_kept * (features if remat else block)
        live = max(live, at_work + counts.live_tokens * features if num_kept else 0)
        # Validation uses the same micro-batches, and no gradient reaches any block.
        passing = max(passing, at_work + counts.passing_tokens * features)
    activations = max(kept + live if remat else kept, passing)
    parameters = _BYTES_PER_PARAMETER * count_parameters(size, num_classes)
    parameters -= (_BYTES_PER_PARAMETER - _BYTES_IF_FROZEN) * frozen_parameters
    return StepMemory(parameters, num_clips * activations + window)


def estimate_run(config: TrainConfig, num_classes: int, num_clips: int, is_cpu: bool, remat: bool) -> StepMemory:
    """Estimates the memory of the training and validation steps of a run on one device; see `estimate_step`."""
    clip, size = config.clip, configured_size(config.model)
    shapes = official_shapes(size, num_classes)
    frozen = find_frozen(shapes, config.model.freeze_stages, config.model.freeze)
    spared = sum(math.prod(shapes[name]) for name in frozen), count_passed_blocks(list(shapes), frozen)
    clip_shape, precision = (clip.num_frames, clip.crop, clip.crop), config.runtime.precision
    memory = estimate_step(size, num_classes, clip_shape, num_clips, precision, remat, is_cpu, *spared)
    if config.optimizer.ema_decay is not None:
        memory = memory._replace(parameters=memory.parameters + 4 * count_parameters(size, num_classes))
    return memory


def describe_memory(memory: StepMemory, num_devices: int, is_cpu: bool) -> str:
    """Describes the memory of a step on one device, and what to do if the machine has too little for `num_devices`."""
    text = (
        f"about {memory.total / 1e9:.2f} GB per device (parameters {memory.parameters / 1e9:.2f}, "
        f"activations {memory.activations / 1e9:.2f})"
    )
    if not is_cpu:
        return text
    if num_devices > 1:
        text += f", {num_devices * memory.total / 1e9:.2f} GB for the {num_devices} devices of this machine"
    free = psutil.virtual_memory().available
    if num_devices * memory.total > free:
        text += (
            f", more than the {free / 1e9:.1f} GB that are free: raise runtime.micro_batches, set "
            "runtime.remat=true, or take a smaller batch_size or clip"
        )
    return text


class Trial(NamedTuple):
    """The result of some steps."""

    fits: bool  # whether the steps stayed within the memory limit
    peak_gb: float  # highest memory measured: of the process on a CPU, of the device on a GPU
    step_gb: float = 0.0  # how much the steps raised that peak; 0 if they do not fit
    seconds: float = 0.0  # duration of the faster of two steps; 0 if they do not fit
    reason: str = ""  # why they do not fit


def prepare_step(config: TrainConfig, num_classes: int, clips: tf.Tensor) -> Callable[[], None]:
    """Builds a run's model with random weights, its optimizer and trainer.

    `clips`, uint8 [B, T, H, W, 3], are one global batch. Each call of the returned function takes one step on them and
    returns when the step is complete.
    """
    with set_up(config, is_alone=True).scope():
        model, _ = make_model(config, num_classes)
        trainer = build_trainer(config, model, _STEPS_PER_EPOCH)
    set_precision("float32")
    batch_size = config.batch_size
    batch = {
        "clips": clips,
        "labels": tf.zeros([batch_size, num_classes])
        if config.dataset.is_multi_label
        else tf.zeros([batch_size], tf.int32),
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
    GPU; None for no limit. An `InputError` if the process fails for another reason than memory.
    """
    request = {"overrides": list(overrides), "num_classes": num_classes, "limit_gb": None if is_cpu else limit_gb}
    limit = limit_gb if is_cpu and limit_gb is not None else float("inf")
    command = [sys.executable, "-m", "vswin.training.memory", json.dumps(request)]
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

    def peak() -> float:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9 if gpus else peak_gb()

    config = compose_config("train", request["overrides"], TrainConfig)
    clip = config.clip
    shape = (config.batch_size, clip.num_frames, clip.crop, clip.crop, 3)
    take = prepare_step(
        config, request["num_classes"], tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    )
    before, seconds = peak(), []
    for _ in range(3):
        start = time.perf_counter()
        take()
        seconds.append(time.perf_counter() - start)
    return {"peak_gb": peak(), "step_gb": peak() - before, "seconds": min(seconds[1:])}


if __name__ == "__main__":
    print(json.dumps(_try_here(json.loads(sys.argv[1]))))
