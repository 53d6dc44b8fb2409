"""Count the work of one block on a GPU: kernels after XLA, the bytes that they move, and the ranks of transposes.

No GPU is needed: XLA compiles for the CPU at hand. It fuses much as for a GPU, but cuts a normalisation or a softmax
into more kernels. Each instruction of the compiled program counts as a kernel that reads its operands and writes its
result once, without caches. Attention runs in all windows at once, as on a GPU.

    python benchmarks/kernels.py                      the second block of swin_tiny on one clip of 32 x 224 x 224
    python benchmarks/kernels.py --precision bfloat16
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf

from vswin.console import print_table
from vswin.models import attention
from vswin.models.layers import SwinBlock3D
from vswin.models.windows import plan_windows
from vswin.models.zoo import SIZES
from vswin.runtime import console, set_precision

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
# Instructions that name, allocate or view memory without touching it.
_FREE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "iota", "broadcast"}
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%[\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)\)")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


class Kernel(NamedTuple):
    """An instruction that does work.

    Args:
        kind: its operation, e.g. "fusion" or "dot".
        name: its name in XLA.
        num_bytes: bytes read and written.
    """

    kind: str
    name: str
    num_bytes: int


def list_kernels(text: str) -> list[Kernel]:
    """Lists the kernels in the entry of a compiled program, given as HLO after optimisation."""
    sizes: dict[str, int] = {}
    kernels = []
    for name, shape, kind, operands in _instructions(text[text.index("\nENTRY") :]):
        sizes[name] = sum(count_bytes(dtype, extents) for dtype, extents in _SHAPE.findall(shape))
        if kind not in _FREE:
            read = sum(sizes.get(operand, 0) for operand in re.findall(r"%[\w.-]+", operands))
            kernels.append(Kernel(kind, name.strip("%"), read + sizes[name]))
    return kernels


def transpose_ranks(text: str) -> list[int]:
    """Gives the rank of each transpose in a program, given as HLO before optimisation."""
    shapes = [shape for _, shape, kind, _ in _instructions(text) if kind == "transpose"]
    return [len(_SHAPE.findall(shape)[0][1].split(",")) for shape in shapes]


def count_bytes(dtype: str, extents: str) -> int:
    """Counts the bytes of an array, e.g. 24 for "f32" and "2,3"."""
    return _BYTES[dtype] * math.prod(int(extent) for extent in extents.split(",") if extent)


def _instructions(text: str) -> Iterator[tuple[str, ...]]:
    """Gives name, shape, operation and operands of every instruction."""
    for line in text.splitlines():
        # Remove comments inside long lists of operands, e.g. /*index=5*/.
        found = _INSTRUCTION.match(re.sub(r"/\*.*?\*/", "", line))
        if found:
            yield found.groups()


def make_block(clip_shape: tuple[int, int, int], precision: str) -> tuple[Callable[..., object], tf.Tensor]:
    """Makes the second block of swin_tiny, whose windows are shifted, and its input, tokens [1, T, H, W, C]."""
    size = SIZES["swin_tiny"]
    set_precision(precision)
    block = SwinBlock3D(size.embed_dim, size.num_heads[0], size.window_size)
    grid = [math.ceil(extent / patch) for extent, patch in zip(clip_shape, size.patch_size, strict=True)]
    x = tf.cast(tf.random.normal([1, *grid, size.embed_dim]), block.compute_dtype)

    def forward(x: tf.Tensor) -> tf.Tensor:
        return block(x, plan_windows(tf.shape(x)[1:4], size.window_size, True), tf.ones([1, 2]))

    forward(x)
    set_precision("float32")

    def forward_and_gradient(x: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        return y, tape.gradient(y, [x, *block.trainable_variables], tf.ones_like(y))

    return (forward, forward_and_gradient), x


def measure(run: Callable[..., object], x: tf.Tensor) -> tuple[list[Kernel], list[int]]:
    """Compiles a function of tokens; gives its kernels, and the ranks of its transposes before optimisation."""
    compiled = tf.function(run, jit_compile=True, autograph=False)
    read = compiled.experimental_get_compiler_ir(x)
    return list_kernels(read(stage="optimized_hlo")), transpose_ranks(read(stage="hlo"))


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32, help="frames of the clip (32)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a frame's side (224)")
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or float16 (float32)")
    arguments = parser.parse_args()
    attention.CHUNK_LOGITS = 1 << 62
    runs, x = make_block((arguments.frames, arguments.size, arguments.size), arguments.precision)
    lines = [["one block", "kernels", "products", "MB moved", "of the tokens", "largest transpose"]]
    kernels: list[Kernel] = []
    for name, run in zip(("forward", "with gradients"), runs, strict=True):
        kernels, ranks = measure(run, x)
        moved = sum(kernel.num_bytes for kernel in kernels)
        products = sum(kernel.kind in ("dot", "custom-call") for kernel in kernels)
        times = f"{moved / (x.shape.num_elements() * x.dtype.size):.0f} times"
        lines.append([name, str(len(kernels)), str(products), f"{moved / 1e6:,.0f}", times, f"rank {max(ranks)}"])
    print_table(console, lines)
    print("\nwhat moves most, with gradients:")
    for kernel in sorted(kernels, key=lambda kernel: -kernel.num_bytes)[:10]:
        print(f"  {kernel.num_bytes / 1e6:8,.0f} MB  {kernel.name}")


if __name__ == "__main__":
    main()
