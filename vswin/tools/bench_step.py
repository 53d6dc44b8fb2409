"""`vswin bench step`: a training step as `fit` runs it, and its memory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import tensorflow as tf

from vswin.config.compose import compose_config
from vswin.config.schema import TrainConfig
from vswin.errors import InputError
from vswin.tools.bench_model import NUM_CLASSES, Workload, time_runs
from vswin.tools.bench_result import Result, check_counts
from vswin.training.memory import estimate_run, prepare_step, run_trial

# The backward pass has two matrix products for each one of the forward pass.
_PRODUCTS_PER_STEP = 3


class Variant(NamedTuple):
    """A variant of the training step, by keys of `runtime`."""

    precision: str
    remat: bool = False
    micro_batches: int = 1
    jit: bool = False

    def __str__(self) -> str:
        """Names the precision, and the settings that are not the default."""
        parts = f", {self.micro_batches} micro-batches" if self.micro_batches > 1 else ""
        return self.precision + (", remat" if self.remat else "") + parts + (", jit" if self.jit else "")


def list_variants(precisions: Sequence[str], remat: bool, micro_batches: int, jit: bool) -> list[Variant]:
    """Lists the variants: each precision alone, and with each other setting; one micro-batch adds no variant."""
    check_counts({"--micro-batches": micro_batches})
    usual = Variant("")
    changed = [Variant("", remat=remat), Variant("", micro_batches=micro_batches), Variant("", jit=jit)]
    settings = [usual, *(variant for variant in changed if variant != usual)]
    return [variant._replace(precision=precision) for precision in precisions for variant in settings]


def bench_step(workload: Workload, variants: Sequence[Variant], rounds: int) -> Result:
    """Times one or more variants of the training step, in turns; see `time_runs`.

    The FLOPs leave out recomputed blocks. An `InputError` if the micro-batches do not divide the batch.
    """
    runs = {str(variant): (variant.precision, make_step(workload, variant)) for variant in variants}
    options = {**asdict(workload), "variants": list(runs)}
    return time_runs("step", options, runs, _PRODUCTS_PER_STEP * workload.flops, workload.batch_size, rounds)


def make_step(workload: Workload, variant: Variant) -> Callable[[], None]:
    """Makes a function that runs a training step of the recipe on one device, on the same clips each time."""
    config = compose_config("train", _overrides(workload, variant), TrainConfig)
    return prepare_step(config, NUM_CLASSES, workload.make_clips())


def measure_memory(workload: Workload, variant: Variant) -> dict[str, float]:
    """Measures the memory of a training step in a separate process.

    Returns:
        `step_gb`, the rise of the peak through the steps; `process_gb`, the peak; `estimated_gb`, the estimate that a
        run prints beforehand. In GB, of the process, or of the device if it is a GPU.

    Raises:
        InputError: if the process fails, e.g. because a small machine kills it.
    """
    is_cpu = not tf.config.list_physical_devices("GPU")
    trial = run_trial(_overrides(workload, variant), NUM_CLASSES, None, is_cpu)
    if not trial.fits:
        raise InputError(f"{variant}: {trial.reason}; a smaller --batch, --size or --frames needs less")
    config = compose_config("train", _overrides(workload, variant), TrainConfig)
    estimated = (
        estimate_run(config, NUM_CLASSES, workload.batch_size // variant.micro_batches, is_cpu, variant.remat).total
        / 1e9
    )
    return {"step_gb": trial.step_gb, "estimated_gb": estimated, "process_gb": trial.peak_gb}


def _overrides(workload: Workload, variant: Variant) -> list[str]:
    """Makes the overrides of a run with such steps."""
    overrides = {
        "model": workload.model,
        "dataset": "kinetics400",
        "clip.num_frames": workload.num_frames,
        "clip.resize": workload.size,
        "clip.crop": workload.size,
        "batch_size": workload.batch_size,
        "runtime.precision": variant.precision,
        "runtime.remat": variant.remat,
        "runtime.micro_batches": variant.micro_batches,
        "runtime.jit": variant.jit,
        "runtime.strategy": "one_device",
    }
    return [f"{key}={value}" for key, value in overrides.items()]
