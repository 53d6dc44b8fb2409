"""The commands: output on terminals of any width and in pipes, wrong words, and TAB completion."""

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
from typer.main import get_command

import vswin
from vswin.cli import app
from vswin.models.zoo import ModelSize
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

ROOT = Path(__file__).parents[1]
CODE = "from vswin.cli import main; main()"


def run(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, env=own_environment(variables))


def own_environment(variables: dict[str, str]) -> dict[str, str]:
    """Removes variables set by a `main` in this process, and variables that make typer colour pipes."""
    others = ("TERMINAL_WIDTH", "GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS")
    return {name: value for name, value in os.environ.items() if name not in others} | variables


def in_shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("vswin ", f'{sys.executable} -c "{CODE}" ')],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=own_environment(variables),
    )


def on_terminal(columns: int, *arguments: str, **variables: str) -> str:
    """Runs a command on a terminal with so many columns; returns what it shows."""
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


def all_commands() -> dict[str, object]:
    found, waiting = {}, dict(get_command(app).commands)
    while waiting:
        name, command = waiting.popitem()
        found[name] = command
        waiting |= {f"{name} {inner}": command.commands[inner] for inner in getattr(command, "commands", {})}
    return found


COMMANDS = all_commands()


def test_version_and_usage():
    assert run("--version").stdout == f"vswin {vswin.__version__}\n"
    shown = run("--help").stdout
    assert run().stdout.strip() == shown.strip()
    assert re.findall(r"^╭─ (.*?) ─", shown, re.MULTILINE)[1:] == [
        *("Train and test", "Use a model", "Weights", "Videos and this machine")
    ]
    for name in COMMANDS:
        assert " " in name or len(re.findall(rf"^│ {name} ", shown, re.MULTILINE)) == 1


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("words", ["", "explain", "bench step", "tune"])
def test_help_fits_the_terminal(words, columns):
    lines = run(*words.split(), "--help", COLUMNS=str(columns)).stdout.splitlines()
    # Examples are not wrapped, so that they can be copied.
    assert [line for line in lines if len(line.rstrip()) > min(columns, 100) and " vswin " not in line] == []
    if words == "bench step":
        assert any("--micro-batches" in line for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_summary_and_examples(name):
    command = COMMANDS[name]
    assert re.search(r"[.?]$", command.help.partition("\n\n")[0])
    assert not re.search(r"\[[a-z#/@]", command.help + (command.epilog or ""))  # rich's markup
    if name not in ("train", "evaluate", "splits", "data", "bench", "tune") and not name.startswith("data "):
        assert f"\nvswin {name} " in f"{command.epilog} ".replace("\n", " \n")


def test_seeing_what_training_sees_and_tuning_it_point_to_each_other():
    assert "vswin tune" in COMMANDS["data"].epilog
    assert "vswin tune" in run("data", "show", "--help").stdout
    assert "vswin data show" in COMMANDS["tune"].epilog
    assert all("vswin data show" in COMMANDS[name].help for name in ("tune lr", "tune batch"))


@pytest.mark.parametrize("words", [["--help"], ["models", "--json"], ["explain", "--help"], ["train", "--help"]])
def test_nothing_waits_for_tensorflow_that_does_not_need_it(words, tmp_path):
    code = (
        f"import sys; from vswin.cli import main; sys.argv = ['vswin', *{words!r}]\n"
        "try: main()\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_colours_are_for_terminals_that_want_them():
    assert "\x1b[1mvideo models" in on_terminal(80, "models")
    assert not re.search("\x1b\\[[34][0-9]", on_terminal(80, "models", NO_COLOR="1"))  # bold is not a colour
    assert not re.search("\x1b\\[[34][0-9]", on_terminal(80, "--help", NO_COLOR="1"))
    assert "\x1b" not in on_terminal(80, "models", TERM="dumb")
    assert "\x1b" not in in_shell("vswin models; vswin --help; vswin trian; vswin tune").stdout


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_published_models_fit_the_terminal(columns):
    lines = re.sub("\x1b\\[[0-9;]*m", "", on_terminal(columns, "models")).splitlines()
    # Names stay whole; text that would be too wide beside them is on lines of its own.
    assert [line for line in lines if len(line) > columns and len(line.split()) > 1] == []
    figures = ("top-1", "top-5", "views", "params", "GMACs")
    assert " ".join(lines[0].split()) == ("video models " + " ".join(figures) if columns == 80 else "video models")


@pytest.mark.parametrize(
    ("command", "unbuffered"), [("models", ""), ("models --json", "1"), ("train --help", ""), ("--help", "1")]
)
def test_a_reader_who_is_gone_ends_the_program_without_a_word(command, unbuffered):
    done = in_shell(f"(sleep 0.5; vswin {command}) | exec 0<&-; exit ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered)
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
    code = "import sys, time, vswin.tools.models_table\ndef stop(**_): print('on', flush=True); time.sleep(60)\n"
    code += f"vswin.tools.models_table.print_models = stop; sys.argv = ['vswin', 'models']\n{CODE}"
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
        ("trian", "No such command 'trian'. Did you mean 'train'? See vswin --help"),
        ("data shwo", "Did you mean 'show'? See vswin data --help"),
        ("explain a.mp4", "Missing option '--model'; see vswin explain --help"),
        ("explain a.mp4 --modle x", "No such option: --modle (Possible options: --model); see vswin explain --help"),
        ("predict --model x", "Missing argument 'VIDEO'; see vswin predict --help"),
        ("tune lr --steps many", "Invalid value for '--steps'"),
        ("extract a --model b --output c --level d", "'d' is not one of 'video', 'clip'"),
        ("data check --no-such", "No such option: --no-such"),
        ("train nonsense", "Error parsing override 'nonsense'; missing EQUAL"),
        ("train epochs=", "Value '' of type 'str' could not be converted to Integer"),
        ("train optimiser.lr=1", "did you mean 'optimizer.learning_rate'?"),
        ("train lr=1", "did you mean 'model.learning_rate' or 'optimizer.learning_rate'?"),
        ("train model=swin_tinny", "no model is called 'swin_tinny'; did you mean 'swin_tiny'"),
        ("evaluate ++clip.cropp=1", "there is no key 'clip.cropp'; did you mean 'clip.crop'"),
        ("evaluate dataset=kinetics", "did you mean 'kinetics700' or 'kinetics600' or 'kinetics400'"),
        ("data check +decoed=true", "there is no key 'decoed'; did you mean 'decode'"),
        ("data prepare +shard=2", "there is no key 'shard'; did you mean 'shards'"),
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


@pytest.mark.slow
def test_a_file_is_inspected_and_converted_on_the_command_line(tmp_path):
    model = vswin.build_model(ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3)), num_classes=2)
    save_checkpoint(tmp_path / "a.h5", official_tensors(model), {"class_names": ["jump", "run"]})
    done = run("convert", "a.h5", "b.safetensors", cwd=tmp_path)
    count = len(official_tensors(model))
    assert f"wrote b.safetensors: {count} weights of a.h5 (vswin)" in done.stdout, done.stderr
    done = run("inspect", "b.safetensors", "--tensors", cwd=tmp_path)
    for words in ("dialect:        vswin", "classes:        2: jump, run", "cls_head.fc_cls.bias [2] float32"):
        assert words in done.stdout, done.stderr
    done = run("inspect", "b.safetensors", cwd=tmp_path, COLUMNS="40")
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "network:        embed_dim 8, depths [1,\n  2], heads [1, 2], patches [2, 4, 4]\n" in done.stdout
    done = run("convert", "a.h5", "b.safetensors", cwd=tmp_path)
    assert done.stderr.endswith("error: b.safetensors exists; name another file, or delete it first\n")


@pytest.fixture
def offered(tmp_path):
    """Returns the completions of a line, as fish and zsh ask for them; a run and a file of weights exist."""
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "config.yaml").touch()
    (tmp_path / "swin_mine.pth").touch()

    def ask(line: str) -> list[str]:
        variables = {"_VSWIN_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = run(cwd=tmp_path, _TYPER_COMPLETE_ARGS=line, PYTHONPATH=str(ROOT), **variables)
        assert done.stderr == ""
        return [word.partition("\t")[0] for word in done.stdout.splitlines() if word]

    return ask


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("data ch", ["check"]),
        ("predict a.mp4 --mod", ["--model"]),
        ("train optim", ["optimizer=", "optimizer."]),
        ("train optimizer.le", ["optimizer.learning_rate="]),
        ("train exp", ["experiment="]),
        ("evaluate optim", []),
        ("data show num", ["num_clips="]),
        ("splits model=swin_t", ["model=swin_tiny"]),
        ("train model=swin_tiny,swin_base_", ["model=swin_tiny,swin_base_w16"]),
        ("train resume=", ["resume=true", "resume=false"]),
        ("train runtime.precision=b", ["runtime.precision=bfloat16"]),
        ("evaluate run=outputs/", ["run=outputs/mine/"]),
        ("train epochs=", []),
        ("predict --set average=", ["average=prob", "average=score"]),
        ("predict a.mp4 --model outp", ["outputs/mine", "outputs/"]),
        ("predict a.mp4 --model swin_m", ["swin_mine.pth"]),
        ("inspect swin_tiny_patch244", ["swin_tiny_patch244_window877_kinetics400_1k"]),
    ],
)
def test_a_shell_is_offered_commands_options_names_keys_and_values(line, words, offered):
    assert offered(f"vswin {line}") == words


def test_bash_completes_behind_an_equals_sign(tmp_path):
    (tmp_path / "vswin").write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{CODE}\n")
    (tmp_path / "vswin").chmod(0o755)
    ask = (
        "source <(vswin completion bash); for COMP_LINE in 'vswin data sh' 'vswin train model=swin_t'; do "
        'COMP_POINT=${#COMP_LINE}; _vswin_completion; printf "%s." "${COMPREPLY[@]}"; done'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ask], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "show.swin_tiny.", done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script(shell):
    assert "_VSWIN_COMPLETE" in run("completion", shell).stdout


@pytest.mark.skipif(os.system("command -v fish > /dev/null") != 0, reason="fish is not installed")
def test_fish_completes(tmp_path):
    (tmp_path / "vswin").write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{CODE}\n")
    (tmp_path / "vswin").chmod(0o755)
    ask = "vswin completion fish | source; complete -C 'vswin train model=swin_t'"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", ask], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "model=swin_tiny\n", done.stderr
