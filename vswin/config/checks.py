"""Checks of a configuration beyond the types of its fields; each error names the key and the value."""

import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, get_args

from vswin.config.schema import AVERAGES as AVERAGES
from vswin.config.schema import MONITORS, list_keys
from vswin.config.schema import PRECISIONS as PRECISIONS
from vswin.config.schema import SAMPLINGS as SAMPLINGS
from vswin.config.schema import SPACINGS as SPACINGS
from vswin.errors import InputError
from vswin.models.zoo import configured_size, count_parameters

if TYPE_CHECKING:
    from vswin.config.schema import AugmentConfig, ClipConfig, DatasetConfig, EvaluateConfig, ModelConfig, TrainConfig

_MOST_PARAMETERS = 1e10  # 40 GB
_LARGEST_WEIGHT = 1_000_000


def check_values(config: "TrainConfig | EvaluateConfig | ClipConfig") -> None:
    """Checks every value of a configuration, or of a group, against the range or the choices of its key."""
    for key, field in list_keys(type(config)).items():
        value, allowed, choices = attrgetter(key)(config), field.metadata.get("range"), field.metadata.get("choices")
        if choices is not None and value not in choices and not isinstance(value, dict):
            by_name = ", or a weight for each class, e.g. {jump: 2}" if field.type is Any else ""
            listed = ", ".join(map(str, choices)).replace("None", "null")
            raise InputError(f"{key}={value}: one of {listed}{by_name}")
        if allowed is not None and value is not None and value not in allowed:
            or_null = ", or null" if type(None) in get_args(field.type) else ""
            raise InputError(f"{key}={str(value)[:60]}: {allowed}{or_null}")


def check_model(model: "ModelConfig") -> None:
    """Checks that the network of a `ModelConfig` can be built and has at most 1e10 parameters."""
    num_parameters = count_parameters(configured_size(model), 1)
    if num_parameters > _MOST_PARAMETERS:
        raise InputError(
            f"model.name={model.name} with its embed_dim, depths and window_size has {num_parameters:.1e} parameters; "
            f"at most {_MOST_PARAMETERS:.0e}"
        )


def check_clip(clip: "ClipConfig") -> None:
    """Checks that a frame holds the crop, and that `sampling=segments` has one clip."""
    if clip.resize < clip.crop:
        raise InputError(
            f"clip.resize={clip.resize} is smaller than clip.crop={clip.crop}: the short side must hold the "
            f"crop; set clip.resize to {clip.crop} or more, or a smaller clip.crop"
        )
    if clip.sampling == "segments" and clip.num_clips != 1:
        raise InputError(f"clip.num_clips={clip.num_clips}: with clip.sampling=segments one clip covers the video")


def check_augment(augment: "AugmentConfig") -> None:
    """Checks that pairs are in ascending order, and that the hue strength is at most 0.5."""
    for key in ("crop_area", "crop_aspect"):
        low, high = vars(augment)[key]
        if low > high:
            raise InputError(f"augment.{key}=[{low}, {high}]: the smallest, then the largest")
    if augment.color_jitter[3] > 0.5:
        raise InputError(
            f"augment.color_jitter={augment.color_jitter}: strengths of brightness, contrast, saturation and hue, the "
            "last at most 0.5"
        )


def check_folds(dataset: "DatasetConfig") -> None:
    """Checks that nothing else divides a data set that has folds."""
    given = f"dataset.folds={dataset.folds}"
    if dataset.folds is None:
        return
    if dataset.name not in ("folder", "motion"):
        raise InputError(
            f"{given}: dataset={dataset.name} has official lists, which divide it; leave folds out, or take the videos "
            "as dataset=folder"
        )
    for key, role in (("val_list", "validation"), ("test_list", "test")):
        if vars(dataset)[key]:
            raise InputError(
                f"{given} and dataset.{key}={vars(dataset)[key]}: folds choose the {role} videos; leave one of them out"
            )
    if dataset.split > dataset.folds:
        raise InputError(f"dataset.split={dataset.split}: with {given}, the folds are 1 to {dataset.folds}")


def check_task(config: "TrainConfig") -> None:
    """Checks that the monitor fits the task, and the weights of classes that are given by name."""
    task, loss = config.dataset.task, config.loss
    if task not in MONITORS[config.monitor].tasks:
        fitting = ", ".join(key for key, monitor in MONITORS.items() if task in monitor.tasks)
        raise InputError(f"monitor={config.monitor}: with dataset.task={task} one of {fitting}")
    for key, off in (("negative_gamma", None), ("negative_margin", 0)):
        if vars(loss)[key] != off and not config.dataset.is_multi_label:
            raise InputError(
                f"loss.{key}={vars(loss)[key]}: negatives count by themselves only with dataset.task=multi_label"
            )
    for name, weight in loss.class_weights.items() if isinstance(loss.class_weights, dict) else ():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= _LARGEST_WEIGHT:
            raise InputError(
                f"loss.class_weights: the weight of {name!r} is {str(weight)[:60]}; a number above 0 and at most "
                f"{_LARGEST_WEIGHT:,}"
            )


def check_random_is_meant(init_from: str | None, named: Sequence[str]) -> None:
    """Refuses an evaluation of random weights, unless the command line asks for them by "init_from=null"."""
    if init_from is None and "init_from=null" not in named:
        raise InputError(
            "there are no weights to evaluate: name a training run with run=, or a checkpoint or a published model "
            "with init_from= (init_from=null evaluates random weights, which is chance)"
        )


def check_precisions(precisions: Sequence[str]) -> None:
    """Refuses unknown and repeated precisions."""
    for precision in precisions:
        if precision not in PRECISIONS:
            raise InputError(f"--precision {precision}: one or more of {', '.join(PRECISIONS)}")
    if len(set(precisions)) < len(precisions):
        raise InputError(f"--precision {' '.join(precisions)}: each once")


def batch_unit(num_parts: int, in_pairs: bool = False, repeats: int = 1) -> int:
    """Counts the clips of which a batch holds a multiple: equal parts, of whole pairs, and whole groups of repeats."""
    return math.lcm(num_parts * (2 if in_pairs else 1), repeats)


def check_divides(
    batch_size: int, num_replicas: int, micro_batches: int = 1, in_pairs: bool = False, repeats: int = 1
) -> None:
    """Checks that a global batch can be divided equally among devices, and among the micro-batches of each.

    Args:
        batch_size: clips, or videos, of the global batch.
        num_replicas: number of devices.
        micro_batches: number of parts per device.
        in_pairs: whether neighbours in a part are mixed, so that a part must hold an even number.
        repeats: clips of each video in the batch.
    """
    unit = batch_unit(num_replicas * micro_batches, in_pairs, repeats)
    if batch_size % unit == 0:
        return
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
    devices = f"{num_replicas} devices" if num_replicas > 1 else "one device"
    micro = f" with runtime.micro_batches={micro_batches} each" if micro_batches > 1 else ""
    pairs = " in pairs, which augment.mixup and augment.cutmix mix" if in_pairs else ""
    copies = f" with augment.repeats={repeats} clips of each video" if repeats > 1 else ""
    raise InputError(
        f"batch_size={batch_size} cannot be divided among {devices}{micro}{pairs}{copies}; "
        f"the nearest that can: {f'{below} or {above}' if below else above}"
    )


def check_addons(config: "TrainConfig") -> None:
    """Refuses settings that the optimizers of TensorFlow Addons do not support, or were not tested with."""
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
    _check_addons_installed()


def _check_addons_installed() -> None:
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
