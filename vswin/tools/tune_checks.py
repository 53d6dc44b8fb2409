"""Check the options of `vswin tune` before TensorFlow is imported."""

import math

from vswin.cluster import find_cluster
from vswin.config.schema import TrainConfig
from vswin.errors import InputError

_FEWEST_STEPS = 20


def check_sweep(smallest: float, largest: float, steps: int) -> None:
    """Refuses learning rates without 0 < smallest < largest, and too few steps for a curve."""
    if not (math.isfinite(largest) and 0 < smallest < largest):
        raise InputError(f"--min {smallest:g} --max {largest:g}: two learning rates with 0 < smallest < largest")
    if steps < _FEWEST_STEPS:
        raise InputError(f"--steps {steps}: a curve needs at least {_FEWEST_STEPS} steps, better 200")


def check_search(limit_gb: float | None, max_batch: int) -> None:
    """Refuses limits that leave no batch size to try."""
    if limit_gb is not None and not (math.isfinite(limit_gb) and limit_gb > 0):
        raise InputError(f"--limit-gb {limit_gb:g}: gigabytes above 0")
    if max_batch < 1:
        raise InputError(f"--max-batch {max_batch}: at least 1")


def check_alone(config: TrainConfig) -> None:
    """Refuses a process that is one of several workers, and `resume=true`."""
    strategy = config.runtime.strategy
    if strategy == "multi_worker" or (strategy == "auto" and find_cluster() is not None):
        raise InputError(
            f"runtime.strategy={strategy}: vswin tune tries settings in one process, not in a job of several workers; "
            "run it on one machine with runtime.strategy=mirrored or one_device"
        )
    if config.resume:
        raise InputError("resume=true: vswin tune starts from the weights of init_from=, not in the middle of a run")
