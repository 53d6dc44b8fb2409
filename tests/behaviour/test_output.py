"""What a user reads, for any file name and any fate of the terminal."""

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vswin.cli import main
from vswin.runtime import program

ROOT = Path(__file__).parents[2]
# Red, a bell, text reversed, a one-byte escape sequence for red, and a line that imitates our output.
ODD = "\x1b[31m\x07\u202e\x9b\r\nepoch 9"
SHOWN = r"\x1b[31m\x07\u202e\x9b\r\nepoch 9"
COMMAND = (sys.executable, "-c", "from vswin.cli import main; main()")
RUN = (
    *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"),
    *("clip=8x1_64px", "clip.num_frames=4", "clip.resize=32", "clip.crop=32"),
    *("dataset=folder", "batch_size=2", "epochs=2", "init_from=null"),
)


def lose_terminal(command: list[str], seen: bytes) -> int:
    """Runs vswin on a terminal, ignoring SIGHUP; closes it once it shows `seen`; returns the exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while seen not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    return process.wait(timeout=300)


def test_a_command_whose_terminal_is_gone_writes_its_files(small_videos, tmp_path):
    report = tmp_path / "report.csv"
    arguments = ["dataset=folder", f"dataset.root={small_videos}", "decode=true", f"report={report}"]
    assert lose_terminal(["data", "check", *arguments], b"folder in") == 0
    assert report.is_file()


@pytest.mark.slow
def test_two_packings_do_not_write_into_one_folder(vswin, small_videos, tmp_path):
    packed = tmp_path / "packed"
    arguments = [
        "data",
        "prepare",
        "dataset=folder",
        f"dataset.root={small_videos}",
        "shards=2",
        f"output_dir={packed}",
    ]
    process = subprocess.Popen([*COMMAND, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not (tmp_path / "packed.partial" / "lock").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    shown = vswin(*arguments)
    process.send_signal(signal.SIGCONT)
    assert f"error: output_dir={packed}: another vswin data prepare is at work there" in shown
    assert process.wait(timeout=300) == 0
    assert not (tmp_path / "packed.partial").exists()
    assert not (packed / "lock").exists()
    assert "is there already" in vswin(*arguments)


@pytest.mark.slow
def test_a_run_whose_terminal_is_gone_goes_on(small_videos, tmp_path):
    run = tmp_path / "run"
    assert lose_terminal(["train", *RUN, f"dataset.root={small_videos}", f"output_dir={run}"], b"epoch 1/2") == 0
    assert "trained for" in (run / "train.log").read_text()
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert (run / "checkpoints" / "best.safetensors").is_file()
    assert lose_terminal(["evaluate", f"run={run}", f"results_dir={tmp_path}"], b"precision:") == 0
    assert (run / "metrics.json").is_file()
    assert (run / "report.html").is_file()


@pytest.fixture
def vswin(monkeypatch, capsys) -> Callable[..., str]:
    """Runs a command in this process; returns its whole output."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
        message = ""
        try:
            main()
        except SystemExit as end:
            message = f"{end.code}\n" if isinstance(end.code, str) else ""
        return "".join(capsys.readouterr()) + message

    return run


@pytest.fixture
def odd_videos(small_videos) -> Path:
    """Gives a class and some of its files names with control characters that a terminal would obey."""
    odd = small_videos / f"bright{ODD}"
    (small_videos / "bright").rename(odd)
    for number in range(3):
        (odd / f"{number}.avi").rename(odd / f"{number}{ODD}.avi")
    (odd / f"broken{ODD}.avi").write_text("no video")
    return small_videos


def assert_harmless(shown: str, name: str) -> None:
    assert name in shown
    assert [char for char in shown if not char.isprintable() and char != "\n"] == []
    assert not any(line.startswith("epoch 9") for line in shown.splitlines())


def test_odd_names_are_shown_escaped_by_data_check(vswin, odd_videos):
    shown = vswin("data", "check", "dataset=folder", f"dataset.root={odd_videos}")
    assert_harmless(shown, f"bright{SHOWN}/broken{SHOWN}.avi: not a video")


def test_odd_and_endless_tensor_names_are_shown_escaped_and_bounded(vswin, tmp_path):
    places = {f"a{ODD}": [0, 4], "b" * 100_000: [4, 8]}
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": place} for name, place in places.items()}
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    shown = vswin("inspect", tmp_path / "w.safetensors")
    assert_harmless(shown, f"a{SHOWN}")
    assert len(shown) < 5000


def test_odd_names_on_the_command_line_are_shown_escaped(vswin, tmp_path):
    assert_harmless(vswin("inspect", f"{tmp_path}/gone{ODD}"), f"gone{SHOWN}")
    assert_harmless(vswin("predict", f"{tmp_path}/gone{ODD}", "--model", "gone"), f"gone{SHOWN}: no file matches")


def in_process_of_its_own(*arguments: object) -> str:
    """Runs a command that sets up logging for the whole process; returns its whole output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, env=environment, timeout=300)
    return (done.stdout + done.stderr).decode()


@pytest.mark.slow
def test_odd_names_are_shown_escaped_by_all_that_uses_a_run(vswin, odd_videos, tmp_path):
    run = tmp_path / "run"
    data = (f"dataset.root={odd_videos}", "dataset.val_fraction=0.4")
    shown = in_process_of_its_own("train", *RUN[:-2], "epochs=1", f"output_dir={run}", *data)
    assert_harmless(shown, f"bright{SHOWN}, dark")
    assert_harmless((run / "train.log").read_text(), f"bright{SHOWN}, dark")
    shown = in_process_of_its_own("evaluate", f"run={run}", f"results_dir={tmp_path}", "allow_bad_videos=true")
    assert_harmless(shown, f"output:         {run}")
    assert_harmless(vswin("inspect", run, "--tensors"), f"bright{SHOWN}, dark")
    shown = vswin("predict", odd_videos, "--model", run, "--save", tmp_path / "saved")
    assert_harmless(shown, f"broken{SHOWN}.avi: passed over")
    assert len(list((tmp_path / "saved").rglob("*.mp4"))) == 12


def test_what_is_no_file_is_said(vswin, tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "link.pth").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.pth"))
    for name, kind in {
        tmp_path / "pipe.pth": "is a pipe",
        tmp_path / "link.pth": "is a link to nowhere, which is not there",
        tmp_path / "socket.pth": "is a socket or a device",
        "/dev/zero": "is a socket or a device",
    }.items():
        assert vswin("inspect", name).startswith(f"error: {name} {kind}; give a checkpoint file")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.move(tmp_path / "pipe.pth", tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert "best.safetensors is a pipe" in vswin("inspect", tmp_path / "run")
    assert "link.pth is a link to nowhere" in vswin(
        "predict", ROOT / "tests/clips/demo.mp4", "--model", tmp_path / "link.pth"
    )


START = "from vswin.errors import clean_errors\nwith clean_errors():\n    import tensorflow as tf\n    "


def start_tensorflow(then: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", START + then], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_what_tensorflow_says_at_its_start_is_shown_for_debugging_alone():
    say = "import sys; print(tf.config.list_physical_devices('CPU')[0].device_type, file=sys.stderr)"
    assert start_tensorflow(say).stderr == "CPU\n"
    shown = start_tensorflow(say, VSWIN_DEBUG="1").stderr
    assert "oneDNN" in shown
    assert "CPU\n" in shown


@pytest.mark.parametrize("end", ["raise ImportError('no such symbol')", "os.abort()"])
def test_what_tensorflow_says_is_shown_if_it_fails_to_start(tmp_path, end):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(f"import os\nos.write(2, b'libcuda is broken\\n')\n{end}\n")
    done = start_tensorflow("pass", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode != 0
    assert "libcuda is broken\n" in done.stderr
    assert ("no such symbol" in done.stderr) is (done.returncode == 1)


def test_without_standard_error_tensorflow_starts_too():
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", START + "print(len(tf.__version__) > 3)"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n")


@pytest.mark.parametrize(
    ("script", "number", "said"),
    [
        ("train.py", signal.SIGTERM, "ended by SIGTERM"),
        ("train.py", signal.SIGINT, "interrupted"),
        ("evaluate.py", signal.SIGTERM, "ended by SIGTERM"),
    ],
)
def test_a_signal_while_tensorflow_starts_ends_a_command_in_a_line(tmp_path, script, number, said):
    (tmp_path / "tensorflow").mkdir()
    lines = "os.write(2, b'cpu_feature_guard\\n')\nprint('starts', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "tensorflow" / "__init__.py").write_text(f"import os, time\n{lines}")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), *(["init_from=null"] if script == "evaluate.py" else [])],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "starts\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == f"\n{said}\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["python", "train.py", "epochs=1"], "python evaluate.py"),
        ([".venv/bin/python", "-X", "dev", "../vswin/train.py"], ".venv/bin/python -X dev ../vswin/evaluate.py"),
        (["/a/python", ".venv/bin/vswin", "train"], ".venv/bin/vswin evaluate"),
        (["/a/python", "notebook.py"], "vswin evaluate"),
    ],
)
def test_a_command_to_copy_runs_from_where_the_user_is(monkeypatch, typed, expected):
    monkeypatch.setattr(sys, "orig_argv", typed)
    assert program("evaluate") == expected
