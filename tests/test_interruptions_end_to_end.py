"""Whole runs that are stopped and killed, on disks that are slow, full or read-only, lose power, or with a clock that
jumps: nothing that was reported as saved is lost, and what goes on equals a run that nothing disturbed.
"""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.errors import InputError
from vswin.training.optimizer import WarmupCosine
from vswin.training.run import run_training

ROOT = Path(__file__).parents[1]
NUM_STEPS = 32
NUM_FILLS, NUM_KILLS = 4, 3
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "model.drop_path_rate=0.2",
    "model.dropout=0.3",
    "dataset=folder",
    "dataset.root=videos",
    "clip.num_frames=4",
    "clip.resize=40",
    "clip.crop=32",
    "batch_size=2",
    "epochs=1",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """Compiles the faults."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    path = tmp_path_factory.mktemp("library") / "faulty_machine.so"
    source = str(ROOT / "tests" / "faulty_machine.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(path), source, "-ldl"], check=True)
    return path


def slow_disk(library: Path, msec: int, log: Path | str = "/dev/null") -> dict[str, str]:
    return {"LD_PRELOAD": str(library), "SLOW_PATH": "run/checkpoints", "SLOW_MSEC": str(msec), "SLOW_LOG": str(log)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Makes a folder with 64 training and 16 validation videos, and `whole`, a run that kept each step's state."""
    folder = tmp_path_factory.mktemp("folder")
    for label, level in (("bright", 150), ("dark", 40)):
        (folder / "videos" / label).mkdir(parents=True)
        for i in range(40):
            path = str(folder / "videos" / label / f"{i}.avi")
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(8):
                writer.write(np.full((40, 48, 3), level + i + t, np.uint8))
            writer.release()
    finish(start(folder, "output_dir=whole", "save_steps=1", "keep_states=100"))
    assert len(list(states_of(folder / "whole").glob("*.index"))) == NUM_STEPS
    return folder


def start(folder: Path, *overrides: str, command: list[str] | None = None, **environment: str) -> subprocess.Popen[str]:
    """Starts a run, or a printed command, in its own process group, as a terminal does."""
    environment = os.environ | {"TF_DETERMINISTIC_OPS": "1", "WANDB_MODE": "offline"} | environment
    command = command or [sys.executable, str(ROOT / "train.py"), *TINY, *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Returns the output, with the errors of a run that is to fail."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors, errors
    return output + (errors if code else "")


def printed_command(output: str) -> list[str]:
    """Reads the resume command that a run printed; `exec` removes the shell, which would react to group signals."""
    (command,) = re.findall(r"[Gg]o on with\n  (.*)", output)
    return ["sh", "-c", "exec " + command]


def wait_until(is_so, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def states_of(run: Path) -> Path:
    return run / "checkpoints" / "last"


def newest_state(run: Path) -> int:
    return max((int(path.stem.removeprefix("ckpt-")) for path in states_of(run).glob("*.index")), default=0)


def read_state(run: Path, number: int) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(states_of(run) / f"ckpt-{number}"))
    keys = [key for key in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in key and "counter" not in key]
    return {key: reader.get_tensor(key) for key in keys}


def check_state(folder: Path, run: Path, number: int, whole: str = "whole") -> None:
    """Checks that a state equals the undisturbed run's, bit by bit."""
    expected, found = read_state(folder / whole, number), read_state(run, number)
    assert found.keys() == expected.keys()
    assert len(found) > 50
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


def number_saved(message: str) -> int:
    """Reads the number of the saved state from an error; 0 if none is saved."""
    if "no state is saved yet" in message or "cannot be written" in message:
        return 0
    (number,) = re.findall(rf"the state after epoch 1, step (\d+) of {NUM_STEPS} is saved", message)
    return int(number)


def cut_power(states: Path, log: Path) -> set[str]:
    """Empties files whose content or name is not yet on the disk; returns the names of the other files."""
    written, safe = set(), set()
    for line in log.read_text().splitlines():
        if line == str(states):
            safe |= written
        else:
            written.add(line)
    for path in states.rglob("*"):
        if path.is_file() and str(path) not in safe:
            path.write_bytes(b"")
    return {path.name for path in states.glob("*.index") if str(path) in safe}


def test_kills_signals_and_lost_power_on_a_slow_disk_leave_no_trace(folder, library):
    """SIGKILL, SIGTERM, then Ctrl-C in the whole process group, each while a state is written; wandb goes on, too."""
    run, log = folder / "the user's run", folder / "synced.txt"
    states, faults = states_of(run), slow_disk(library, 60, log)
    overrides = (r"output_dir='the user\'s run'", "save_steps=4", "logger=wandb")
    process = start(folder, *overrides, **faults)
    wait_until(lambda: list(states.glob("ckpt-8*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cut_power(states, log) == {"ckpt-4.index"}
    check_state(folder, run, 4)

    process = start(folder, *overrides, "resume=true", **faults)
    train_log = run / "train.log"
    wait_until(lambda: f"resumed after epoch 1, step 4 of {NUM_STEPS}" in train_log.read_text(), process)
    wait_until(lambda: list(states.glob("ckpt-8*")), process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 143)
    assert "once more to stop at once" in output
    assert "stopped by SIGTERM; " in output
    number = number_saved(output)
    assert f"ckpt-{number}.index" in cut_power(states, log)
    check_state(folder, run, number)

    process = start(folder, command=printed_command(output), **faults)
    wait_until(lambda: newest_state(run) > number, process)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process, 130)
    assert f"resumed after epoch 1, step {number} of {NUM_STEPS}" in output
    assert "stopped by Ctrl-C; " in output
    finish(start(folder, command=printed_command(output)))
    check_state(folder, run, NUM_STEPS)
    sessions = list((run / "wandb").glob("offline-run-*"))
    assert len(sessions) >= 3
    assert len({path.name.rpartition("-")[2] for path in sessions}) == 1


def test_ctrl_c_twice_ends_a_run_that_a_slow_disk_holds_up(folder, library, tmp_path):
    run = tmp_path / "run"
    process = start(folder, f"output_dir={run}", "save_steps=4", **slow_disk(library, 200))
    wait_until(lambda: newest_state(run) >= 8, process)  # so the state before it is complete
    process.send_signal(signal.SIGINT)
    text = ""
    while "once more to stop at once" not in text:
        text += process.stderr.readline()
        assert process.poll() is None, text
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert time.monotonic() - begin < 10
    assert process.returncode == 130, output + errors
    assert "stopped by" not in output
    # The state that was being written may be incomplete.
    output = finish(start(folder, f"output_dir={run}", "resume=true", "keep_states=9"))
    (saved,) = re.findall(rf"resumed after epoch 1, step (\d+) of {NUM_STEPS}", output)
    assert int(saved) >= 4
    check_state(folder, run, int(saved))
    check_state(folder, run, NUM_STEPS)


def test_kills_leave_no_trace(folder, library):
    """The first kill comes before anything new, the second at any moment after a state, the third inside a save."""
    steps = 8
    strong = ("augment=strong", "optimizer.ema_decay=0.9", f"batch_size={64 // steps}", "epochs=4", "save_steps=2")
    finish(start(folder, *strong, "output_dir=strong"))
    run = folder / "killed_run"
    log, states, rng, num_in_saves = run / "train.log", states_of(run), random.Random(0), 0
    for kill in range(NUM_KILLS):
        seen, known = len(log.read_text()) if log.exists() else 0, set(states.glob("*.index"))
        process = start(folder, *strong, "output_dir=killed_run", "resume=true", **slow_disk(library, 20))
        wait_until(lambda seen=seen: log.exists() and "output:" in log.read_text()[seen:], process)
        if kill:
            wait_until(lambda known=known: set(states.glob("*.index")) - known, process)
        if kill == 2:
            with contextlib.suppress(AssertionError):
                wait_until(lambda: list(states.glob("ckpt-*_temp*")), process)
                num_in_saves += 1
        else:
            time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert num_in_saves >= 1
    finish(start(folder, *strong, "output_dir=killed_run", "resume=true"))
    check_state(folder, run, 4 * steps, "strong")
    histories = [(folder / name / "history.csv").read_text().splitlines() for name in ("strong", "killed_run")]
    speed = histories[0][0].split(",").index("clips_per_sec")
    rows = [[line.split(",")[:speed] + line.split(",")[speed + 1 :] for line in history] for history in histories]
    assert rows[0] == rows[1]
    for name in ("best.safetensors", "best_ema.safetensors"):
        expected, found = (vswin.read_checkpoint(path / "checkpoints" / name) for path in (folder / "strong", run))
        assert all(np.array_equal(found[key], values) for key, values in expected.items())


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mounts a disk on a new folder."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a disk: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def keep_full(disk: Path, is_over: threading.Event) -> None:
    """Fills the disk, and keeps filling what becomes free."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        while not is_over.wait(0.005):
            with contextlib.suppress(OSError):
                while filler.write(bytes(4096)):
                    pass


def test_a_disk_that_fills_up_again_and_again_has_what_was_reported_as_saved(folder, library, tmp_path):
    """The disk is full from the start, some time later, after a new state, then while one is written."""
    disk = tmp_path / "disk"
    run = disk / "run"
    overrides, rng = (f"output_dir={run}", "save_steps=2", "resume=true"), random.Random(0)
    failures, messages, saved = [], "", 0
    with mounted(disk, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        for fill in range(NUM_FILLS):
            is_over = threading.Event()
            filler = threading.Thread(target=keep_full, args=(disk, is_over))
            known = set(states_of(run).glob("*.index"))
            if fill == 0:
                filler.start()
            # wandb itself prints errors if the disk is full before it has started.
            logs = ["logger=wandb"] if fill else []
            process = start(folder, *overrides, *logs, **slow_disk(library, 30))
            with contextlib.suppress(AssertionError):  # the run has ended
                if fill == 1:
                    wait_until(lambda: (run / "tensorboard").is_dir() and newest_state(run) > 0, process)
                    time.sleep(rng.uniform(0, 1))
                elif fill == 2:
                    wait_until(lambda known=known: set(states_of(run).glob("*.index")) - known, process)
                elif fill == 3:
                    wait_until(lambda: list(states_of(run).glob("ckpt-*_temp*")), process)
            if fill:
                filler.start()
            output, errors = process.communicate(timeout=300)
            is_over.set()
            filler.join()
            (disk / "filler").unlink()
            assert "Traceback" not in errors, errors
            if process.returncode == 0:
                break
            assert process.returncode == 1, output + errors
            before, _, message = errors.rpartition("error: ")
            assert "No space left on device" in message
            assert "No space left" not in before
            failures.append(fill)
            messages += message
            saved = max(saved, number_saved(message))
            assert newest_state(run) >= saved
            for path in states_of(run).glob("*.index"):
                check_state(folder, run, int(path.stem.removeprefix("ckpt-")))
        assert len(failures) >= 3
        assert "Make room, then go on with" in messages
        output = finish(start(folder, f"output_dir={run}", "resume=true"))
        assert f"resumed after epoch 1, step {newest_state(run)}" in output or newest_state(run) == NUM_STEPS
        check_state(folder, run, NUM_STEPS)
        left = [path.name for path in run.rglob("*") if "partial" in path.name or "temp" in path.name]
        assert left == []


def test_a_disk_that_turns_read_only_has_what_was_reported_as_saved(folder, tmp_path):
    """As Linux does to a disk with errors, in the middle of a run, with files open for writing."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    run = disk / "run"
    with mounted(disk, "-o", "loop,errors=remount-ro", str(image)):
        process = start(folder, f"output_dir={run}", "save_steps=2")
        wait_until(lambda: newest_state(run) > 0, process)
        subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True)
        message = finish(process, 1).rpartition("error: ")[2]
        assert "Read-only file system" in message
        saved = number_saved(message)
        assert saved >= 2
    subprocess.run(["fsck.ext4", "-y", str(image)], capture_output=True)
    with mounted(disk, "-o", "loop", str(image)):
        check_state(folder, run, saved)
        assert "resumed after epoch 1, step " in finish(start(folder, f"output_dir={run}", "resume=true"))
        check_state(folder, run, NUM_STEPS)


def test_a_file_that_may_not_grow_ends_a_run_in_one_paragraph(folder, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *TINY, f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000)),
    )
    before, _, message = done.stderr.partition("error: writing into ")
    assert done.returncode == 1
    assert "File too large" not in before + done.stdout
    assert len(message.splitlines()) == 2, done.stderr
    assert "File too large; no state is saved yet. Make room, then go on" in message


def test_a_clock_that_jumps_changes_nothing(folder, library):
    faults = {"LD_PRELOAD": str(library), "JUMP_SEC": "86400"}
    output = finish(start(folder, "output_dir=jumps", "save_minutes=0.01", **faults))
    (trained,) = re.findall(r"trained for (.*)", output)
    assert re.fullmatch(r"(\d min )?\d+ s", trained)
    assert len(list(states_of(folder / "jumps").glob("*.index"))) == 2
    check_state(folder, folder / "jumps", NUM_STEPS)
    days = {line.split()[0] for line in (folder / "jumps" / "train.log").read_text().splitlines() if line[:2] == "20"}
    assert len(days) > 1, "the clock did not jump"


def test_a_loss_that_is_not_finite_keeps_the_last_good_state_and_names_its_clips(
    folder, compose_train, monkeypatch, capsys
):
    """The learning rate explodes from the fifth step of the second epoch on."""
    original = WarmupCosine.__call__

    def explode(self: WarmupCosine, step: tf.Tensor) -> tf.Tensor:
        return tf.where(step < NUM_STEPS + 4, original(self, step), 1e38)

    monkeypatch.chdir(folder)
    run, overrides = folder / "exploded", (*TINY[:-1], "epochs=2", "output_dir=exploded")
    with monkeypatch.context() as patch:
        patch.setattr(WarmupCosine, "__call__", explode)
        with pytest.raises(InputError, match=rf"epoch 2, step \d of {NUM_STEPS}\) gave a loss of nan"):
            run_training(compose_train(*overrides))
    report = json.loads((run / "non_finite_step.json").read_text())
    assert report["global_step"] == NUM_STEPS + report["step_in_epoch"]
    assert report["step_in_epoch"] in (6, 7)
    assert len(report["clips"]) == 2
    assert all((folder / clip["path"]).exists() for clip in report["clips"])
    assert [path.stem for path in states_of(run).glob("*.index")] == [f"ckpt-{NUM_STEPS}"]
    assert all(np.isfinite(values).all() for values in vswin.read_checkpoint(run).values())
    history = run_training(compose_train(*overrides, "resume=true"))
    assert np.isfinite(history["loss"]).all()
    assert "resumed after epoch 1\n" in capsys.readouterr().out
