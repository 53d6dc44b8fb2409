"""Estimates the memory of a training step from the tensors that are kept for the gradient."""

import math
from typing import NamedTuple

import psutil

from vswin.config.schema import TrainConfig
from vswin.models.zoo import ModelSize, Triple, configured_size, count_parameters, official_shapes, stage_grids
from vswin.training.groups import count_passed_blocks, find_frozen

# Weight, gradient and two moments of a parameter, float32; a frozen parameter has only its weight.
_BYTES_PER_PARAMETER, _BYTES_IF_FROZEN = 16, 4


class _Counts(NamedTuple):
    """Counts the tensors of a block, in units of its attention logits (softmax: 1) and of its tokens (MLP: 4)."""

    kept_logits: int  # kept for the gradient
    live_logits: int  # in memory while the block is computed
    kept_tokens: int
    live_tokens: int
    passing_tokens: int  # in memory while a block is computed that no gradient reaches


# A CPU computes attention in chunks of a few megabytes, at least one window, and recomputes them for the gradient, see
# `vswin.models.attention`. So many tensors of the size of one window's logits are in memory at a time.
_LOGITS_OF_A_WINDOW = 6
_ON_GPU = _Counts(1, 2, 21, 42, 12)
_ON_CPU = _Counts(0, 0, 25, 42, 16)


class Spared(NamedTuple):
    """What a step does not need because weights are frozen."""

    parameters: int = 0  # frozen parameters
    blocks: int = 0  # first blocks of the network that no gradient reaches


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
    spared: Spared = Spared(),  # noqa: B008 (a tuple, never changed)
) -> StepMemory:
    """Estimates the memory of a training step on one device.

    The counts for CPUs were fitted to measured peaks (`vswin bench step --memory`), which they meet within 15 %; the
    counts for GPUs were fitted with attention in all windows at once. TensorFlow itself and the traced graph need
    another 1 to 2 GB of the process.

    `clip_shape` is (frames, rows, columns), and `num_clips` is the number of clips that a device holds at a time: its
    part of a micro-batch. `precision` is `float32`, `bfloat16` or `float16`; logits are float32 in each. With `remat`,
    blocks are recomputed for the gradient.
    """
    width = 4 if precision == "float32" else 2
    # In half precision, softmax also exists in float32 while it is computed.
    live_width = 4 if precision == "float32" else 6
    counts = _ON_CPU if is_cpu else _ON_GPU
    kept = live = passing = window = 0
    passed = spared.blocks
    stages = zip(stage_grids(size, clip_shape), size.stage_dims, size.depths, size.num_heads, strict=True)
    for stage, dim, depth, heads in stages:
        logits, features = stage.padded * stage.window * heads, stage.padded * dim * width
        block = counts.kept_logits * logits * width + counts.kept_tokens * features
        at_work = counts.live_logits * logits * live_width
        window = max(window, _LOGITS_OF_A_WINDOW * stage.window**2 * heads * 4 if is_cpu else 0)
        num_kept = depth - min(depth, passed)
        passed -= depth - num_kept
        kept += num_kept * (features if remat else block)
        live = max(live, at_work + counts.live_tokens * features if num_kept else 0)
        # Validation uses the same micro-batches, and no gradient reaches any block.
        passing = max(passing, at_work + counts.passing_tokens * features)
    activations = max(kept + live if remat else kept, passing)
    parameters = _BYTES_PER_PARAMETER * count_parameters(size, num_classes)
    parameters -= (_BYTES_PER_PARAMETER - _BYTES_IF_FROZEN) * spared.parameters
    return StepMemory(parameters, num_clips * activations + window)


def estimate_run(config: TrainConfig, num_classes: int, num_clips: int, is_cpu: bool, remat: bool) -> StepMemory:
    """Estimates the memory of the training and validation steps of a run on one device; see `estimate_step`."""
    clip, size = config.clip, configured_size(config.model)
    shapes = official_shapes(size, num_classes)
    frozen = find_frozen(shapes, config.model.freeze_stages, config.model.freeze)
    spared = Spared(sum(math.prod(shapes[name]) for name in frozen), count_passed_blocks(list(shapes), frozen))
    clip_shape, precision = (clip.num_frames, clip.crop, clip.crop), config.runtime.precision
    memory = estimate_step(size, num_classes, clip_shape, num_clips, precision, remat, is_cpu, spared)
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
