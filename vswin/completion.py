"""Shell completion: what a TAB offers after `vswin`.

All of it is read from the parser, the files of `configs/` and the schemas, so a new command or key needs nothing here.
"""

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import argcomplete

from vswin.config import CONFIG_DIR, list_choices
from vswin.config_help import read_defaults
from vswin.published import all_published
from vswin.schema import DataCheckConfig, DataPrepareConfig, DataShowConfig, EvaluateConfig, TrainConfig, list_keys
from vswin.zoo import SIZES

Completer = Callable[..., list[str]]

_SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "data_check": DataCheckConfig,
    "data_prepare": DataPrepareConfig,
    "data_show": DataShowConfig,
}
_HYDRA_OPTIONS = {"--help": None, "--multirun": None, "--resolve": None, "--cfg": ("job", "hydra", "all")}


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and ends the program, if it is a shell that asks (by the variable `_ARGCOMPLETE`)."""
    for command in _commands(parser):
        _add_completers(command)
    argcomplete.autocomplete(parser, default_completer=complete_path)  # type: ignore[arg-type]


def script(shell: str) -> str:
    """Writes what a shell has to read once; each TAB then runs `vswin` itself.

    Args:
        shell: "bash", "zsh" or "fish".
    """
    return argcomplete.shellcode(["vswin"], shell=shell)


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _commands(command)


def _add_completers(command: argparse.ArgumentParser) -> None:
    words = command.prog.split()[1:]
    if words in (["train"], ["evaluate"]):  # which are Hydra's to parse
        command.add_argument("overrides", metavar="KEY=VALUE", nargs="*")
        for option, choices in _HYDRA_OPTIONS.items():
            if choices:
                command.add_argument(option, choices=choices)
            else:
                command.add_argument(option, action="store_true")
    for action in command._actions:
        completer = _find_completer("_".join(words), action)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]


def _find_completer(command: str, action: argparse.Action) -> Completer | None:
    metavar = str(action.metavar)
    if metavar.endswith("KEY=VALUE"):
        is_evaluation = action.option_strings or command == "bench_eval"
        config = command if command in _SCHEMAS else "evaluate" if is_evaluation else "train"
        return partial(complete_override, config=config, start=metavar.removesuffix("KEY=VALUE"))
    if action.dest == "source":
        return lambda **_: sorted({copy.name for weights in all_published() for copy in weights.sources})
    if action.dest == "model" and not action.required:
        return lambda **_: list(SIZES)
    if action.dest in ("model", "weights"):
        return complete_weights
    return None


def complete_weights(prefix: str, **_: object) -> list[str]:
    """Offers published names, files and folders."""
    names = [weights.name for weights in all_published() if weights.name.startswith(prefix)]
    return names + complete_path(prefix)


def complete_path(prefix: str, **_: object) -> list[str]:
    """Offers the files and folders of which a path begins so; none where the folder cannot be read."""
    folder, name = os.path.split(prefix)
    try:
        entries = sorted(Path(os.path.expanduser(folder) or ".").iterdir())
    except OSError:
        return []
    found = [entry for entry in entries if entry.name.startswith(name) and (name or not entry.name.startswith("."))]
    return [os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "") for entry in found]


def complete_override(prefix: str, config: str, start: str = "", **_: object) -> list[str]:
    """Offers keys of a configuration, level by level, and behind the `=` what the key can be set to.

    Args:
        prefix: the word so far, e.g. "optimizer.", "model=swin_" or "model=swin_tiny,".
        config: which configuration, e.g. "train".
        start: what every key begins with, e.g. "runtime.".

    Returns:
        Whole words, e.g. `["model=swin_tiny"]`. A group comes as "optimizer=" and as "optimizer.".
    """
    key, equals, value = prefix.partition("=")
    if equals:
        before, comma, last = value.rpartition(",")
        return [f"{key}={before}{comma}{choice}" for choice in _values(config, key, last)]
    keys = {*list_keys(_SCHEMAS[config]), *read_defaults(CONFIG_DIR / f"{config}.yaml")}
    parents = {name.rpartition(".")[0] for name in keys}
    depth = max(prefix, start, key=len).count(".")
    near = sorted(name for name in keys if name.startswith(start) and name.count(".") == depth)
    offered = [word for name in near for word in (f"{name}=", *([f"{name}."] if name in parents else []))]
    return [word for word in offered if word.startswith(prefix)]


def _values(config: str, key: str, value: str) -> list[str]:
    choices = list_choices(key)
    if choices:
        return choices
    kind = _type_of(_SCHEMAS[config], key)
    if kind is bool:
        return ["true", "false"]
    if key.rpartition(".")[2] == "init_from":
        return complete_weights(value)
    return complete_path(value) if "str" in str(kind) else []


def _type_of(schema: type, key: str) -> object:
    name, _, rest = key.partition(".")
    types = {field.name: field.type for field in dataclasses.fields(schema)}
    kind = types.get(name)
    return _type_of(kind, rest) if rest and isinstance(kind, type) and dataclasses.is_dataclass(kind) else kind
