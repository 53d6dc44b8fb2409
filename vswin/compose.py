"""Composes a configuration from `configs/` as Hydra would for an entry point; for the commands of `vswin.cli`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from vswin.config import CONFIG_DIR, check_overrides, from_run, implied_choices, load_config
from vswin.errors import InputError
from vswin.schema import DataCheckConfig, DataPrepareConfig, DataShowConfig, EvaluateConfig, TrainConfig

# Lines of Hydra's that help nobody who only gave a wrong value.
_ASIDE = re.compile("https://|object_type=|Config search path|provider=")

ConfigT = TypeVar("ConfigT", TrainConfig, EvaluateConfig, DataCheckConfig, DataPrepareConfig, DataShowConfig)


def compose_config(name: str, overrides: Sequence[str], schema: type[ConfigT]) -> ConfigT:
    """Composes `configs/<name>.yaml` with what a command line says.

    Args:
        name: the file, without `.yaml`.
        overrides: e.g. `["model=swin_base", "clip.crop=112"]`.
        schema: the dataclass of the command.

    Returns:
        The configuration, checked.

    Raises:
        InputError: if a key, a choice or a value is wrong.
    """
    return load_config(_compose(name, overrides, schema), schema)


def compose_evaluation(
    overrides: Sequence[str],
    run: str | None = None,
    init_from: str | None = None,
    clip: Mapping[str, Any] | None = None,
) -> EvaluateConfig:
    """Composes an evaluation as `evaluate.py` does, of weights whose paths may have any characters.

    Args:
        overrides: e.g. `["clip.num_clips=1"]`.
        run: the folder of a training run; its model, data set and clip are taken.
        init_from: weights; a published name brings its model and its protocol. With `run`, one of its checkpoints.
        clip: values of `clip` that the weights bring; the overrides come first.

    Returns:
        The configuration, checked.

    Raises:
        InputError: if a key, a choice or a value is wrong, or the run is none.
    """
    implied = implied_choices([f"init_from={init_from}", *overrides])
    composed = _compose("evaluate", [*overrides, *implied], EvaluateConfig)
    named = [override.partition("=")[0] for override in overrides]
    for key, value in (clip or {}).items():
        if not {"clip", f"clip.{key}"} & set(named):
            composed.clip[key] = value
    composed.run = run
    composed = from_run(composed, overrides)
    if init_from is not None:
        composed.init_from = init_from
    return load_config(composed, EvaluateConfig)


def _compose(name: str, overrides: Sequence[str], schema: type) -> Any:
    check_overrides(overrides, schema)
    ConfigStore.instance().store(f"{name}_schema", schema)
    # An entry point that Hydra started is inside of Hydra, of which there can be one at a time.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"), hydra_errors():
            return compose(name, list(overrides))
    except ValueError as error:
        raise InputError(f"configuration: {error}") from error
    finally:
        GlobalHydra.instance().hydra = outer


@contextmanager
def hydra_errors() -> Iterator[None]:
    """Says in one paragraph what Hydra finds wrong with a command line.

    Raises:
        InputError: for an error of Hydra's.
    """
    try:
        yield
    except HydraException as error:
        lines = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        said = [line.strip() for line in "\n".join(lines).splitlines() if not _ASIDE.search(line)]
        text = "; ".join(dict.fromkeys(filter(None, said))).replace(":;", ":")
        raise InputError(f"configuration: {text}") from error
