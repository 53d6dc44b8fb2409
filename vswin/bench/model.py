"""`vswin bench model`: the forward pass, against what a large matrix product of the same precision reaches."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import tensorflow as tf

from vswin.bench.result import Result
from vswin.bench.timing import interleave, timed
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
from vswin.runtime import set_precision


def bench_model(workload: Workload, precisions: Sequence[str], rounds: int, traces: Path | None = None) -> Result:
    """Times the forward pass in one or more precisions.

    Args:
        workload: network and clips.
        precisions: of `vswin.checks.PRECISIONS`; they take turns.
        rounds: how often each runs.
        traces: folder for a profile of each, in a folder of its name; None for none.

    Returns:
        A row per precision with `clips_per_second` and `share_of_floor`; the matrix products as references.

    Raises:
        InputError: if there is no such precision, or no round.
    """
    check_precisions(precisions)
    runs = {precision: make_forward(workload, precision) for precision in precisions}
    contenders = {precision: timed(run) for precision, run in runs.items()}
    products = {product_name(precision): make_product(precision) for precision in precisions}
    seconds = interleave({**contenders, **products}, rounds)
    result = Result("model", {**asdict(workload), "precision": list(precisions)}, [], [])
    for precision, run in runs.items():
        product = product_row(precision, seconds[product_name(precision)])
        row = model_row(precision, seconds[precision], workload.batch_size, floor_seconds(workload.flops, product))
        result.rows.append(row)
        result.references.append(product)
        if traces is not None:
            result.breakdowns[precision] = trace(traces / precision, run, floor_seconds(workload.flops, product))
    return result


def make_forward(workload: Workload, precision: str) -> Callable[[], object]:
    """Builds a model with random weights and makes a function that runs it on the same clips each time."""
    set_precision(precision)
    model = build_model(workload.model, NUM_CLASSES)
    set_precision("float32")
    clips = workload.make_clips()
    classify = tf.function(lambda clips: model(clips, training=False))
    return lambda: classify(clips).numpy()
