"""The schema of a run: one dataclass per config group, and the checks that need several of them.

Default values stand in `configs/*.yaml`, so the fields here have none; the exception is `ModelConfig`, where
`None` means "as the size in `vswin.zoo.SIZES` says". The entry points compose a configuration with Hydra and
hand it to `load_config`; everything below them receives these dataclasses.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vswin.atomic import replacing
from vswin.checks import check_clip, check_model, check_run, check_training
from vswin.errors import InputError, nearest

_PACKAGE = Path(__file__).resolve().parent
# What stands beside the package in a checkout (configs/, data/, train.py, evaluate.py) stands in its folder
# `_root` once installed from a wheel.
ROOT = _PACKAGE / "_root" if (_PACKAGE / "_root").is_dir() else _PACKAGE.parent
CONFIG_DIR = ROOT / "configs"
DATA_DIR = ROOT / "data"

_NOT_COMPARED = ("output_dir", "resume", "patience")

ConfigT = TypeVar("ConfigT", "TrainConfig", "EvaluateConfig")


@dataclass
class ModelConfig:
    """What is trained: a size of `vswin.zoo.SIZES`, its starting weights and the recipe they call for."""

    name: str = MISSING
    init_from: str | None = MISSING
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    backbone_multiplier: float = MISSING
    dropout: float = MISSING
    resize_bias: bool = MISSING
    # None: as in vswin.zoo.SIZES
    embed_dim: int | None = None
    depths: list[int] | None = None
    num_heads: list[int] | None = None
    window_size: list[int] | None = None
    patch_size: list[int] | None = None
    drop_path_rate: float | None = None


@dataclass
class DatasetConfig:
    """Which videos, with which labels: see `vswin.data.catalog`."""

    name: str = MISSING
    root: str = MISSING
    train_list: str | None = MISSING
    val_list: str | None = MISSING
    val_fraction: float = MISSING
    num_classes: int | None = MISSING
    split: int = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    warmup_epochs: float = MISSING
    allow_flip: bool = MISSING
    crop_area: list[float] = MISSING
    max_bad_share: float = MISSING
    decoder: str = MISSING
    clip_timeout_sec: float | None = MISSING
    cache: str = MISSING
    cache_dir: str = MISSING


@dataclass
class ClipConfig:
    """How frames become clips and views; pixels and frames."""

    num_frames: int = MISSING
    frame_stride: int = MISSING
    resize: int = MISSING
    crop: int = MISSING
    num_clips: int = MISSING
    num_crops: int = MISSING
    sampling: str = MISSING
    views_per_step: int = MISSING


@dataclass
class AugmentConfig:
    """Random changes of training clips; one draw per clip."""

    crop_area: list[float] = MISSING
    crop_aspect: list[float] = MISSING
    flip: float = MISSING
    label_smoothing: float = MISSING


@dataclass
class OptimizerConfig:
    """AdamW with parameter groups, and the learning rate over time."""

    learning_rate: float = MISSING
    weight_decay: float = MISSING
    backbone_multiplier: float = MISSING
    beta_1: float = MISSING
    beta_2: float = MISSING
    epsilon: float = MISSING
    clip_norm: float | None = MISSING
    schedule: str = MISSING
    warmup_epochs: float = MISSING
    warmup_ratio: float = MISSING


@dataclass
class RuntimeConfig:
    """How the computation runs on this machine."""

    strategy: str = MISSING
    precision: str = MISSING
    micro_batches: int = MISSING
    remat: bool = MISSING


@dataclass
class LoggerConfig:
    """Which logs a training run writes besides what it prints."""

    tensorboard: bool = MISSING
    csv: bool = MISSING
    wandb: bool = MISSING
    wandb_project: str = MISSING


@dataclass
class TrainConfig:
    """A training run: `configs/train.yaml`."""

    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    augment: AugmentConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    runtime: RuntimeConfig = MISSING
    logger: LoggerConfig = MISSING
    seed: int = MISSING
    epochs: int = MISSING
    patience: int | None = MISSING
    batch_size: int = MISSING
    init_from: str | None = MISSING
    source: str | None = MISSING
    output_dir: str | None = MISSING
    resume: bool = MISSING


@dataclass
class EvaluateConfig:
    """An evaluation: `configs/evaluate.yaml`."""

    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    runtime: RuntimeConfig = MISSING
    run: str | None = MISSING
    batch_size: int | None = MISSING
    init_from: str | None = MISSING
    source: str | None = MISSING
    output_dir: str | None = MISSING
    allow_bad_videos: bool = MISSING


def load_config(composed: DictConfig, schema: type[ConfigT]) -> ConfigT:
    """Turns what Hydra composed into checked dataclasses.

    Args:
        composed: a configuration whose defaults list starts with the schema.
        schema: `TrainConfig` or `EvaluateConfig`.

    Returns:
        An instance of `schema` with every interpolation resolved.

    Raises:
        InputError: if a value is missing, of the wrong type or out of range.
    """
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), composed))
    except OmegaConfBaseException as error:
        raise InputError(f"configuration: {error}") from error
    assert isinstance(config, schema)
    check_model(config.model)
    check_clip(config.clip)
    check_run(config)
    if isinstance(config, TrainConfig):
        check_training(config)
    return config


def from_run(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Replaces the model, the data set and the clip of an evaluation by those of a training run.

    Args:
        composed: what Hydra composed from `configs/evaluate.yaml`.
        overrides: the command line, e.g. `["run=outputs/x", "clip.num_clips=1"]`; what it names keeps the
            composed value.

    Returns:
        `composed` itself if it names no run.

    Raises:
        InputError: if the run does not exist, or the command line names other weights as well.
    """
    if composed.run is None:
        return composed
    named = [override.partition("=")[0] for override in overrides]
    if "init_from" in named:
        raise InputError(f"run={composed.run} and init_from={composed.init_from}: give one of them")
    saved = load_saved(composed.run)
    # Training resizes for random crops, the test has a size of its own.
    del saved.clip["resize"]
    merged = composed.copy()
    for group in ("model", "dataset", "clip"):
        if group not in named:
            merged[group] = OmegaConf.merge(composed[group], saved[group])
    for key in filter(_is_plain, named):
        OmegaConf.update(merged, key, OmegaConf.select(composed, key))
    merged.init_from = composed.run
    merged.output_dir = composed.output_dir or composed.run
    return merged


def load_saved(run: str | Path) -> DictConfig:
    """Reads the configuration that a training run wrote into its folder.

    Raises:
        InputError: if there is none.
    """
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run} is not the folder of a training run: it has no config.yaml")
    saved = OmegaConf.load(path)
    assert isinstance(saved, DictConfig)
    return saved


def differing_keys(config: TrainConfig, run: str | Path) -> list[str]:
    """Lists the keys whose values differ between a configuration and that of an earlier run.

    Where a run writes, what it logs and when it gives up are not compared.

    Returns:
        E.g. `["epochs: 30 there, 20 here"]`.
    """
    here = OmegaConf.structured(config)
    there = load_saved(run)
    compared = [key for key in _keys(TrainConfig) if key not in _NOT_COMPARED and not key.startswith("logger")]
    values = [(key, OmegaConf.select(there, key), OmegaConf.select(here, key)) for key in compared]
    return [f"{key}: {old} there, {new} here" for key, old, new in values if old != new and not OmegaConf.is_dict(new)]


def save_config(config: TrainConfig, path: Path) -> None:
    """Writes a configuration as YAML, every value resolved."""
    with replacing(path) as partial:
        OmegaConf.save(OmegaConf.structured(config), partial)


def check_overrides(overrides: Iterable[str], schema: type) -> None:
    """Checks the names on a command line, so that a misspelt one is answered with the nearest.

    Args:
        overrides: arguments such as `model=swin_base` and `clip.crop=112`; Hydra's own grammar (`+key`,
            `~key`, `hydra.*`, flags) is left to Hydra.
        schema: `TrainConfig` or `EvaluateConfig`.

    Raises:
        InputError: if a group has no such choice, or there is no such key.
    """
    keys = set(_keys(schema))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not _is_plain(key):
            continue
        choices = [path.stem for path in sorted((CONFIG_DIR / key).glob("*.yaml"))]
        if choices:
            for choice in value.split(","):
                if choice != "null" and choice not in choices:
                    raise InputError(f"no {key} is called {choice!r}; {nearest(choice, choices)}")
        elif key not in keys:
            raise InputError(f"there is no key {key!r}; {nearest(key, sorted(keys))}")


def _is_plain(key: str) -> bool:
    return key.replace(".", "_").isidentifier() and not key.startswith("hydra")


def _keys(schema: type, prefix: str = "") -> Iterable[str]:
    for field in dataclasses.fields(schema):
        yield prefix + field.name
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _keys(field.type, f"{prefix}{field.name}.")
