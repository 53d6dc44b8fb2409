"""`vswin bench model`: the forward pass, compared with a large matrix product of the same precision."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from vswin.models.zoo import count_macs, find_size
from vswin.runtime import set_precision
from vswin.tools.bench_result import Result, Row, check_counts, interleave, timed
from vswin.weights.build import build_model

NUM_CLASSES = 400
# Side of the matrix product that measures the machine: large enough for the highest rate; 17 GFLOP.
_SIDE = 2048


@dataclass(frozen=True)
class Workload:
    """A network, a key of `vswin.models.zoo.SIZES`, and its input: clips of `num_frames` x `size` x `size`.

    An `InputError` if the network does not exist, or a number is below 1.
    """

    model: str
    num_frames: int
    size: int
    batch_size: int

    def __post_init__(self) -> None:
        """Refuses a workload that cannot run."""
        find_size(self.model)
        check_counts({"--frames": self.num_frames, "--size": self.size, "--batch": self.batch_size})

    @property
    def flops(self) -> int:
        """Counts the floating-point operations of the matrix products of a forward pass."""
        return 2 * self.batch_size * count_macs(find_size(self.model), self.num_frames, self.size, self.size)

    def make_clips(self) -> tf.Tensor:
        """Makes random clips, uint8 [B, T, H, W, 3], the same ones every time."""
        shape = (self.batch_size, self.num_frames, self.size, self.size, 3)
        return tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def bench_model(workload: Workload, precisions: Sequence[str], rounds: int) -> Result:
    """Times the forward pass in one or more precisions, in turns; see `time_runs`."""
    runs = {precision: (precision, make_forward(workload, precision)) for precision in precisions}
    options = {**asdict(workload), "precision": list(precisions)}
    return time_runs("model", options, runs, workload.flops, workload.batch_size, rounds)


def make_forward(workload: Workload, precision: str) -> Callable[[], object]:
    """Builds a model with random weights; returns a function that runs it on the same clips each time."""
    set_precision(precision)
    model = build_model(workload.model, NUM_CLASSES)
    set_precision("float32")
    clips = workload.make_clips()
    classify = tf.function(lambda clips: model(clips, training=False))
    return lambda: classify(clips).numpy()


def time_runs(
    benchmark: str,
    options: Mapping[str, Any],
    runs: Mapping[str, tuple[str, Callable[[], object]]],
    flops: int,
    num_clips: int,
    rounds: int,
) -> Result:
    """Times runs of the network in turns with each other and with large matrix products.

    `runs` are precision and function by name; a run takes `num_clips` clips, and `flops` floating-point operations in
    its matrix products.

    Returns:
        A row per run with `clips_per_second` and `fraction_of_bound`. The matmul bound is the time that the matrix
        products of the run take at the rate of a large one, and the figure is the bound divided by the time of the run.
        Large products are references with `gflops`.
    """
    products = {f"matmul {precision}": timed(_make_product(precision)) for precision, _ in runs.values()}
    contenders = {name: timed(run) for name, (_, run) in runs.items()}
    seconds = interleave({**contenders, **products}, rounds)
    rows = {name: Row(name, measured) for name, measured in seconds.items()}
    for name in products:
        rows[name].figures = {"gflops": 2 * _SIDE**3 / rows[name].median / 1e9}
    for name, (precision, _) in runs.items():
        bound = flops / (rows[f"matmul {precision}"].figures["gflops"] * 1e9)
        figures = {"clips_per_second": num_clips / rows[name].median, "fraction_of_bound": bound / rows[name].median}
        rows[name].figures = figures
    return Result(benchmark, options, [rows[name] for name in runs], [rows[name] for name in products])


def _make_product(precision: str) -> Callable[[], object]:
    matrix = tf.cast(tf.random.stateless_normal([_SIDE, _SIDE], [0, 0]), precision)
    multiply = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    return lambda: multiply().numpy()
