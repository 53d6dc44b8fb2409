"""`train.py --help`, `evaluate.py --help` and the help of `vswin data`: the files of `configs/`, unchanged.

Hydra's own help has no comments and takes seconds. With overrides, e.g. `train.py dataset=ucf101 --help`, Hydra still
prints the configuration that they compose.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vswin.config.load import CONFIG_DIR, list_choices

_FOR_HYDRA = """\
--cfg job prints the configuration that the command line composes, --multirun makes a run for each combination of
values (docs/sweeps), --hydra-help lists the other options of Hydra."""
_FOR_DATA = "The settings of vswin train are taken, too; those that do not matter here are passed over."
_DEFAULT = re.compile(r" *- (?:override )?(?:(?P<group>[\w/@.]+): )?(?P<option>\w+) *")


def print_help_if_asked(arguments: Sequence[str], command: str, program: str | None = None) -> None:
    """Prints the help and ends the program if the command line asks for help and nothing else."""
    if list(arguments) in (["--help"], ["-h"]):
        print(describe(command, program))
        raise SystemExit(0)


def describe(command: str, program: str | None = None) -> str:
    """Writes the help of a command.

    Args:
        command: the name of a file in `configs/`, without its ending.
        program: how the command is called; None stands for "python train.py" or "python evaluate.py".
    """
    own = CONFIG_DIR / f"{command}.yaml"
    chosen = [(group, option) for group, option in read_defaults(own) if group]
    parts = [f"usage: {program or f'{command}.py'} [GROUP=OPTION ...] [KEY=VALUE ...]"]
    if chosen:
        groups = [f"  {group}={'|'.join(list_choices(group))}" for group in sorted({*dict(chosen), "clip"})]
        parts.append("\n".join(["GROUP=OPTION takes the keys of a group from configs/GROUP/OPTION.yaml:", *groups]))
        parts.append(
            "GROUP.KEY=VALUE sets one of them, e.g. model.dropout=0.3. The files of the defaults, with comments:"
        )
    for file in dict.fromkeys([own, *(file for choice in chosen for file in _files(*choice))]):
        text = file.read_text(encoding="utf-8").partition("\nhydra:")[0].strip()
        parts.append(f"--- configs/{file.relative_to(CONFIG_DIR)}\n{text}")
    text = "\n\n".join([*parts, _FOR_HYDRA if chosen else _FOR_DATA])
    return text.replace(f"python {command}.py", program) if program else text


def _files(group: str, option: str) -> Iterator[Path]:
    """Finds the file of an option, after the files that it builds on."""
    file = CONFIG_DIR / group / f"{option}.yaml"
    if file.is_file():  # neither `null` nor `_self_`
        for other, base in read_defaults(file):
            yield from _files(other or group, base)
        yield file


def read_defaults(path: Path) -> list[tuple[str, str]]:
    """Reads (group, option) of each default of a file; the group is "" for an option of the file's own group."""
    found = filter(None, map(_DEFAULT.fullmatch, path.read_text(encoding="utf-8").splitlines()))
    choices = [((match["group"] or "").partition("@")[0].strip("/"), match["option"]) for match in found]
    return [(group, option) for group, option in choices if not group.startswith("hydra")]
