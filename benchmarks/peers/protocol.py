"""How a peer talks with `compare.py`: it is a process that does one thing again and again, once for each line it gets.

A peer is started with its case as JSON and says `{"ready": {package: version}}`, or `{"error": text}` where it cannot
do that. Then each line on its standard input is a wish: `run` is answered with `{"seconds": ...}`, `peak` with
`{"before_gb": ..., "peak_gb": ...}`. It ends when its input does. Needs nothing but the standard library, since it is
imported in the environments of all peers.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Says what a peer does when it runs.

    Args:
        task: `forward`, `step` (AdamW, cross entropy, no augmentation) or `input` (load training clips).
        variant: one of the ways in which the peer can do it, e.g. "compiled".
        precision: `float32` or `bfloat16`.
        num_frames: frames of a clip.
        size: pixels of a frame's side.
        batch_size: clips at once.
        videos: files to load clips from.
    """

    task: str
    variant: str = ""
    precision: str = "float32"
    num_frames: int = 32
    size: int = 224
    batch_size: int = 1
    videos: Sequence[str] = ()


def serve(build: Callable[[Case], Callable[[], object]], packages: Sequence[str]) -> None:
    """Answers the wishes on the standard input until it ends.

    Args:
        build: makes of a case what runs, ready but for what the first run does; raises what it likes if it cannot. What
            it makes may return a number: seconds that it has taken itself.
        packages: whose versions to name.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print what they like
    try:
        run = build(Case(**json.loads(sys.argv[1])))
    except Exception as error:
        print(json.dumps({"error": _explain(error)}), file=answers)
        return
    before = peak_gb()
    print(json.dumps({"ready": {name: importlib.metadata.version(name) for name in packages}}), file=answers)
    for wish in sys.stdin:
        if wish.strip() == "peak":
            print(json.dumps({"before_gb": before, "peak_gb": peak_gb()}), file=answers)
            continue
        start = time.perf_counter()
        try:
            taken = run()
        except Exception as error:
            print(json.dumps({"error": _explain(error)}), file=answers)
            return
        seconds = taken if isinstance(taken, float) else time.perf_counter() - start
        print(json.dumps({"seconds": seconds}), file=answers)


def _explain(error: Exception) -> str:
    """Writes an error on one line; of long ones the end, which in TensorFlow's says what was wrong."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) < 300 else '... ' + text[-300:]}"


def peak_gb() -> float:
    """Reads the largest resident memory of this process so far; Linux."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 / 1e9 for line in status if line.startswith("VmHWM:"))
