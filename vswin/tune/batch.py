"""`vswin tune batch`: the largest batch per device whose training step fits into memory."""

import math
import shlex
from collections.abc import Sequence

import tensorflow as tf

from vswin.errors import InputError
from vswin.runtime import console, logger, program, start_log
from vswin.schema import TrainConfig
from vswin.tables import print_table, say
from vswin.training.memory import estimate_run
from vswin.tune.limits import free_gb
from vswin.tune.search import count_parts, find_knee, find_largest
from vswin.tune.trial import Trial, run_trial
from vswin.wording import count_of

# Python, TensorFlow and the traced graph, which the estimate does not count.
_PROCESS_GB = 1.0
# Where the configuration does not say how many classes there are, the head is as large as that of Kinetics-400; that
# is said, and it is little beside the activations.
_NUM_CLASSES = 400
_REPLACED = ("batch_size", "optimizer.learning_rate", "runtime.micro_batches")


def run_tune_batch(
    config: TrainConfig, overrides: Sequence[str], limit_gb: float | None, max_batch: int
) -> dict[int, Trial]:
    """Tries batch sizes and prints which fit, how fast each is, and the override to use.

    Args:
        config: the run, checked.
        overrides: the command line it was composed of.
        limit_gb: memory a process may take; None for what is free.
        max_batch: the largest size that is tried.

    Returns:
        What was tried, by batch size.

    Raises:
        InputError: if not even the smallest batch fits, or a trial fails for another reason.
    """
    start_log(None)
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    is_cpu = num_gpus == 0
    limit = free_gb() if limit_gb is None and is_cpu else limit_gb
    unit = _find_unit(config)
    if max_batch < unit:
        raise InputError(f"--max-batch {max_batch}: the augmentation of this run takes batches of {unit} clips or more")
    num_classes = config.dataset.num_classes or _NUM_CLASSES
    _say_what_is_tried(config, limit, is_cpu)
    tried: dict[int, Trial] = {}

    def fits(batch_size: int) -> bool:
        with console.status(f"trying {count_of(batch_size, 'clip')}"):
            trial = tried[batch_size] = run_trial(overrides, batch_size, num_classes, limit, is_cpu)
        logger.info(f"  {count_of(batch_size, 'clip')}: " + (f"{trial.peak_gb:.2f} GB" if trial.fits else trial.reason))
        return trial.fits

    largest = find_largest(fits, _first_guess(config, num_classes, limit, is_cpu, max_batch), unit, max_batch)
    _print_table(config, num_classes, tried, is_cpu)
    if largest == 0:
        raise InputError(
            f"not even {count_of(unit, 'clip')} at a time fit into memory; set runtime.remat=true, or take "
            "a smaller clip (clip.num_frames, clip.crop) or model"
        )
    devices = 1 if config.runtime.strategy == "one_device" else max(1, num_gpus)
    _print_way_on(config, overrides, tried, largest, unit, devices, max_batch)
    return tried


def _find_unit(config: TrainConfig) -> int:
    """Finds what a batch must be a multiple of: mixing takes pairs, and videos may come several times."""
    augment = config.augment
    return math.lcm(2 if augment.mixup > 0 or augment.cutmix > 0 else 1, augment.repeats)


def _first_guess(config: TrainConfig, num_classes: int, limit: float | None, is_cpu: bool, most: int) -> int:
    """Finds a power of two at about a quarter of what the estimate says fits, so that smaller sizes are timed, too."""
    if limit is None:
        return 1
    one, two = (estimate_run(config, num_classes, count, is_cpu, config.runtime.remat).total / 1e9 for count in (1, 2))
    room = (limit - _PROCESS_GB - one) / (two - one) + 1
    return 2 ** int(math.log2(min(max(1.0, room / 4), most)))


def _say_what_is_tried(config: TrainConfig, limit: float | None, is_cpu: bool) -> None:
    clip, runtime = config.clip, config.runtime
    device = "the CPU" if is_cpu else "one GPU"
    within = "all of its memory" if limit is None else f"{limit:.2f} GB"
    num_classes = config.dataset.num_classes
    known = f"{num_classes} classes" if num_classes else f"{_NUM_CLASSES} classes (dataset.num_classes is not set)"
    remat = ", blocks computed twice" if runtime.remat else ""
    logger.info(
        f"training steps of {config.model.name} with {known} on made-up clips of {clip.num_frames} x {clip.crop} x "
        f"{clip.crop}, {runtime.precision}{remat}, on {device} within {within}:"
    )


def _print_table(config: TrainConfig, num_classes: int, tried: dict[int, Trial], is_cpu: bool) -> None:
    lines = [["batch", "peak GB", "estimated GB", "clips/s", ""]]
    for size, trial in sorted(tried.items()):
        estimate = estimate_run(config, num_classes, size, is_cpu, config.runtime.remat).total / 1e9
        speed = f"{trial.clips_per_second:.2f}" if trial.fits else "-"
        # Of a process that was ended, nobody knows how much it would have taken.
        peak = f"{trial.peak_gb:.2f}" if trial.fits else f"> {trial.peak_gb:.2f}"
        lines.append([str(size), peak, f"{estimate:.2f}", speed, "fits" if trial.fits else trial.reason])
    console.print()
    print_table(console, lines, texts=(4,))
    what = "process, with about 1 GB of Python and TensorFlow that the estimate leaves out" if is_cpu else "device"
    say(console, f"peak: of the {what}; a run holds batches of its input besides", style="dim")
    console.print()


def _print_way_on(
    config: TrainConfig,
    overrides: Sequence[str],
    tried: dict[int, Trial],
    largest: int,
    unit: int,
    devices: int,
    max_batch: int,
) -> None:
    """Prints the overrides that follow: for the largest batch, and for the batch of the recipe."""
    more = "" if any(not trial.fits for trial in tried.values()) else f" (no more was tried: --max-batch {max_batch})"
    logger.info(f"largest batch that fits: {count_of(largest, 'clip')} per device{more}")
    knee = find_knee({size: trial.clips_per_second for size, trial in tried.items() if trial.fits})
    if knee < largest:
        logger.info(f"from {count_of(knee, 'clip')} on, a larger batch is hardly faster (within 5 % of the fastest)")
    total = largest * devices
    rate = config.optimizer.learning_rate * total / config.batch_size
    kept = [word for word in overrides if word.partition("=")[0] not in _REPLACED]
    command = shlex.join([*kept, f"batch_size={total}", f"optimizer.learning_rate={rate:.2g}"])
    logger.info(f"to use it, with the learning rate in proportion:\n  {program('train')} {command}")
    share = config.batch_size // devices
    parts = count_parts(share, largest, unit)
    recipe = f"the batch of the recipe, batch_size={config.batch_size}"
    if config.batch_size % devices or parts is None:
        logger.info(f"{recipe}, cannot be cut into equal parts that fit")
    elif parts == 1:
        logger.info(f"{recipe}, fits as it is: runtime.micro_batches=1")
    else:
        logger.info(
            f"{recipe}, fits with runtime.micro_batches={parts}: the same step, "
            f"{count_of(share // parts, 'clip')} at a time"
        )
    _say_remat(config, tried, largest)


def _say_remat(config: TrainConfig, tried: dict[int, Trial], largest: int) -> None:
    """Says what computing blocks twice would spare, by the estimate."""
    if config.runtime.remat:
        return
    is_cpu = not tf.config.list_physical_devices("GPU")
    num_classes = config.dataset.num_classes or _NUM_CLASSES
    kept, twice = (estimate_run(config, num_classes, largest, is_cpu, remat).total / 1e9 for remat in (False, True))
    logger.info(
        f"runtime.remat=true computes blocks twice and takes about {max(0.0, kept - twice):.2f} GB less at "
        f"{count_of(largest, 'clip')} (estimated: {twice:.2f} in place of {kept:.2f}); add it to this command to try"
    )
