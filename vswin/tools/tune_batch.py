"""`vswin tune batch`: the largest batch per device whose training step fits into memory."""

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import tensorflow as tf

from vswin.config.checks import batch_unit
from vswin.config.schema import TrainConfig
from vswin.console import count_of, print_table, say
from vswin.errors import InputError
from vswin.runtime import console, logger, program, start_log
from vswin.tools.tune_rates import check_alone
from vswin.training.memory import Trial, estimate_run, run_trial

# Memory of Python, TensorFlow and the traced graph, which the estimate leaves out.
_PROCESS_GB = 1.0
# Without `dataset.num_classes` the head has the classes of Kinetics-400. The log says so, and the head is small beside
# the activations.
_NUM_CLASSES = 400
_REPLACED = ("batch_size", "optimizer.learning_rate", "runtime.micro_batches")
# Of the free memory, for a trial; the rest is for the machine and for the input pipeline of a real run.
_FREE_FRACTION = 0.9
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def run_tune_batch(
    config: TrainConfig, overrides: Sequence[str], limit_gb: float | None, max_batch: int
) -> dict[int, Trial]:
    """Tries batch sizes; prints which fit, how fast each is, and the override to use; returns the trials by batch size.

    `overrides` are the command line of the run. `limit_gb` limits the memory of a process; None takes the free memory,
    or all memory of a GPU. `max_batch` is the largest size to try. An `InputError` if not even the smallest batch fits.
    """
    start_log(None)
    if limit_gb is not None and not (math.isfinite(limit_gb) and limit_gb > 0):
        raise InputError(f"--limit-gb {limit_gb:g}: gigabytes above 0")
    if max_batch < 1:
        raise InputError(f"--max-batch {max_batch}: at least 1")
    check_alone(config)
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    is_cpu = num_gpus == 0
    limit = free_gb() if limit_gb is None and is_cpu else limit_gb
    unit = batch_unit(1, config.augment.in_pairs, config.augment.repeats)
    if max_batch < unit:
        raise InputError(f"--max-batch {max_batch}: the augmentation of this run takes batches of {unit} clips or more")
    num_classes = config.dataset.num_classes or _NUM_CLASSES

    clip, runtime = config.clip, config.runtime
    known = f"{num_classes} classes" + ("" if config.dataset.num_classes else " (dataset.num_classes is not set)")
    logger.info(
        f"training steps of {config.model.name} with {known} on made-up clips of {clip.num_frames} x {clip.crop} x "
        f"{clip.crop}, {runtime.precision}{', blocks computed twice' if runtime.remat else ''}, on "
        f"{'the CPU' if is_cpu else 'one GPU'} within {'all of its memory' if limit is None else f'{limit:.2f} GB'}:"
    )
    tried: dict[int, Trial] = {}

    def fits(batch_size: int) -> bool:
        words = [*overrides, f"batch_size={batch_size}", "runtime.micro_batches=1", "runtime.strategy=one_device"]
        with console.status(f"trying {count_of(batch_size, 'clip')}"):
            trial = tried[batch_size] = run_trial(words, num_classes, limit, is_cpu)
        logger.info(f"  {count_of(batch_size, 'clip')}: " + (f"{trial.peak_gb:.2f} GB" if trial.fits else trial.reason))
        return trial.fits

    # Start at a power of two near a quarter of the estimated largest batch, so that smaller batches are timed too.
    first = 1
    if limit is not None:
        one, two = (_estimate(config, count, is_cpu, runtime.remat) for count in (1, 2))
        first = 2 ** int(math.log2(min(max(1.0, ((limit - _PROCESS_GB - one) / (two - one) + 1) / 4), max_batch)))
    largest = find_largest(fits, first, unit, max_batch)

    _print_table(config, tried, is_cpu)
    if largest == 0:
        raise InputError(
            f"not even {count_of(unit, 'clip')} at a time fit into memory; set runtime.remat=true, or take "
            "a smaller clip (clip.num_frames, clip.crop) or model"
        )
    more = "" if any(not trial.fits for trial in tried.values()) else f" (no more was tried: --max-batch {max_batch})"
    logger.info(f"largest batch that fits: {count_of(largest, 'clip')} per device{more}")
    speeds = {size: size / trial.seconds for size, trial in tried.items() if trial.fits}
    enough = min(size for size, speed in speeds.items() if speed >= 0.95 * max(speeds.values()))
    if enough < largest:
        logger.info(f"from {count_of(enough, 'clip')} on, a larger batch is hardly faster (within 5 % of the fastest)")
    _suggest_overrides(config, overrides, largest, unit, 1 if runtime.strategy == "one_device" else max(1, num_gpus))
    if not runtime.remat:
        kept, twice = (_estimate(config, largest, is_cpu, remat) for remat in (False, True))
        logger.info(
            f"runtime.remat=true computes blocks twice and takes about {max(0.0, kept - twice):.2f} GB less at "
            f"{count_of(largest, 'clip')} (estimated: {twice:.2f} in place of {kept:.2f}); add it to this command to "
            "try"
        )
    return tried


def _estimate(config: TrainConfig, num_clips: int, is_cpu: bool, remat: bool) -> float:
    """Estimates the memory of a step, in GB."""
    return estimate_run(config, config.dataset.num_classes or _NUM_CLASSES, num_clips, is_cpu, remat).total / 1e9


def _print_table(config: TrainConfig, tried: dict[int, Trial], is_cpu: bool) -> None:
    lines = [["batch", "peak GB", "estimated GB", "clips/s", ""]]
    for size, trial in sorted(tried.items()):
        estimate = f"{_estimate(config, size, is_cpu, config.runtime.remat):.2f}"
        if trial.fits:
            lines.append([str(size), f"{trial.peak_gb:.2f}", estimate, f"{size / trial.seconds:.2f}", "fits"])
        else:
            # A process that was killed would have needed an unknown amount.
            lines.append([str(size), f"> {trial.peak_gb:.2f}", estimate, "-", trial.reason])
    console.print()
    print_table(console, lines, texts=(4,))
    what = "process, with about 1 GB of Python and TensorFlow that the estimate leaves out" if is_cpu else "device"
    say(console, f"peak: of the {what}; a run holds batches of its input besides", style="dim")
    console.print()


def _suggest_overrides(config: TrainConfig, overrides: Sequence[str], largest: int, unit: int, devices: int) -> None:
    """Prints the overrides for the largest batch, and for the batch of the recipe."""
    total = largest * devices
    rate = config.optimizer.learning_rate * total / config.batch_size
    kept = [word for word in overrides if word.partition("=")[0] not in _REPLACED]
    command = shlex.join([*kept, f"batch_size={total}", f"optimizer.learning_rate={rate:.2g}"])
    logger.info(f"to use it, with the learning rate in proportion:\n  {program('train')} {command}")
    per_device = config.batch_size // devices
    parts = count_parts(per_device, largest, unit)
    recipe = f"the batch of the recipe, batch_size={config.batch_size}"
    if config.batch_size % devices or parts is None:
        logger.info(f"{recipe}, cannot be cut into equal parts that fit")
    elif parts == 1:
        logger.info(f"{recipe}, fits as it is: runtime.micro_batches=1")
    else:
        logger.info(
            f"{recipe}, fits with runtime.micro_batches={parts}: the same step, "
            f"{count_of(per_device // parts, 'clip')} at a time"
        )


def find_largest(fits: Callable[[int], bool], start: int, unit: int, most: int) -> int:
    """Finds the largest multiple of `unit` up to `most` that fits; 0 if not even one unit does.

    Starts near `start`, doubles until a number does not fit, then halves the gap; each number is tried at most once.
    Up to 16 units the answer is exact; beyond, it is at most a sixteenth below the largest.
    """
    low, high = 0, most // unit + 1  # in units: the largest known to fit, the smallest ruled out
    guess = min(max(1, start // unit), most // unit)
    while low < high - 1 and (low == 0 or high - low > max(1, low // 16)):
        if fits(guess * unit):
            low = guess
        else:
            high = guess
        is_bounded = low > 0 and high <= most // unit
        guess = (low + high) // 2 if is_bounded or low == 0 else min(2 * low, high - 1)
    return low * unit


def count_parts(batch_size: int, largest: int, unit: int) -> int | None:
    """Counts the fewest equal parts that are multiples of `unit` and at most `largest`; None if there are none."""
    for parts in range(1, batch_size // unit + 1):
        if batch_size % (parts * unit) == 0 and batch_size // parts <= largest:
            return parts
    return None


def free_gb(root: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> float:
    """Gives nine tenths of the free memory, in GB, within the limits of the control groups of containers and Slurm.

    `root` is the mount point of the groups (version 2); the file `own` names the group of this process. File caches
    count as free, as the kernel drops them when memory is needed.
    """
    free = [psutil.virtual_memory().available]
    lines = own.read_text().splitlines() if own.is_file() else []
    for group in (line[3:] for line in lines if line.startswith("0::")):
        path = root / group.lstrip("/")
        # Inside a container, the path may be the one outside of it; then the container's own group is the root.
        for folder in (folder for folder in (path, *path.parents) if folder == root or root in folder.parents):
            try:
                limit = (folder / "memory.max").read_text().strip()
                used = int((folder / "memory.current").read_text())
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if limit != "max":
                free.append(max(0, int(limit) - used + int(statistics.get("inactive_file", 0))))
    return _FREE_FRACTION * min(free) / 1e9
