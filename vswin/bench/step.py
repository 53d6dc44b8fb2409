"""`vswin bench step`: a training step as `fit` takes it, and how much memory it needs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from vswin.bench.result import Result
from vswin.bench.timing import check_counts, interleave, timed
from vswin.bench.trace import trace
from vswin.bench.workload import (
    NUM_CLASSES,
    Workload,
    check_precisions,
    floor_seconds,
    make_product,
    model_row,
    product_name,
    product_row,
)
from vswin.build import build_model
from vswin.checks import check_divides
from vswin.compose import compose_config
from vswin.runtime import make_strategy, set_precision
from vswin.schema import TrainConfig
from vswin.training.setup import build_trainer
from vswin.zoo import configured_size

# The backward pass has two products for each of the forward pass.
_PRODUCTS_PER_STEP = 3
_STEPS_PER_EPOCH = 1000


class Way(NamedTuple):
    """Says how a step is computed, by the keys of `runtime`.

    Args:
        precision: of `vswin.checks.PRECISIONS`.
        remat: whether blocks are computed twice.
        micro_batches: parts of the batch.
        jit: whether XLA compiles loss and gradients.
    """

    precision: str
    remat: bool = False
    micro_batches: int = 1
    jit: bool = False

    def __str__(self) -> str:
        """Names what is not as usual."""
        parts = f", {self.micro_batches} micro-batches" if self.micro_batches > 1 else ""
        return self.precision + (", remat" if self.remat else "") + parts + (", jit" if self.jit else "")


def list_ways(precisions: Sequence[str], remat: bool, micro_batches: int, jit: bool) -> list[Way]:
    """Lists the contenders: each precision as usual, and with each of the others by itself.

    Args:
        precisions: of `vswin.checks.PRECISIONS`.
        remat: whether rematerialisation is tried.
        micro_batches: parts into which a batch is cut; 1 tries none.
        jit: whether XLA is tried.

    Raises:
        InputError: if there is no such precision, or no part.
    """
    check_precisions(precisions)
    check_counts({"--micro-batches": micro_batches})
    ways = []
    for precision in precisions:
        ways.append(Way(precision))
        ways += [Way(precision, remat=True)] if remat else []
        ways += [Way(precision, micro_batches=micro_batches)] if micro_batches > 1 else []
        ways += [Way(precision, jit=True)] if jit else []
    return ways


def bench_step(workload: Workload, ways: Sequence[Way], rounds: int, traces: Path | None = None) -> Result:
    """Times training steps.

    Args:
        workload: network and clips.
        ways: how to compute them; they take turns.
        rounds: steps of each.
        traces: folder for a profile of each, in a folder of its name; None for none.

    Returns:
        A row per way with `clips_per_second` and `share_of_floor`, what is computed twice not counted; the matrix
        products as references.

    Raises:
        InputError: if the batch cannot be cut into the parts, or there is no round.
    """
    for way in ways:
        check_divides(workload.batch_size, 1, way.micro_batches)
    runs = {str(way): make_step(workload, way) for way in ways}
    contenders = {name: timed(run) for name, run in runs.items()}
    precisions = list(dict.fromkeys(way.precision for way in ways))
    products = {product_name(precision): make_product(precision) for precision in precisions}
    seconds = interleave({**contenders, **products}, rounds)
    references = {precision: product_row(precision, seconds[product_name(precision)]) for precision in precisions}
    options = {**asdict(workload), "ways": list(runs)}
    result = Result("step", options, [], list(references.values()))
    for way, (name, run) in zip(ways, runs.items(), strict=True):
        floor = floor_seconds(_PRODUCTS_PER_STEP * workload.flops, references[way.precision])
        result.rows.append(model_row(name, seconds[name], workload.batch_size, floor))
        if traces is not None:
            result.breakdowns[name] = trace(traces / name.replace(", ", "_").replace(" ", "_"), run, floor)
    return result


def make_step(workload: Workload, way: Way) -> Callable[[], None]:
    """Builds a model, its optimizer and trainer by the recipe of the network, on one device.

    Returns:
        A function that takes a step on the same clips each time, and returns when it is taken.
    """
    return prepare_step(_compose(workload, way), NUM_CLASSES, workload.make_clips())


def prepare_step(config: TrainConfig, num_classes: int, clips: tf.Tensor) -> Callable[[], None]:
    """Builds a run's model with random weights, its optimizer and trainer, on one device.

    Args:
        config: the run.
        num_classes: classes K.
        clips: as many as its global batch has, uint8 [B, T, H, W, 3].

    Returns:
        A function that takes a step on these clips each time, and returns when it is taken.
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


def _compose(workload: Workload, way: Way) -> TrainConfig:
    """Composes the run that would take such steps."""
    overrides = {
        "model": workload.model,
        "dataset": "kinetics400",
        "clip.num_frames": workload.num_frames,
        "clip.resize": workload.size,
        "clip.crop": workload.size,
        "batch_size": workload.batch_size,
        "runtime.precision": way.precision,
        "runtime.remat": way.remat,
        "runtime.micro_batches": way.micro_batches,
        "runtime.jit": way.jit,
    }
    return compose_config("train", [f"{key}={value}" for key, value in overrides.items()], TrainConfig)
