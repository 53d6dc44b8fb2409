"""Checks of a configuration beyond the types of its fields; each error names the key and the value."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vswin.errors import InputError

if TYPE_CHECKING:
    from vswin.config import ClipConfig, EvaluateConfig, ModelConfig, TrainConfig

PRECISIONS = ("float32", "bfloat16", "float16")
STRATEGIES = ("auto", "one_device", "mirrored")
DECODERS = ("auto", "opencv", "pyav")
CACHES = ("none", "ram", "disk")
SAMPLINGS = ("dense", "segments")
SCHEDULES = ("cosine", "cosine_per_epoch")


def check_model(model: "ModelConfig") -> None:
    """Checks the fields of `ModelConfig` whose mistakes would surface late."""
    if not 0 <= model.dropout < 1:
        raise InputError(f"model.dropout={model.dropout}: a share from 0 up to but not 1")
    for key, triple in {"window_size": model.window_size, "patch_size": model.patch_size}.items():
        if triple is not None and (len(triple) != 3 or min(triple) < 1):
            raise InputError(f"model.{key}={triple}: three numbers (time, height, width), each at least 1")


def check_clip(clip: "ClipConfig") -> None:
    """Checks `ClipConfig`: counts, choices, and that a frame holds the crop."""
    for key in ("num_frames", "frame_stride", "resize", "crop", "num_clips", "views_per_step"):
        _check_at_least(f"clip.{key}", vars(clip)[key], 1)
    _check_one_of("clip.sampling", clip.sampling, SAMPLINGS)
    _check_one_of("clip.num_crops", clip.num_crops, (1, 3))
    if clip.resize < clip.crop:
        raise InputError(
            f"clip.resize={clip.resize} is smaller than clip.crop={clip.crop}: the short side must hold the "
            f"crop; set clip.resize to {clip.crop} or more, or a smaller clip.crop"
        )
    if clip.sampling == "segments" and clip.num_clips != 1:
        raise InputError(f"clip.num_clips={clip.num_clips}: with clip.sampling=segments one clip covers the video")


def check_run(config: "TrainConfig | EvaluateConfig") -> None:
    """Checks what every run has."""
    if config.batch_size is not None:
        _check_at_least("batch_size", config.batch_size, 1)
    _check_one_of("runtime.strategy", config.runtime.strategy, STRATEGIES)
    _check_one_of("runtime.precision", config.runtime.precision, PRECISIONS)
    _check_at_least("runtime.micro_batches", config.runtime.micro_batches, 1)
    _check_one_of("dataset.decoder", config.dataset.decoder, DECODERS)
    _check_one_of("dataset.cache", config.dataset.cache, CACHES)
    timeout_sec = config.dataset.clip_timeout_sec
    if timeout_sec is not None and timeout_sec <= 0:
        raise InputError(f"dataset.clip_timeout_sec={timeout_sec}: seconds above 0, or null for no limit")


def check_random_is_meant(init_from: str | None, named: Sequence[str]) -> None:
    """Checks that an evaluation of random weights was asked for.

    Args:
        init_from: the weights; None for random ones.
        named: what the command line says, e.g. `["init_from=null"]`.

    Raises:
        InputError: if nobody asked for them.
    """
    if init_from is None and "init_from=null" not in named:
        raise InputError(
            "there are no weights to evaluate: name a training run with run=, or a checkpoint or a published model "
            "with init_from= (init_from=null evaluates random weights, which is chance)"
        )


def check_divides(batch_size: int, num_replicas: int, micro_batches: int = 1) -> None:
    """Checks that a global batch can be divided among devices, and what each gets into micro-batches.

    Args:
        batch_size: clips, or videos, of the global batch.
        num_replicas: devices, each of which gets as much.
        micro_batches: parts of what a device gets.

    Raises:
        InputError: if it cannot; names the nearest sizes that can.
    """
    parts = num_replicas * micro_batches
    if batch_size % parts == 0:
        return
    below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
    nearest = f"{below} or {above}" if below else str(above)
    devices = f"{num_replicas} devices" if num_replicas > 1 else "one device"
    micro = f" with runtime.micro_batches={micro_batches} each" if micro_batches > 1 else ""
    raise InputError(
        f"batch_size={batch_size} cannot be divided among {devices}{micro}; the nearest that can: {nearest}"
    )


def check_training(config: "TrainConfig") -> None:
    """Checks what only a training run has."""
    _check_at_least("epochs", config.epochs, 1)
    if config.patience is not None:
        _check_at_least("patience", config.patience, 1)
    _check_at_least("seed", config.seed, 0)
    _check_one_of("optimizer.schedule", config.optimizer.schedule, SCHEDULES)
    shares: Mapping[str, float] = {
        "augment.flip": config.augment.flip,
        "augment.label_smoothing": config.augment.label_smoothing,
        "dataset.max_bad_share": config.dataset.max_bad_share,
        "optimizer.warmup_ratio": config.optimizer.warmup_ratio,
    }
    for key, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"{key}={share}: a share between 0 and 1")
    low, high = _pair("augment.crop_area", config.augment.crop_area)
    if not 0 < low <= high <= 1:
        raise InputError(f"augment.crop_area=[{low}, {high}]: shares of the frame, 0 < smallest <= largest <= 1")
    low, high = _pair("augment.crop_aspect", config.augment.crop_aspect)
    if not 0 < low <= high:
        raise InputError(f"augment.crop_aspect=[{low}, {high}]: width / height with 0 < smallest <= largest")


def _pair(key: str, values: Sequence[float]) -> Sequence[float]:
    if len(values) != 2:
        raise InputError(f"{key}={list(values)}: two numbers, the smallest and the largest")
    return values


def _check_one_of(key: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise InputError(f"{key}={value}: one of {', '.join(str(choice) for choice in choices)}")


def _check_at_least(key: str, value: int, smallest: int) -> None:
    if value < smallest:
        raise InputError(f"{key}={value}: at least {smallest}")
