"""Every command and setting in the documents is valid: names, options and targets exist, configurations compose.

A command that stands alone must parse as it is. For a command in running text, which may be incomplete, the options
must exist. The slow tests/docs/test_*_end_to_end.py execute the commands that stand alone.
"""

import functools
import re
import shlex

import pytest
from documents import DOCUMENTS, PROGRAM, ROOT, in_text, name, read, standing_alone
from hydra.core.override_parser.overrides_parser import OverridesParser
from typer import TyperException
from typer.main import get_command

from vswin.cli import app
from vswin.config.compose import compose_config, compose_evaluation
from vswin.config.load import check_overrides, implied_choices
from vswin.config.schema import (
    DataCheckConfig,
    DataPrepareConfig,
    DataShowConfig,
    EvaluateConfig,
    SplitsConfig,
    TrainConfig,
)
from vswin.errors import InputError
from vswin.weights.published import find_weights

SCRIPTS = ("train", "evaluate")
SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "splits": SplitsConfig,
    "data_check": DataCheckConfig,
    "data_prepare": DataPrepareConfig,
    "data_show": DataShowConfig,
}
# `key=value` is a placeholder, and words with True or False are Python arguments.
SETTING = re.compile(r"(?!key=value)[a-z_]+(\.[a-z_0-9]+)*=(?!True|False)\S+")


def plain(command: str) -> list[str]:
    """Splits a command, with a word in place of each placeholder."""
    command = re.sub(r"<[^<>]*>", "x", command).replace("${", "$\\{")
    command = re.sub(r" >>? \S+( +#.*)?$", "", command)  # a shell redirection
    return [word for word in shlex.split(command) if word not in ("...", "|")]


def first_choices(overrides: list[str]) -> list[str]:
    """Returns the overrides of a sweep's first run, without those of Hydra's launcher."""
    own = [word for word in overrides if not word.startswith(("hydra", "--multirun"))]
    chosen = []
    for word in own:
        parsed = OverridesParser.create().parse_override(word)
        first = next(iter(parsed.sweep_string_iterator())) if parsed.is_sweep_override() else None
        chosen.append(word if first is None else f"{parsed.key_or_group}={first}")
    return chosen


def check_settings(name: str, overrides: list[str]) -> None:
    """Composes the configuration of an entry point."""
    compose_once(name, tuple(first_choices(overrides)))


@functools.cache
def compose_once(name: str, overrides: tuple[str, ...]) -> None:
    """Composes as the entry points do, once: documents repeat settings, and composing takes a tenth of a second."""
    try:
        compose_config(name, [*overrides, *(implied_choices(overrides) if name == "evaluate" else ())], SCHEMAS[name])
    except InputError as error:
        # The configuration composes, but needs the other environment.
        if not str(error).startswith("optimizer=adamw_addons needs TensorFlow Addons"):
            raise


def check_vswin(words: list[str]) -> None:
    """Parses a command of `vswin` as the program does, and composes its overrides."""
    if words[0] in SCRIPTS:
        check_settings(words[0], [word for word in words[1:] if word not in ("--help",)])
        return
    if "--help" in words:
        check_options(words)
        return
    command, rest = find_command(words)
    given = command.make_context(command.name, rest).params
    match words[0]:
        case "data" if "settings" in given:
            check_settings(f"data_{command.name}", given["settings"])
        case "splits":
            check_settings("splits", given["settings"])
        case "tune":
            check_settings("train", given["settings"])
        case "predict" | "extract":
            compose_evaluation(given["set"])


def find_command(words: list[str]) -> tuple:
    """Finds a command and the words after it; `model|step` are two commands."""
    command = get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        for word in words[0].split("|"):
            assert word in command.commands, f"{word}: not among {list(command.commands)}"
        command, words = command.commands[words[0].split("|")[0]], words[1:]
    return command, words


def check_options(words: list[str]) -> None:
    """Checks that a command and each of its options exist."""
    command, rest = find_command(words)
    known = {option for param in command.params for option in param.opts} | {"--help"}
    if command.name not in SCRIPTS:
        assert [word for word in rest if word.startswith("--") and word.split("=")[0] not in known] == []


def check_command(command: str, is_alone: bool) -> None:
    words = plain(command)
    match words:
        case [program, script, *rest] if program.endswith("python") and script in ("train.py", "evaluate.py"):
            check_vswin([script.removesuffix(".py"), *rest])
        case [program, "-m", *_] if program.endswith("python"):
            pass
        case [program, script, *rest] if program.endswith("python"):
            source = (ROOT / script.rstrip(",")).read_text()
            sources = source + "".join(path.read_text() for path in (ROOT / script).parent.glob("*.py"))
            assert [word for word in rest if word.startswith("--") and f'"{word}"' not in sources] == []
        case ["vswin", *rest]:
            check_vswin(rest) if is_alone else check_options(rest)
        case ["make", target, *rest]:
            assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
            if target in SCRIPTS:
                check_settings(target, shlex.split("".join(rest).removeprefix("ARGS=")))
        case ["sbatch", script, *rest]:
            assert (ROOT / script).is_file()
            check_settings("train", rest)
        case ["wandb", "sweep", path]:
            assert (ROOT / path).is_file()
        case _:
            extras = re.findall(r"(?:vswin|\.)\[([a-z,]+)\]", command)
            known = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
            for extra in ",".join(extras).split(","):
                assert re.search(rf"^{extra} = \[", known, re.MULTILINE) or not extra, extra


def check_named_settings(span: str) -> None:
    """Checks that settings named in the text exist; those of one span must compose together."""
    words = [word for word in plain(span) if "$" not in word]
    errors = []
    for entry_point, schema in SCHEMAS.items():
        try:
            check_overrides(first_choices(words), schema)
            if "..." not in span and "|" not in span:
                check_settings(entry_point, words)
        except InputError as error:
            errors.append(str(error))
        else:
            return
    raise AssertionError(f"{span}: {errors[0]}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_parse(document):
    text = read(document)
    for command in standing_alone(text):
        try:
            check_command(command, is_alone=True)
        except (TyperException, InputError) as error:
            raise AssertionError(f"{command}: {error}") from error
    for span in in_text(text):
        if re.match(PROGRAM, span + " "):
            check_command(span, is_alone=False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_settings_exist(document):
    for span in in_text(read(document)):
        if all(SETTING.fullmatch(word) for word in span.split()):
            check_named_settings(span)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_published_names_and_links_exist(document):
    text = read(document)
    for published in set(re.findall(r"\bswin_[a-z]+_patch\w+", text)):
        find_weights(published)
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("command", "is_wrong"),
    [
        ("python train.py model=swin_tiny --multirun seed=0,1", False),
        ("python train.py modle=swin_tiny", True),
        ("python evaluate.py run=outputs/<run> clip.num_clips=x", True),
        ("vswin predict a.mp4 --model outputs/<run>", False),
        ("vswin predict a.mp4", True),
        ("vswin predict a.mp4 --model x --top_k 3", True),
        ("vswin data show dataset=ucf102", True),
        ("make train ARGS='epochs=3'", False),
        ("make trian", True),
        ("pip install 'vswin[parquets]'", True),
        ("python benchmarks/growth.py --no-such-option", True),
    ],
)
def test_wrong_commands_are_found(command, is_wrong, capsys):
    if not is_wrong:
        check_command(command, is_alone=True)
        return
    with pytest.raises((AssertionError, InputError, TyperException)):
        check_command(command, is_alone=True)


def test_commands_are_found():
    text = (ROOT / "README.md").read_text()
    assert "python train.py model=swin_base dataset=ucf101" in standing_alone(text)
    assert len(standing_alone(text)) > 20
    assert {"dataset.cache=ram", "vswin bench input --isolate", "clip=16x4"} <= set(in_text(text))


def test_commands_of_a_notebook_are_found():
    commands = standing_alone(read(ROOT / "docs/notebooks/fine_tune.ipynb"))
    assert "vswin export runs/motion exported" in commands
    assert any(re.match(r"vswin train .* output_dir=runs/motion$", command) for command in commands)
