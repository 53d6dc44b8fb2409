"""Composes a configuration from `configs/` as Hydra would for an entry point; for the commands of `vswin.cli`."""

from collections.abc import Sequence
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from vswin.config import CONFIG_DIR, check_overrides, load_config
from vswin.errors import InputError
from vswin.schema import DataCheckConfig, DataPrepareConfig, DataShowConfig, EvaluateConfig, TrainConfig

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
    check_overrides(overrides, schema)
    ConfigStore.instance().store(f"{name}_schema", schema)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            composed = compose(name, list(overrides))
        except (HydraException, ValueError) as error:
            raise InputError(f"configuration: {error}") from error
        return load_config(composed, schema)
