"""Checks of a configuration beyond the types of its fields; each error names the key and the value."""

import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, get_args

from vswin.errors import InputError
from vswin.schema import list_keys
from vswin.zoo import configured_size, count_parameters

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
_MOST_PARAMETERS = 1e10  # 40 GB


def check_numbers(config: "TrainConfig | EvaluateConfig | ClipConfig") -> None:
    """Checks every number of a configuration, or of a group, against the range of its key."""
    for key, field in list_keys(type(config)).items():
        allowed, value = field.metadata.get("range"), attrgetter(key)(config)
        if allowed is not None and value is not None and value not in allowed:
            or_null = ", or null" if type(None) in get_args(field.type) else ""
            raise InputError(f"{key}={str(value)[:60]}: {allowed}{or_null}")


def check_model(model: "ModelConfig") -> None:
    """Checks that the numbers of `ModelConfig` describe a network that could be built."""
    num_parameters = count_parameters(configured_size(model), 1)
    if num_parameters > _MOST_PARAMETERS:
        raise InputError(
            f"model.name={model.name} with its embed_dim, depths and window_size has {num_parameters:.1e} parameters; "
            f"at most {_MOST_PARAMETERS:.0e}"
        )


def check_clip(clip: "ClipConfig") -> None:
    """Checks `ClipConfig`: choices, and that a frame holds the crop."""
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


def check_augment(augment: "AugmentConfig") -> None:
    """Checks `AugmentConfig`: choices, and the order of pairs."""
    for key in ("crop_area", "crop_aspect"):
        low, high = vars(augment)[key]
        if low > high:
            raise InputError(f"augment.{key}=[{low}, {high}]: the smallest, then the largest")
    _check_one_of("augment.rand_augment", augment.rand_augment, RAND_AUGMENTS)
    if augment.color_jitter[3] > 0.5:
        raise InputError(
            f"augment.color_jitter={augment.color_jitter}: strengths of brightness, contrast, saturation and hue, the "
            "last at most 0.5"
        )


def check_evaluation(config: "EvaluateConfig") -> None:
    """Checks what only an evaluation has."""
    _check_one_of("average", config.average, AVERAGES)
    _check_one_of("weights", config.weights, WEIGHTS)
    if config.weights != "best" and config.run is None:
        raise InputError(f"weights={config.weights} chooses among those of a training run: name it with run=")


def check_run(config: "TrainConfig | EvaluateConfig") -> None:
    """Checks what every run has."""
    _check_one_of("runtime.strategy", config.runtime.strategy, STRATEGIES)
    _check_one_of("runtime.precision", config.runtime.precision, PRECISIONS)


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
    _check_one_of("optimizer.schedule", config.optimizer.schedule, SCHEDULES)
    _check_one_of("optimizer.name", config.optimizer.name, OPTIMIZERS)
    _check_one_of("optimizer.groups", config.optimizer.groups, GROUPS)
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


def _check_one_of(key: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise InputError(
            f"{key}={value}: one of {', '.join('null' if choice is None else str(choice) for choice in choices)}"
        )
