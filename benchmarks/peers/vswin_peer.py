"""vswin as a peer; see `protocol.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from protocol import Case, serve


def build(case: Case) -> Callable[[], object]:
    """Makes the function that runs a case."""
    if case.task == "input":
        from vswin.data.frames import FrameLoader
        from vswin.tools.bench_input import compose_input, time_batches

        overrides = [f"clip.num_frames={case.num_frames}", f"clip.crop={case.size}"]
        return partial(time_batches, compose_input(overrides), case.videos, 1, FrameLoader())
    from vswin.tools.bench_model import Workload, make_forward
    from vswin.tools.bench_step import Variant, make_step

    workload = Workload("swin_tiny", case.num_frames, case.size, case.batch_size)
    if case.task == "forward":
        return make_forward(workload, case.precision)
    return make_step(workload, Variant(case.precision, remat=case.variant == "remat", jit=case.variant == "jit"))


if __name__ == "__main__":
    serve(build, ["vswin", "tensorflow"])
