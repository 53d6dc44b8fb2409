"""Turn what Hydra composed into checked dataclasses.

The entry points compose a configuration with Hydra and pass it to `load_config`; all other code receives the
dataclasses of `vswin.config.schema`.
"""

import dataclasses
import difflib
import io
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vswin.atomic import replacing
from vswin.config.checks import (
    check_addons,
    check_augment,
    check_clip,
    check_folds,
    check_model,
    check_task,
    check_values,
)
from vswin.config.schema import EvaluateConfig, TrainConfig, list_keys
from vswin.errors import InputError, nearest
from vswin.weights.published import find_published

_PACKAGE = Path(__file__).resolve().parents[1]
# configs/, data/, train.py and evaluate.py are beside the package in a checkout, and in its folder `_root` in an
# installation from a wheel.
ROOT = _PACKAGE / "_root" if (_PACKAGE / "_root").is_dir() else _PACKAGE.parent
CONFIG_DIR = ROOT / "configs"
DATA_DIR = ROOT / "data"

_MAX_SAVED_CHARS = 100_000
_MAX_SAVED_DEPTH = 20
# Keys of where a run writes, when it stops, and how it computes its steps without changing their results.
_NOT_COMPARED = (
    *("output_dir", "resume", "patience", "save_minutes", "save_steps", "keep_states"),
    *("runtime.strategy", "runtime.micro_batches", "runtime.remat", "runtime.jit"),
    *("dataset.cache_dir", "dataset.clip_timeout_sec", "dataset.isolate", "dataset.max_bad_share", "dataset.test_list"),
    "dataset.title",
)
_LISTS = ("dataset.train_list", "dataset.val_list", "dataset.test_list")

ConfigT = TypeVar("ConfigT", bound=TrainConfig | EvaluateConfig)


def load_config(composed: DictConfig, schema: type[ConfigT]) -> ConfigT:
    """Turns what Hydra composed into checked dataclasses, with all interpolations resolved.

    Args:
        composed: a configuration whose defaults list starts with the schema.
        schema: the dataclass of the command, e.g. `TrainConfig`.

    Raises:
        InputError: if a value is missing, of the wrong type or out of range, or conflicts with another one.
    """
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), composed))
    except OmegaConfBaseException as error:
        raise InputError(f"configuration: {error}") from error
    assert isinstance(config, schema)
    check_values(config)
    check_clip(config.clip)
    check_folds(config.dataset)
    check_model(config.model)
    if isinstance(config, TrainConfig):
        check_augment(config.augment)
        check_task(config)
        if config.optimizer.name == "adamw_addons":
            check_addons(config)
    elif config.weights != "best" and config.run is None:
        raise InputError(f"weights={config.weights} chooses among those of a training run: name it with run=")
    return config


def from_run(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Replaces the model, data set and clip of an evaluation by those of the training run that it names, if any.

    Args:
        composed: the configuration that Hydra composed from `configs/evaluate.yaml`.
        overrides: the command line, e.g. `["run=outputs/x", "clip.num_clips=1"]`; its keys keep their composed values.

    Raises:
        InputError: if the run does not exist, or the command line names other weights as well.
    """
    if composed.run is None:
        return composed
    named = [override.partition("=")[0] for override in overrides]
    if "init_from" in named:
        raise InputError(f"run={composed.run} and init_from={composed.init_from}: give one of them")
    saved, merged = load_saved(composed.run), composed.copy()
    try:
        # Training resizes for random crops; the test has its own size.
        saved.clip.pop("resize", None)
        for group in ("model", "dataset", "clip"):
            if group not in named:
                merged[group] = OmegaConf.merge(composed[group], saved[group])
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{composed.run}/config.yaml is not that of a run of this version: {error}") from error
    for key in filter(_is_plain, named):
        OmegaConf.update(merged, key, OmegaConf.select(composed, key))
    if set(_LISTS) & set(named):
        # A list on the command line replaces all lists of the run.
        merged.dataset.update({key.partition(".")[2]: None for key in set(_LISTS) - set(named)})
    if {"dataset.root", *_LISTS} & set(named) and "dataset.folds" not in named:
        merged.dataset.folds = None  # other videos are tested as a whole
    # The folder of a run stands for its better weights, raw or averaged.
    merged.init_from = composed.run
    if composed.weights in ("raw", "ema"):
        name = "best" if composed.weights == "raw" else "best_ema"
        files = sorted(Path(composed.run, "checkpoints").glob(f"{name}.*"))
        if not files:
            raise InputError(
                f"weights={composed.weights}: there is no {name} in {composed.run}/checkpoints; only a run with "
                "optimizer.ema_decay averages weights"
            )
        merged.init_from = str(files[-1])
    merged.output_dir = composed.output_dir or composed.run
    return merged


def implied_choices(overrides: Sequence[str]) -> list[str]:
    """Chooses the model and the data set of a published name, unless the command line chooses them.

    E.g. ["init_from=swin_tiny_patch244_window877_kinetics400_1k"] implies ["model=swin_tiny", "dataset=kinetics400"].
    """
    named = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    try:
        weights = find_published(named.get("init_from", ""))
    except InputError:
        return []
    choices = {"model": weights.size, "dataset": weights.dataset}
    return [f"{group}={choice}" for group, choice in choices.items() if group not in named]


def load_saved(run: str | Path) -> DictConfig:
    """Reads the configuration in the folder of a training run; the folder may come from somebody else.

    Raises:
        InputError: if the file is missing or damaged, or holds something that no run writes.
    """
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run} is not the folder of a training run: it has no config.yaml")
    try:
        text = path.read_text(encoding="utf-8")
        _check_plain(path, text)
        saved = OmegaConf.load(io.StringIO(text))
    except InputError:
        raise
    # PyYAML and OmegaConf raise these for text that is not a configuration.
    except (
        yaml.YAMLError,
        OmegaConfBaseException,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
    ) as error:
        raise InputError(f"{path} cannot be read: {error}; copy it again, or name another run") from error
    except (AttributeError, AssertionError):
        saved = None
    if not isinstance(saved, DictConfig):
        raise InputError(f"{path} is no configuration; copy it again, or name another run")
    return saved


def saved_values(run: str | Path) -> dict[str, Any]:
    """Reads the configuration of a run as plain values by key, e.g. {"clip.crop": 224, "model.freeze": []}."""
    return dict(flatten(OmegaConf.to_container(load_saved(run))))


def flatten(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    """Lists the values of nested dictionaries by the dotted names of their keys, e.g. ("clip.crop", 224)."""
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from flatten(inner, f"{key}.{name}" if key else str(name))


def _check_plain(path: Path, text: str) -> None:
    """Refuses interpolations, which could read the environment, and YAML aliases, which could multiply the text."""
    if len(text) > _MAX_SAVED_CHARS:
        raise InputError(f"{path} has {len(text):,} characters, far more than a run writes; name another run")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_SAVED_DEPTH:  # PyYAML takes minutes for thousands of brackets
            raise InputError(f"{path}:{event.start_mark.line + 1}: nested deeper than a run writes; name another run")
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.ScalarEvent) and "${" in event.value):
            raise InputError(f"{path}:{event.start_mark.line + 1}: a reference, which no run writes; name another run")


def differing_keys(config: TrainConfig, run: str | Path, passed_over: Collection[str] = ()) -> list[str]:
    """Lists the keys whose values differ from those of an earlier run, e.g. ["epochs: 30 there, 20 here"].

    It does not compare where a run writes, what it logs, when it stops, how many devices share a step, in which process
    it decodes, and the keys in `passed_over`.
    """
    here, there = OmegaConf.structured(config), load_saved(run)
    differing = []
    for key, field in list_keys(TrainConfig).items():
        is_group = dataclasses.is_dataclass(field.type)
        if is_group or key in _NOT_COMPARED or key in passed_over or key.startswith("logger"):
            continue
        new = OmegaConf.select(here, key)
        # A key that an earlier version did not know counts as equal.
        old = OmegaConf.select(there, key, default=new)
        is_same_frames = key == "dataset.cache" and {old, new} <= {"ram", "disk"}
        if old != new and not is_same_frames:
            differing.append(f"{key}: {old} there, {new} here")
    return differing


def save_config(config: TrainConfig, path: Path) -> None:
    """Writes a configuration as YAML with all values resolved."""
    with replacing(path) as partial:
        OmegaConf.save(OmegaConf.structured(config), partial)


def check_overrides(overrides: Iterable[str], schema: type) -> None:
    """Checks the names on a command line; the error for a misspelt name suggests the nearest one.

    Hydra itself checks its own grammar (`~key`, `hydra.*`, options).

    Raises:
        InputError: if a key, or a choice of a group, does not exist.
    """
    keys = list_keys(schema)
    for override in overrides:
        key, equals, value = override.partition("=")
        # With `+`, Hydra would add a key that no code reads.
        key = key.lstrip("+")
        if equals and not key:
            raise InputError(f"{override[:80]!r} has no key before the `=`; see --help")
        if re.search(r"\d{300}", value):  # Hydra and OmegaConf cannot handle it
            raise InputError(f"{key}={value[:60]}...: there is no number of so many digits in a configuration")
        if not equals or not _is_plain(key):
            continue
        choices = list_choices(key)
        if choices:
            for choice in value.split(","):
                if choice != "null" and choice not in choices:
                    raise InputError(f"no {key} is called {choice!r}; {nearest(choice, choices)}")
        elif key not in keys:
            raise InputError(f"there is no key {key!r}; {_nearest_key(key, sorted(keys))}")


def _nearest_key(key: str, keys: Sequence[str]) -> str:
    """Suggests similar keys, first keys with the same last word or its initials, e.g. "lr" for "learning_rate"."""
    group, _, word = key.rpartition(".")
    same = []
    for other in keys:
        last = other.rpartition(".")[2]
        if word == last or (len(word) > 1 and word == "".join(part[0] for part in last.split("_"))):
            same.append(other)
    parents = sorted({other.rpartition(".")[0] for other in same})
    close = difflib.get_close_matches(group, parents, n=1) if group else parents
    if not close:
        return nearest(key, keys)
    return f"did you mean {' or '.join(repr(other) for other in same if other.rpartition('.')[0] in close)}?"


def list_choices(group: str) -> list[str]:
    """Lists the options of a group, e.g. "swin_tiny" of "model"; empty if the group does not exist."""
    groups = {path.name: path for path in CONFIG_DIR.iterdir() if path.is_dir()}
    return sorted(path.stem for path in groups[group].glob("*.yaml")) if group in groups else []


def _is_plain(key: str) -> bool:
    return key.replace(".", "_").isidentifier() and not key.startswith("hydra")
