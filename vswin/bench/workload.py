"""What the benchmarks of the model compute, and the fastest that this machine could do it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from vswin.bench.result import Row
from vswin.bench.timing import Contender, check_counts, timed
from vswin.checks import PRECISIONS
from vswin.errors import InputError
from vswin.zoo import count_macs, find_size

NUM_CLASSES = 400
# Rows and columns of the product that says what the machine can do: large enough for its best, and 17 GFLOP.
_SIDE = 2048


@dataclass(frozen=True)
class Workload:
    """Says which network computes how much.

    Args:
        model: key of `vswin.zoo.SIZES`.
        num_frames: frames of a clip.
        size: pixels of a frame's side.
        batch_size: clips at once.

    Raises:
        InputError: if there is no such network, or a number is below 1.
    """

    model: str
    num_frames: int
    size: int
    batch_size: int

    def __post_init__(self) -> None:
        """Refuses what cannot be computed."""
        find_size(self.model)
        check_counts({"--frames": self.num_frames, "--size": self.size, "--batch": self.batch_size})

    @property
    def flops(self) -> int:
        """Counts the floating-point operations of the matrix products of a forward pass."""
        return 2 * self.batch_size * count_macs(find_size(self.model), self.num_frames, self.size, self.size)

    def make_clips(self) -> tf.Tensor:
        """Makes random clips, uint8 [B, T, H, W, 3]; always the same."""
        shape = (self.batch_size, self.num_frames, self.size, self.size, 3)
        return tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def check_precisions(precisions: Sequence[str]) -> None:
    """Checks the names of precisions.

    Raises:
        InputError: if one is none, or stands there twice.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise InputError(f"--precision {precision}: one or more of {', '.join(PRECISIONS)}")
    if len(set(precisions)) < len(precisions):
        raise InputError(f"--precision {' '.join(precisions)}: each once")


def product_name(precision: str) -> str:
    """Names the product of two large matrices among the contenders."""
    return f"matmul {precision}"


def make_product(precision: str) -> Contender:
    """Makes a contender that multiplies two large matrices."""
    side = tf.cast(tf.random.stateless_normal([_SIDE, _SIDE], [0, 0]), precision)
    multiply = tf.function(lambda: tf.reduce_sum(tf.matmul(side, side)))
    return timed(lambda: multiply().numpy())


def product_row(precision: str, seconds: Sequence[float]) -> Row:
    """Says how fast the product of two large matrices was."""
    row = Row(product_name(precision), seconds)
    row.figures = {"gflops": 2 * _SIDE**3 / row.median / 1e9}
    return row


def floor_seconds(flops: float, product: Row) -> float:
    """Computes how long operations would take at the rate of a large matrix product."""
    return flops / (product.figures["gflops"] * 1e9)


def model_row(name: str, seconds: Sequence[float], batch_size: int, floor: float) -> Row:
    """Says how fast a contender was, and how near to what the machine could do.

    Args:
        name: of the contender.
        seconds: of each round.
        batch_size: clips of a run.
        floor: seconds of its matrix products at the rate of a large one.
    """
    row = Row(name, seconds)
    row.figures = {"clips_per_second": batch_size / row.median, "share_of_floor": floor / row.median}
    return row
