"""Declare the commands of `vswin`, format their help, and complete their words on TAB.

The shell itself completes plain file names. All other completions come from the commands, the files of `configs/` and
the schemas, so that a new command or key needs no change here.
"""

import dataclasses
import glob
import os
import re
import shutil
import sys
from collections.abc import Callable
from inspect import cleandoc, getdoc
from typing import Annotated, Any

import typer
from typer.completion import completion_init, get_completion_script
from typer.core import TyperCommand
from typer.main import get_command

from vswin import __version__
from vswin.config.help import describe, read_defaults
from vswin.config.load import CONFIG_DIR, list_choices
from vswin.config.schema import (
    DataCheckConfig,
    DataPrepareConfig,
    DataShowConfig,
    EvaluateConfig,
    SplitsConfig,
    TrainConfig,
    list_keys,
)
from vswin.console import printable_lines
from vswin.weights.published import all_published

_NARROW, _WIDEST = 60, 100
# bash splits words at `=`, so it gets only the part after `=`; no space may follow a key.
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
    "splits": SplitsConfig,
    "data_check": DataCheckConfig,
    "data_prepare": DataPrepareConfig,
    "data_show": DataShowConfig,
}
_USING_MODELS = ("predict", "extract", "explain")  # whose --set takes keys of an evaluation


class _Command(TyperCommand):
    """A command that shows the help of its configuration, or keeps option names whole in a narrow window."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        name, columns = "_".join(ctx.command_path.split()[1:]), shutil.get_terminal_size().columns
        if name in SCHEMAS:
            formatter.write(describe(name, ctx.command_path))
            return
        if columns < _NARROW:
            self.rich_markup_mode, formatter.width = None, columns - 1
        super().format_help(ctx, formatter)


def command(group: typer.Typer, panel: str | None = None, is_for_hydra: bool = False) -> Callable[..., Any]:
    """Declares a command; its help is the docstring with rewrapped paragraphs and the examples at the end."""

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        text, _, examples = (getdoc(function) or "").partition("\n\nExamples:\n")
        group.command(
            function.__name__.removeprefix("bench_").removeprefix("data_"),
            cls=_Command,
            help=re.sub(r"(?<=\S)\n(?=\S)", " ", text),
            epilog=f"\b\nExamples:\n{cleandoc(examples)}" if examples else None,
            rich_help_panel=panel,
            add_help_option=not is_for_hydra,
            context_settings={"ignore_unknown_options": is_for_hydra},
        )(function)
        return function

    return declare


def group_of(text: str, end: str, has_version: bool = False) -> typer.Typer:
    """Makes a group of commands, which prints its help if no command is named."""
    group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    option = typer.Option("--version", help="print the version", metavar="", hidden=not has_version)

    @group.callback(help=text, epilog=end, invoke_without_command=True)
    def show(context: typer.Context, version: Annotated[bool, option] = False) -> None:
        if version:
            typer.echo(f"vswin {__version__}")
        elif context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return group


def option(metavar: str, text: str, *names: str, **more: Any) -> Any:
    """Declares an option with a value."""
    return typer.Option(*names, metavar=metavar, help=text, **more)


def flag(name: str, text: str) -> Any:
    """Declares an option without a value."""
    return typer.Option(name, metavar="", help=text)


def words(metavar: str, text: str, **more: Any) -> Any:
    """Declares positional arguments."""
    return typer.Argument(metavar=metavar, help=text, **more)


def run(app: typer.Typer) -> None:
    """Runs the command named on the command line, or explains in one paragraph what is wrong with the line."""
    # Help is as wide as the terminal, up to a readable width.
    os.environ.setdefault("TERMINAL_WIDTH", str(min(shutil.get_terminal_size().columns, _WIDEST)))
    root = get_command(app)
    if "_VSWIN_COMPLETE" in os.environ:  # a shell asks, see `completion_script`
        completion_init()
        root.main(prog_name="vswin")
    try:
        with root.make_context("vswin", sys.argv[1:]) as context:
            root.invoke(context)
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None
    except typer.TyperException as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        asked = getattr(error, "ctx", None)
        see = f"{' See' if message.endswith('?') else '; see'} {asked.command_path if asked else 'vswin'} --help"
        print(printable_lines(f"error: {message}{see}"), file=sys.stderr)
        raise SystemExit(2) from None


def completion_script(shell: str) -> str:
    """Writes the script that a shell must read once; each TAB then asks `vswin` itself."""
    if shell == "bash":
        return _FOR_BASH
    return get_completion_script(prog_name="vswin", complete_var="_VSWIN_COMPLETE", shell=shell)


def complete_weights(incomplete: str) -> list[str]:
    """Offers published names, run folders and files."""
    runs = [os.path.dirname(path) for path in sorted(glob.glob("outputs/*/config.yaml"))]
    return [*(weights.name for weights in all_published()), *runs, *_complete_path(incomplete)]


def complete_source() -> list[str]:
    """Offers the names of the copies of published weights, as `source` takes them."""
    return sorted({copy.name for weights in all_published() for copy in weights.sources})


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Offers the keys of a command's configuration, level by level, and the values of a key after `=`.

    Offers are whole words, e.g. "model=swin_tiny"; a group is offered as "optimizer=" and "optimizer.".
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
