"""What the commands write to a terminal of any width, to a pipe, and to a disk that is full."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from vswin.cli import make_parser
from vswin.completion import complete_override, complete_path, complete_weights
from vswin.config_help import describe
from vswin.parser import Parser, lay_out_line

ROOT = Path(__file__).parents[1]
CODE = "from vswin.cli import main; main()"


def on_terminal(columns: int, *arguments: str, **variables: str) -> str:
    """Runs a command on a terminal of so many columns; gives what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm", **variables},
        cwd=ROOT,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the process has ended
            break
    os.close(ours)
    assert process.wait() == 0
    return shown.decode().replace("\r\n", "\n")


def in_shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("vswin ", f'{sys.executable} -c "{CODE}" ')],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **variables},
    )


def all_commands(parser: Parser, found: dict[str, Parser] | None = None) -> dict[str, Parser]:
    found = {} if found is None else found
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for command in action.choices.values():
                found[command.prog.removeprefix("vswin ")] = command
                all_commands(command, found)
    return found


COMMANDS = {name: parser for name, parser in all_commands(make_parser()).items() if name not in ("train", "evaluate")}


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_fits_the_terminal(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = COMMANDS[name].format_help()
    # Words alone, such as published names, may be wider than a narrow terminal; the usage is argparse's.
    lines = text.partition("\n\n")[2].splitlines()
    wide = [line for line in lines if len(line) > min(columns, 100) and len(line.split()) > 3]
    assert wide == []
    if name not in ("data", "bench", "tune"):
        assert re.search(r"^examples:\n  vswin ", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_help_of_keys_fits_the_terminal(command, columns):
    text = describe(command, f"vswin {command}", columns)
    wide = [line for line in text.splitlines() if len(line) > columns]
    # A value is not broken.
    assert [line for line in wide if len(line.partition("#")[2].split()) > 1 and not line.endswith("]")] == []
    assert columns == 40 or len(wide) <= 2


def test_seeing_what_training_sees_and_tuning_it_point_to_each_other():
    for name in ("data", "data show"):
        assert re.search(r"batch size that\ssuit.*: vswin\stune\.", COMMANDS[name].format_help(), re.DOTALL)
    for name in ("tune", "tune lr", "tune batch"):
        assert re.search(r"vswin\sdata\sshow", COMMANDS[name].format_help())


def test_commands_stand_below_headings_and_each_once(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = make_parser().format_help()
    headings = re.findall(r"^  (\w[\w ]*):$", text, re.MULTILINE)
    assert headings == ["train and test", "use a model", "weights", "videos and this machine"]
    for name in ("train", "predict", "models", "bench", "completion"):
        assert len(re.findall(rf"^    {name} ", text, re.MULTILINE)) == 1
    assert "COMMAND\n" not in text.partition("commands:")[2]


def test_long_lines_are_broken_where_they_can_still_be_copied():
    line = '  vswin explain a.mp4 --class "high jump" --clips 4   two words'
    assert lay_out_line(line, 80) == [line]
    assert lay_out_line(line, 40) == [
        "  vswin explain a.mp4 \\",
        '      --class "high jump" --clips 4',
        "      two words",
    ]
    assert lay_out_line("  epochs: 3   # of the whole run", 20) == [
        "  epochs: 3",
        "      # of the whole",
        "      # run",
    ]


def test_colours_are_for_terminals_that_want_them():
    assert "\x1b[1mvideo models" in on_terminal(80, "models")
    assert not re.search("\x1b\\[[34][0-9]", on_terminal(80, "models", NO_COLOR="1"))  # bold is no colour
    assert "\x1b" not in on_terminal(80, "models", TERM="dumb")
    assert "\x1b" not in in_shell("vswin models").stdout


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_published_models_fit_the_terminal(columns):
    lines = re.sub("\x1b\\[[0-9;]*m", "", on_terminal(columns, "models")).splitlines()
    # Names stay whole, and are never beside anything that would have to be broken for them.
    assert [line for line in lines if len(line) > columns and len(line.split()) > 1] == []
    figures = ("top-1", "top-5", "views", "params", "GMACs")
    assert " ".join(lines[0].split()) == ("video models " + " ".join(figures) if columns == 80 else "video models")


@pytest.mark.parametrize("command", ["models", "models --json", "train --help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_is_gone_ends_the_program_without_a_word(command, unbuffered):
    done = in_shell(f"(sleep 0.2; vswin {command}) | exec 0<&-; exit ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_full_disk_is_told_in_a_line():
    done = in_shell("vswin models > /dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device; make room, then start again\n"


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_letters_that_an_encoding_lacks_are_spelt_out(variables):
    code = "from vswin.errors import clean_errors\nwith clean_errors(): print('\\xb1 \\u30d3')"
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60)
    expected = b"\\xb1 \\u30d3\n" if "PYTHONIOENCODING" in variables else "\xb1 \u30d3\n".encode()
    assert (done.stdout, done.stderr) == (expected, b"")


def test_ctrl_c_is_answered_in_a_line():
    code = (
        "import time\nfrom vswin.errors import clean_errors\n"
        "with clean_errors(): print('on', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "\ninterrupted\n")


def test_a_debugging_user_is_shown_where_an_error_comes_from():
    done = in_shell("vswin inspect gone.pth")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    done = in_shell("vswin inspect gone.pth", VSWIN_DEBUG="1")
    assert done.stderr.startswith("Traceback")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("trian", "invalid choice: 'trian'; did you mean 'train'"),
        ("data shwo", "did you mean 'show'? (choices: check, prepare, show); see vswin data --help"),
        ("explain a.mp4", "required: --model, --output; see vswin explain --help"),
        ("train nonsense", "Error parsing override 'nonsense'; missing EQUAL"),
        ("train epochs=", "Value '' of type 'str' could not be converted to Integer"),
        ("train optimiser.lr=1", "did you mean 'optimizer.learning_rate'?"),
        ("train lr=1", "did you mean 'model.learning_rate' or 'optimizer.learning_rate'?"),
        ("train +unknown=1", "there is no key 'unknown'; see --help"),
        ("evaluate ++clip.cropp=1", "there is no key 'clip.cropp'; did you mean 'clip.crop'"),
        ("data check +decoed=true", "there is no key 'decoed'; did you mean 'decode'"),
        ("data prepare +shard=2", "there is no key 'shard'; did you mean 'shards'"),
        ("data show +clip.cropp=1", "there is no key 'clip.cropp'; did you mean 'clip.crop'"),
        ("tune lr +unknown=1", "there is no key 'unknown'"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_paragraph(command, words):
    done = in_shell(f"vswin {command}")
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_keys_are_offered_level_by_level():
    assert complete_override("optim", config="train") == ["optimizer=", "optimizer."]
    assert complete_override("optimizer.le", config="train") == ["optimizer.learning_rate="]
    assert "experiment=" in complete_override("e", config="train")
    assert "optimizer=" not in complete_override("", config="evaluate")
    assert complete_override("", config="train", start="runtime.")[0] == "runtime.jit="
    assert "model=swin_tiny,swin_base" in complete_override("model=swin_tiny,", config="train")
    assert complete_override("resume=", config="train") == ["resume=true", "resume=false"]
    assert complete_override("epochs=", config="train") == []


def test_files_and_published_names_are_offered(tmp_path, monkeypatch):
    (tmp_path / "swin_folder").mkdir()
    (tmp_path / "swin_mine.pth").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    assert complete_path("") == ["swin_folder/", "swin_mine.pth"]
    assert complete_path("gone/") == []
    offered = complete_weights("swin_")
    assert "swin_tiny_patch244_window877_kinetics400_1k" in offered
    assert offered[-2:] == ["swin_folder/", "swin_mine.pth"]


def completions(line: str, tmp_path: Path) -> set[str]:
    """Asks as the scripts of `vswin completion` do."""
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered"),
    }
    subprocess.run([sys.executable, "-c", CODE], env=environment, timeout=60, capture_output=True, check=True)
    return set((tmp_path / "offered").read_text().split("\v"))


def test_a_shell_is_offered_commands_options_and_names(tmp_path):
    assert {"train", "predict", "bench", "completion"} <= completions("vswin ", tmp_path)
    assert completions("vswin predict a.mp4 --mod", tmp_path) == {"--model "}
    assert completions("vswin data ch", tmp_path) == {"check "}
    # Of a word a shell has broken at "=", the end is what it wants.
    assert {"swin_base", "swin_base_w16"} <= {
        word.rpartition("=")[2].strip() for word in completions("vswin train model=swin_b", tmp_path)
    }


def test_the_script_of_a_shell_is_one_that_it_reads(tmp_path):
    (tmp_path / "vswin").write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{CODE}\n")
    (tmp_path / "vswin").chmod(0o755)
    ask = (
        "source <(vswin completion bash); COMP_LINE='vswin data sh'; COMP_POINT=13; COMP_TYPE=9; "
        '_python_argcomplete vswin; printf "%s." "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ask], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "show .", done.stderr


@pytest.mark.skipif(os.system("command -v fish > /dev/null") != 0, reason="fish is not installed")
def test_fish_completes(tmp_path):
    (tmp_path / "vswin").write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{CODE}\n")
    (tmp_path / "vswin").chmod(0o755)
    ask = "vswin completion fish | source; complete -C 'vswin train model=swin_t'"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", ask], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "model=swin_tiny\n", done.stderr
