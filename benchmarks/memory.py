"""Measure the peak memory of one training step, and compare it with what a run says beforehand.

Each measurement is a process of its own: it builds the model, takes two steps on random clips and ends; the
system says how much memory it held at most. What the process holds before the first step (Python, TensorFlow,
the model) is measured the same way and given beside it.

    python benchmarks/memory.py --model swin_tiny --size 224 --frames 32
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def measure_here(arguments: argparse.Namespace) -> dict[str, float]:
    """Takes two training steps in this process.

    Args:
        arguments: of the command line.

    Returns:
        Largest resident memory before the first and after the last step, and the estimate, in GB.
    """
    import numpy as np
    import tensorflow as tf

    from vswin.build import build_model
    from vswin.runtime import set_precision
    from vswin.training.memory import estimate_step
    from vswin.training.optimizer import AdamW, ParameterGroup
    from vswin.training.trainer import Trainer
    from vswin.zoo import find_size

    set_precision(arguments.precision)
    size = find_size(arguments.model)
    batch_size, frames, pixels = arguments.batch, arguments.frames, arguments.size
    model = build_model(size, 400, remat=arguments.remat)
    trainer = Trainer(model, batch_size, seed=0, micro_batches=arguments.micro_batches)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in model.trainable_variables}
    trainer.compile(optimizer=AdamW(1e-3, groups))
    trainer.optimizer.build(model.trainable_variables)
    batch = {
        "clips": tf.constant(np.random.default_rng(0).integers(0, 256, (batch_size, frames, pixels, pixels, 3), "u1")),
        "labels": tf.zeros([batch_size], tf.int32),
        "weights": tf.ones([batch_size]),
        "positions": tf.range(batch_size),
    }
    before = _peak_gb()
    data = tf.data.Dataset.from_tensors(batch).repeat()
    trainer.fit(data, steps_per_epoch=2, epochs=1, verbose=0)
    estimate = estimate_step(
        size, 400, (frames, pixels, pixels), batch_size // arguments.micro_batches, arguments.precision, arguments.remat
    )
    return {"before": before, "peak": _peak_gb(), "estimate": estimate.total / 1e9}


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Measures plain, rematerialised and micro-batched steps and prints them as ratios of the plain one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="swin_tiny", help="size of the model (swin_tiny)")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip (32)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a frame's side (224)")
    parser.add_argument("--batch", type=int, default=1, help="clips per step (1)")
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or float16 (float32)")
    parser.add_argument("--remat", action="store_true", help="measure the rematerialised step alone")
    parser.add_argument("--micro-batches", type=int, default=1, help="parts of a batch (1)")
    parser.add_argument("--here", action="store_true", help="measure in this process and print JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure_here(arguments)))
        return
    plain = None
    for remat in (True,) if arguments.remat else (False, True):
        command = [sys.executable, __file__, *sys.argv[1:], "--here", *(["--remat"] if remat else [])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        step = figures["peak"] - figures["before"]
        plain = plain or step
        print(
            f"{'rematerialised' if remat else 'plain':<15} step {step:.2f} GB (estimated {figures['estimate']:.2f}), "
            f"ratio {step / plain:.2f}; process {figures['before']:.2f} GB before, {figures['peak']:.2f} GB at most"
        )


if __name__ == "__main__":
    main()
