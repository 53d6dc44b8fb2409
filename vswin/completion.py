"""What TAB offers behind `vswin`, beyond commands and options; files alone are completed by the shell itself."""

import dataclasses
import glob
import os
from typing import Any

import typer
from typer.completion import get_completion_script

from vswin.config import CONFIG_DIR, list_choices
from vswin.config_help import read_defaults
from vswin.published import all_published
from vswin.schema import DataCheckConfig, DataPrepareConfig, DataShowConfig, EvaluateConfig, TrainConfig, list_keys

# bash takes `=` for the end of a word, so it is given what stands behind it; behind a key nothing is to be added.
_FOR_BASH = r"""_vswin_completion() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT}
    local -x _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=$line
    COMPREPLY=($(_VSWIN_COMPLETE=complete_fish vswin | cut -f 1))
    [[ ${line##* } == *=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -o default -F _vswin_completion vswin"""
SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "data_check": DataCheckConfig,
    "data_prepare": DataPrepareConfig,
    "data_show": DataShowConfig,
}
_USING_MODELS = ("predict", "extract", "explain")  # whose --set takes keys of an evaluation


def completion_script(shell: str) -> str:
    """Writes what a shell has to read once; each TAB then asks `vswin` itself."""
    if shell == "bash":
        return _FOR_BASH
    return get_completion_script(prog_name="vswin", complete_var="_VSWIN_COMPLETE", shell=shell)


def complete_weights(incomplete: str) -> list[str]:
    """Offers published names, the folders of runs, and files."""
    runs = [os.path.dirname(path) for path in sorted(glob.glob("outputs/*/config.yaml"))]
    return [*(weights.name for weights in all_published()), *runs, *_complete_path(incomplete)]


def complete_source() -> list[str]:
    """Offers the names of copies of published weights."""
    return sorted({copy.name for weights in all_published() for copy in weights.sources})


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Offers keys of a command's configuration, level by level, and behind the `=` what a key can be set to.

    Whole words are given, e.g. "model=swin_tiny"; a group comes as "optimizer=" and as "optimizer.".
    """
    command = "_".join(context.command_path.split()[1:])
    name = command if command in SCHEMAS else "evaluate" if command in _USING_MODELS else "train"
    fields = list_keys(SCHEMAS[name])
    key, equals, value = incomplete.partition("=")
    if equals:
        before, comma, last = value.rpartition(",")
        return [f"{key}={before}{comma}{choice}" for choice in _values(key, fields.get(key), last)]
    keys = {*fields, *(group for group, _ in read_defaults(CONFIG_DIR / f"{name}.yaml") if group)}
    parents = {name.rpartition(".")[0] for name in keys}
    near = sorted(name for name in keys if name.count(".") == incomplete.count("."))
    return [word for name in near for word in (f"{name}=", *([f"{name}."] if name in parents else []))]


def _values(key: str, field: "dataclasses.Field[Any] | None", start: str) -> list[str]:
    if choices := list_choices(key):
        return choices
    if field is None or "range" in field.metadata:
        return []
    if field.type is bool:
        return ["true", "false"]
    if key.endswith("init_from"):
        return complete_weights(start)
    return [str(choice) for choice in field.metadata.get("choices", ())] or _complete_path(start)


def _complete_path(start: str) -> list[str]:
    return [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(f"{glob.escape(start)}*"))]
