"""Compose a configuration from `configs/` as Hydra does for an entry point; used by the commands of `vswin.cli`."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, ValueType
from hydra.errors import HydraException

from vswin.config.load import CONFIG_DIR, check_overrides, from_run, implied_choices, load_config
from vswin.config.schema import EvaluateConfig, TrainConfig, list_keys
from vswin.errors import InputError

# Lines in Hydra's errors that do not help a user who gave a wrong value.
_ASIDE = re.compile("https://|object_type=|Config search path|provider=")

_MULTIRUN = ("--multirun", "-m", "hydra.mode=MULTIRUN")
# A part of a sweep `a,b`; commas in quotes and in `${}` belong to the part.
_PART = re.compile(r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\$\{[^}]*\}|[^,])+""")

ConfigT = TypeVar("ConfigT", bound=TrainConfig | EvaluateConfig)


def compose_config(name: str, overrides: Sequence[str], schema: type[ConfigT]) -> ConfigT:
    """Composes `configs/<name>.yaml` with the overrides of a command line, e.g. ["model=swin_base"], and checks it.

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
    """Composes and checks an evaluation as `evaluate.py` does; the paths of the weights may have any characters.

    Args:
        overrides: e.g. `["clip.num_clips=1"]`.
        run: the folder of a training run, which sets model, data set and clip.
        init_from: weights; a published name sets its model and its protocol. With `run`, one of its checkpoints.
        clip: values of `clip` that come with the weights; the overrides take precedence.

    Raises:
        InputError: if a key, a choice or a value is wrong, or `run` is not a training run.
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
    store = ConfigStore.instance().store
    store("train_schema", TrainConfig)  # the schemas of `vswin data` build on it
    store(f"{name}_schema", schema)
    # Hydra allows one instance at a time, and an entry point may already run inside one.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"), hydra_errors((HydraException, ValueError)):
            return compose(name, quote_paths(overrides, schema))
    finally:
        GlobalHydra.instance().hydra = outer


def quote_paths(words: Sequence[str], schema: type) -> list[str]:
    """Quotes the values of path keys for Hydra, as a path may have any characters, including `~`.

    Under `--multirun`, the parts of a sweep `a,b` are quoted one by one. All other words, `null`, other sweeps, and
    values already quoted or escaped for Hydra stay as they are.
    """
    keys = list_keys(schema)
    quoted = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and (field := keys.get(key.lstrip("+"))) and field.metadata.get("is_path"):
            word = f"{key}={_quote(value, any(option in words for option in _MULTIRUN))}"
        quoted.append(word)
    return quoted


def _quote(value: str, is_sweep: bool) -> str:
    with suppress(HydraException, ValueError):  # a value outside Hydra's grammar is a path
        parsed = OverridesParser.create().parse_override(f"key={value}")
        read = parsed.value() if parsed.value_type is ValueType.ELEMENT else None
        is_as_hydra_wants = isinstance(read, str) and (read == value or value.lstrip()[:1] in "'\"" or "\\" in value)
        if is_as_hydra_wants or (read is None and parsed.value_type is not ValueType.SIMPLE_CHOICE_SWEEP):
            return value
    if is_sweep and "," in value:
        return ",".join(_quote(part.strip(), False) for part in _PART.findall(value))
    return QuotedString(os.path.expanduser(value), Quote.single).with_quotes()


@contextmanager
def hydra_errors(kinds: tuple[type[Exception], ...] = (HydraException,)) -> Iterator[None]:
    """Turns Hydra's errors about a command line, or errors of other `kinds`, into an `InputError` of one paragraph."""
    try:
        yield
    except kinds as error:
        lines = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        said = [line.strip() for line in "\n".join(lines).splitlines() if not _ASIDE.search(line)]
        text = "; ".join(dict.fromkeys(filter(None, said))).replace(":;", ":")
        raise InputError(f"configuration: {text}") from error
