"""Checks of a configuration beyond the types of its fields; each error names the key and the value."""

import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vswin.errors import InputError

if TYPE_CHECKING:
    from vswin.schema import AugmentConfig, ClipConfig, DatasetConfig, EvaluateConfig, ModelConfig, TrainConfig

PRECISIONS = ("float32", "bfloat16", "float16")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
DECODERS = ("auto", "opencv", "pyav")
CACHES = ("none", "ram", "disk")
SAMPLINGS = ("dense", "segments")
SPACINGS = ("centred", "end_to_end")
SOURCES = (None, "videos", "tfds")
AVERAGES = ("prob", "score")
WEIGHTS = ("best", "raw", "ema")
RAND_AUGMENTS = ("none", "official", "no_flip")
OPTIMIZERS = ("adamw", "adamw_addons")
GROUPS = ("official", "mmaction2", "backbone_and_head")
SCHEDULES = ("cosine", "cosine_per_epoch")


def check_model(model: "ModelConfig") -> None:
    """Checks the fields of `ModelConfig` whose mistakes would surface late."""
    if not 0 <= model.dropout < 1:
        raise InputError(f"model.dropout={model.dropout}: a share from 0 up to but not 1")
    _check_at_least("model.freeze_stages", model.freeze_stages, 0)
    for key, triple in {"window_size": model.window_size, "patch_size": model.patch_size}.items():
        if triple is not None and (len(triple) != 3 or min(triple) < 1):
            raise InputError(f"model.{key}={triple}: three numbers (time, height, width), each at least 1")


def check_clip(clip: "ClipConfig") -> None:
    """Checks `ClipConfig`: counts, choices, and that a frame holds the crop."""
    for key in ("num_frames", "frame_stride", "resize", "crop", "num_clips", "views_per_step"):
        _check_at_least(f"clip.{key}", vars(clip)[key], 1)
    _check_one_of("clip.sampling", clip.sampling, SAMPLINGS)
    _check_one_of("clip.spacing", clip.spacing, SPACINGS)
    _check_one_of("clip.num_crops", clip.num_crops, (1, 3))
    if clip.resize < clip.crop:
        raise InputError(
            f"clip.resize={clip.resize} is smaller than clip.crop={clip.crop}: the short side must hold the "
            f"crop; set clip.resize to {clip.crop} or more, or a smaller clip.crop"
        )
    if clip.sampling == "segments" and clip.num_clips != 1:
        raise InputError(f"clip.num_clips={clip.num_clips}: with clip.sampling=segments one clip covers the video")


def check_dataset(dataset: "DatasetConfig") -> None:
    """Checks the choices of `DatasetConfig`; whether there is such a data set is for the catalog to say."""
    _check_one_of("dataset.source", dataset.source, SOURCES)
    _check_one_of("dataset.decoder", dataset.decoder, DECODERS)
    _check_one_of("dataset.cache", dataset.cache, CACHES)
    timeout_sec = dataset.clip_timeout_sec
    if timeout_sec is not None and timeout_sec <= 0:
        raise InputError(f"dataset.clip_timeout_sec={timeout_sec}: seconds above 0, or null for no limit")


def check_augment(augment: "AugmentConfig") -> None:
    """Checks `AugmentConfig`: shares, ranges, and what excludes each other."""
    for key in ("flip", "erasing", "label_smoothing"):
        _check_share(f"augment.{key}", vars(augment)[key])
    low, high = _pair("augment.crop_area", augment.crop_area)
    if not 0 < low <= high <= 1:
        raise InputError(f"augment.crop_area=[{low}, {high}]: shares of the frame, 0 < smallest <= largest <= 1")
    low, high = _pair("augment.crop_aspect", augment.crop_aspect)
    if not 0 < low <= high:
        raise InputError(f"augment.crop_aspect=[{low}, {high}]: width / height with 0 < smallest <= largest")
    _check_one_of("augment.rand_augment", augment.rand_augment, RAND_AUGMENTS)
    if not 0 <= augment.rand_augment_ops <= 18:
        raise InputError(f"augment.rand_augment_ops={augment.rand_augment_ops}: 0 to 18 different operations")
    if not 0 <= augment.rand_augment_magnitude <= 30:
        raise InputError(f"augment.rand_augment_magnitude={augment.rand_augment_magnitude}: 0 to 30, in imgaug's scale")
    _check_color_jitter(augment.color_jitter)
    for key in ("mixup", "cutmix"):
        alpha = vars(augment)[key]
        # Below, most draws of Beta(alpha, alpha) are 0 or 1 within the precision of numbers.
        if alpha != 0 and not 0.05 <= alpha <= 100:
            raise InputError(f"augment.{key}={alpha}: alpha of a Beta distribution, 0.05 to 100, or 0 for none")
    _check_at_least("augment.repeats", augment.repeats, 1)


def check_evaluation(config: "EvaluateConfig") -> None:
    """Checks what only an evaluation has."""
    _check_one_of("average", config.average, AVERAGES)
    _check_one_of("weights", config.weights, WEIGHTS)
    if config.weights != "best" and config.run is None:
        raise InputError(f"weights={config.weights} chooses among those of a training run: name it with run=")


def check_run(config: "TrainConfig | EvaluateConfig") -> None:
    """Checks what every run has."""
    if config.batch_size is not None:
        _check_at_least("batch_size", config.batch_size, 1)
    _check_one_of("runtime.strategy", config.runtime.strategy, STRATEGIES)
    _check_one_of("runtime.precision", config.runtime.precision, PRECISIONS)
    _check_at_least("runtime.micro_batches", config.runtime.micro_batches, 1)


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


def check_divides(
    batch_size: int, num_replicas: int, micro_batches: int = 1, in_pairs: bool = False, repeats: int = 1
) -> None:
    """Checks that a global batch can be divided among devices, and what each gets into micro-batches.

    Args:
        batch_size: clips, or videos, of the global batch.
        num_replicas: devices, each of which gets as much.
        micro_batches: parts of what a device gets.
        in_pairs: whether neighbours in a part are mixed, so that it must hold an even number.
        repeats: clips of each video in the batch.

    Raises:
        InputError: if it cannot; names the nearest sizes that can.
    """
    unit = math.lcm(num_replicas * micro_batches * (2 if in_pairs else 1), repeats)
    if batch_size % unit == 0:
        return
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
    nearest = f"{below} or {above}" if below else str(above)
    devices = f"{num_replicas} devices" if num_replicas > 1 else "one device"
    micro = f" with runtime.micro_batches={micro_batches} each" if micro_batches > 1 else ""
    pairs = " in pairs, which augment.mixup and augment.cutmix mix" if in_pairs else ""
    copies = f" with augment.repeats={repeats} clips of each video" if repeats > 1 else ""
    raise InputError(
        f"batch_size={batch_size} cannot be divided among {devices}{micro}{pairs}{copies}; "
        f"the nearest that can: {nearest}"
    )


def check_training(config: "TrainConfig") -> None:
    """Checks what only a training run has."""
    _check_at_least("epochs", config.epochs, 1)
    if config.patience is not None:
        _check_at_least("patience", config.patience, 1)
    _check_at_least("keep_states", config.keep_states, 1)
    if config.save_steps is not None:
        _check_at_least("save_steps", config.save_steps, 1)
    if config.save_minutes is not None and config.save_minutes <= 0:
        raise InputError(f"save_minutes={config.save_minutes}: minutes above 0, or null for none within an epoch")
    _check_at_least("seed", config.seed, 0)
    _check_one_of("optimizer.schedule", config.optimizer.schedule, SCHEDULES)
    _check_one_of("optimizer.name", config.optimizer.name, OPTIMIZERS)
    _check_one_of("optimizer.groups", config.optimizer.groups, GROUPS)
    if not 0 < config.optimizer.layer_decay <= 1:
        raise InputError(f"optimizer.layer_decay={config.optimizer.layer_decay}: above 0 and up to 1, which is none")
    ema_decay = config.optimizer.ema_decay
    if ema_decay is not None and not 0 < ema_decay < 1:
        raise InputError(f"optimizer.ema_decay={ema_decay}: between 0 and 1, or null for no average of the weights")
    _check_share("dataset.max_bad_share", config.dataset.max_bad_share)
    _check_share("optimizer.warmup_ratio", config.optimizer.warmup_ratio)
    if config.optimizer.name == "adamw_addons":
        _check_addons(config)
        _check_addons_installed()


def _check_addons(config: "TrainConfig") -> None:
    """Refuses what the optimizers of TensorFlow Addons cannot do or were not tested with."""
    optimizer, model = config.optimizer, config.model
    settings: list[tuple[str, Any, Any]] = [
        ("optimizer.clip_norm", optimizer.clip_norm, None),
        ("optimizer.ema_decay", optimizer.ema_decay, None),
        ("optimizer.layer_decay", optimizer.layer_decay, 1.0),
        ("model.freeze_stages", model.freeze_stages, 0),
        ("model.freeze", list(model.freeze), []),
    ]
    for key, value, without in settings:
        if value != without:
            off = "null" if without is None else without
            raise InputError(
                f"{key}={value} does not go with optimizer=adamw_addons; use optimizer=adamw, or {key}={off}"
            )
    if config.runtime.precision == "float16":
        raise InputError(
            "runtime.precision=float16 does not go with optimizer=adamw_addons, which cannot scale losses; use "
            "optimizer=adamw, or runtime.precision=bfloat16 or float32"
        )


def _check_addons_installed() -> None:
    """Refuses the optimizers of TensorFlow Addons where they cannot be imported."""
    tensorflow = importlib.metadata.version("tensorflow")
    if tensorflow.startswith("2.15.") and importlib.util.find_spec("tensorflow_addons") is not None:
        return
    raise InputError(
        "optimizer=adamw_addons needs TensorFlow Addons, which ended with TensorFlow 2.15 and Python 3.11; here are "
        f"TensorFlow {tensorflow} and Python {platform.python_version()}. Use optimizer=adamw, or an environment of "
        "its own, in which `.venv-addons/bin/python train.py optimizer=adamw_addons ...` then trains: `make "
        "install-addons` makes it, as do\n"
        "  python3.11 -m venv .venv-addons\n"
        "  .venv-addons/bin/pip install --constraint constraints-addons.txt --editable '.[addons]'"
    )


def _check_color_jitter(strengths: Sequence[float]) -> None:
    if len(strengths) != 4 or min(strengths) < 0 or strengths[3] > 0.5:
        raise InputError(
            f"augment.color_jitter={list(strengths)}: four strengths of at least 0 (brightness, contrast, saturation, "
            "hue), the last at most 0.5"
        )


def _pair(key: str, values: Sequence[float]) -> Sequence[float]:
    if len(values) != 2:
        raise InputError(f"{key}={list(values)}: two numbers, the smallest and the largest")
    return values


def _check_share(key: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise InputError(f"{key}={share}: a share between 0 and 1")


def _check_one_of(key: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise InputError(
            f"{key}={value}: one of {', '.join('null' if choice is None else str(choice) for choice in choices)}"
        )


def _check_at_least(key: str, value: int, smallest: int) -> None:
    if value < smallest:
        raise InputError(f"{key}={value}: at least {smallest}")
