"""The messages between `compare.py` and a peer, a process that runs one task again for each line of input.

A peer starts with its case as JSON and prints `{"ready": {package: version}}`, or `{"error": text}` if it cannot run
the case. Then each line on its standard input is a request: it answers `run` with `{"seconds": ...}`, and `peak` with
`{"before_gb": ..., "peak_gb": ...}`. The peer ends when its input ends. This module needs only the standard library,
since the environments of all peers import it.
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
    """The task of a peer.

    Args:
        task: `forward`, `step` (AdamW, cross entropy, no augmentation) or `input` (load training clips).
        variant: one of the peer's variants of the task, e.g. "compiled".
        precision: `float32` or `bfloat16`.
        num_frames: frames of a clip.
        size: pixels of a frame's side.
        batch_size: clips per batch.
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
    """Answers the requests on standard input until it ends.

    Args:
        build: makes the function that runs a case, or raises any exception if it cannot. The first run of the function
            is a warm-up. The function may return its own time in seconds.
        packages: packages whose versions to report.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error
    try:
        run = build(Case(**json.loads(sys.argv[1])))
    except Exception as error:
        print(json.dumps({"error": _explain(error)}), file=answers)
        return
    before = peak_gb()
    print(json.dumps({"ready": {name: importlib.metadata.version(name) for name in packages}}), file=answers)
    for request in sys.stdin:
        if request.strip() == "peak":
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
    """Writes an error on one line; keeps the end of a long one, where TensorFlow says what is wrong."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) < 300 else '... ' + text[-300:]}"


def peak_gb() -> float:
    """Reads the peak resident memory of this process in GB; Linux only."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 / 1e9 for line in status if line.startswith("VmHWM:"))
