"""`train.py --help` and `evaluate.py --help`: every key with its default and what the files of `configs/` say of it.

Hydra's own help has no comments and takes seconds; with anything else on the command line, e.g.
`train.py dataset=ucf101 --help`, it still prints what those words compose.
"""

import dataclasses
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vswin.config import CONFIG_DIR, list_choices
from vswin.parser import lay_out_line
from vswin.schema import EvaluateConfig, ModelConfig, TrainConfig, list_keys

_ABOUT = {
    "train": "Fine-tunes a Video Swin Transformer.",
    "evaluate": "Tests a model on several views of each video and compares it with the published accuracy.",
}
_SETTING = re.compile(r"(?P<key>\w+): *(?P<value>.*?) *(?:#(?P<comment>.*))?")
_DEFAULT = re.compile(r" *- (?:override )?(?P<group>[\w/@.]+): (?P<option>\w+) *")
_BASE = re.compile(r" *- (?P<option>\w+) *")
_FOR_HYDRA = (
    "Hydra's own options: --cfg job prints the configuration that the command line composes, --multirun makes a run "
    "for each combination of values (docs/sweeps), --hydra-help lists the rest."
)
_WIDTH = 120
_NARROWEST = 30
# Columns that comments need beside the keys; where there are fewer, they stand above them.
_COMMENT_WIDTH = 30


class Setting(NamedTuple):
    """A key of a file, with what is said of it beside it, and in whole lines before and after it."""

    key: str
    value: str
    comment: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def print_help_if_asked(arguments: Sequence[str], command: str, program: str | None = None) -> None:
    """Prints the help and ends the program if the command line asks for that and nothing else.

    Args:
        arguments: what follows the name of the program.
        command: "train" or "evaluate".
        program: the words it is called by; without them it is "python train.py" or "python evaluate.py".

    Raises:
        SystemExit: with 0, after printing.
    """
    if list(arguments) not in (["--help"], ["-h"]):
        return
    print(describe(command, program, shutil.get_terminal_size((_WIDTH, 24)).columns))
    raise SystemExit(0)


def describe(command: str, program: str | None = None, columns: int = _WIDTH) -> str:
    """Writes the help of a command: examples, groups, and every key with its default.

    Args:
        command: "train" or "evaluate".
        program: the words it is called by.
        columns: of the terminal.
    """
    columns = max(_NARROWEST, min(columns, _WIDTH))
    path = CONFIG_DIR / f"{command}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    examples = [line[1:].strip() for line in lines[: lines.index("defaults:")] if line.startswith("# python")]
    if program:
        examples = [example.replace(f"python {command}.py", program, 1) for example in examples]
    said = [re.split(" {2,}", example, maxsplit=1) for example in examples]
    column = max(len(words) for words, _ in said) + 2
    chosen = read_defaults(path)
    if "clip" not in chosen:
        chosen["clip"] = read_defaults(CONFIG_DIR / "dataset" / f"{chosen['dataset']}.yaml")["clip"]
    groups = sorted(folder.name for folder in CONFIG_DIR.iterdir() if folder.name in chosen)
    width = max(map(len, groups))
    own, of_groups = _read_own(lines)
    shown = [line for words, text in said for line in lay_out_line(f"  {words:{column}}{text}", columns)]
    options = [(f"  {group + ':':{width + 1}} ", ", ".join(list_choices(group))) for group in groups]
    parts = [
        f"usage: {program or f'{command}.py'} [GROUP=OPTION ...] [KEY=VALUE ...]",
        _wrap("", _ABOUT[command], columns),
        "\n".join(["Examples:", *shown]),
        _wrap("", "Groups: GROUP=OPTION takes the keys of a group from another file of configs/GROUP/.", columns)
        + "".join("\n" + _wrap(start, text, columns) for start, text in options),
        _wrap(
            "",
            "Keys, defaults, ranges ([0,1) has no 1). A key of a group is GROUP.KEY, e.g. model.dropout=0.3:",
            columns,
        ),
        _lay_out(_add_ranges(own, ""), "", columns),
    ]
    for group in groups:
        if chosen[group] != "null":
            settings = _add_ranges(_merge(_read_group(group, chosen[group]), of_groups.get(group, [])), f"{group}.")
            parts.append(f"{group}:   # {group}={chosen[group]}\n" + _lay_out(settings, "  ", columns))
    return "\n\n".join([*parts, _wrap("", _FOR_HYDRA, columns)])


def _wrap(start: str, text: str, columns: int) -> str:
    wrapper = textwrap.TextWrapper(columns - 2, start, " " * len(start), break_on_hyphens=False, break_long_words=False)
    return wrapper.fill(text)


def read_defaults(path: Path) -> dict[str, str]:
    """Reads which option of each group a file takes."""
    found = (_DEFAULT.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines())
    options = {match["group"].partition("@")[0].strip("/"): match["option"] for match in found if match}
    return {group: option for group, option in options.items() if not group.startswith("hydra")}


def _read_own(lines: Sequence[str]) -> tuple[list[Setting], dict[str, list[Setting]]]:
    """Reads the keys of a command itself, between its defaults list and what it says to Hydra, and those of groups."""
    own: list[str] = []
    of_groups: dict[str, list[str]] = {}
    target = own
    for line in lines[lines.index("", lines.index("defaults:")) : lines.index("hydra:")]:
        match = _SETTING.fullmatch(line)
        if match:
            target = own if match["value"] else of_groups.setdefault(match["key"], [])
        if match is None or match["value"]:
            target.append(line.removeprefix("  ") if target is not own else line)
    return _read_settings(own), {group: _read_settings(changes) for group, changes in of_groups.items()}


def _read_group(group: str, option: str) -> list[Setting]:
    """Reads the keys of an option and of those it builds on; what is said of a key is said once, in the first."""
    lines = (CONFIG_DIR / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    bases = [match["option"] for match in map(_BASE.fullmatch, lines) if match and match["option"] != "_self_"]
    if group == "clip" and option != "32x2":
        bases = ["32x2"]  # which has the comments, and the same keys
    start = next(i for i, line in enumerate(lines) if _SETTING.fullmatch(line) and not line.startswith("defaults"))
    settings: list[Setting] = []
    for base in bases:
        settings = _merge(settings, _read_group(group, base))
    settings = _merge(settings, _read_settings(lines[start:]))
    if group == "model":  # keys that no file need name
        known = {setting.key for setting in settings}
        optional = [field.name for field in dataclasses.fields(ModelConfig) if field.default is None]
        settings += [Setting(key, "null", "null: that of `name`") for key in optional if key not in known]
    return settings


def _merge(settings: Sequence[Setting], changes: Sequence[Setting]) -> list[Setting]:
    """Changes settings; where a change says nothing about its key, what was said stays."""
    merged = {setting.key: setting for setting in settings}
    for change in changes:
        known = merged.get(change.key)
        merged[change.key] = known._replace(value=change.value) if known and not change.comment else change
    return list(merged.values())


def _add_ranges(settings: Sequence[Setting], prefix: str) -> list[Setting]:
    """Adds to what is said of a number its range, e.g. "[0,1)"."""
    fields = list_keys(TrainConfig) | list_keys(EvaluateConfig)
    added = []
    for setting in settings:
        allowed = fields[prefix + setting.key].metadata.get("range")
        text = f"{allowed.ends[0]}{allowed.low:g},{allowed.high:g}{allowed.ends[1]}" if allowed else ""
        added.append(setting._replace(comment=f"{setting.comment} {text}".strip()))
    return added


def _read_settings(lines: Sequence[str]) -> list[Setting]:
    settings: list[Setting] = []
    before: list[str] = []
    for line in lines:
        match = _SETTING.fullmatch(line)
        if match:
            comment = (match["comment"] or "").strip()
            settings.append(Setting(match["key"], match["value"], comment, tuple(before)))
            before = []
        elif line.startswith("#"):
            before.append(line[1:].strip())
        elif line.strip().startswith("#") and settings:
            settings[-1] = settings[-1]._replace(after=(*settings[-1].after, line.strip()[1:].strip()))
    return settings


def _lay_out(settings: Sequence[Setting], indent: str, columns: int) -> str:
    """Writes settings as YAML, the comments in one column, or above the keys where that would be too narrow."""
    texts = [f"{indent}{setting.key}: {setting.value}" for setting in settings]
    width = max(len(text) for text, setting in zip(texts, settings, strict=True) if setting.comment or len(text) < 30)
    beside = " " * width + "   # "
    lines: list[str] = []
    for text, setting in zip(texts, settings, strict=True):
        if columns - len(beside) < _COMMENT_WIDTH:
            said = [*setting.before, setting.comment, *setting.after]
            lines += [*_mark(f"{indent}# ", " ".join(filter(None, said)), columns), text]
            continue
        for line in setting.before:
            lines += _mark(f"{indent}# ", line, columns)
        comments = [comment for line in (setting.comment, *setting.after) for comment in _mark(beside, line, columns)]
        lines.append(text + comments.pop(0)[len(text) :] if setting.comment else text)
        lines += comments
    return "\n".join(lines)


def _mark(start: str, comment: str, columns: int) -> list[str]:
    return textwrap.wrap(comment, columns, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def describe_keys(config: str) -> str:
    """Writes the keys of a configuration with its own comments, below the examples it begins with.

    Args:
        config: the name of a file in `configs/`, without its ending.
    """
    examples, _, rest = (CONFIG_DIR / f"{config}.yaml").read_text(encoding="utf-8").partition("defaults:\n")
    lines = [line.removeprefix("# ") for line in examples.splitlines()]
    commands = [line for line in lines if line.startswith("vswin")]
    notes = [line for line in lines if line not in commands]
    keys = rest.partition("\n\n")[2].strip().splitlines()
    groups = "and those of vswin train --help, dataset and clip among them; those that do not matter here are accepted."
    shown = "\n  ".join(["examples:", *commands])
    return "\n\n".join([shown, *notes, "\n  ".join([f"keys and their defaults, {groups}", *keys])])
