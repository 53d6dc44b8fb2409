"""Whole runs on a disk that is slow, whose power fails, and with a clock that jumps: nothing reported as saved goes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[1]
NUM_STEPS = 32
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "model.drop_path_rate=0.2",
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Makes a folder with 64 training videos, 16 for validation, and in `whole` a run that kept each step's state."""
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


def start(folder: Path, *overrides: str, **environment: str) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"TF_DETERMINISTIC_OPS": "1"} | environment
    command = [sys.executable, str(ROOT / "train.py"), *TINY, *overrides]
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors, errors
    return output


def wait_until(is_so, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states_of(run: Path) -> Path:
    return run / "checkpoints" / "last"


def cut_power(states: Path, log: Path) -> set[str]:
    """Empties the files that the disk does not have yet, or whose names it has not; gives the names of the others."""
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


def read_state(run: Path, number: int) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(states_of(run) / f"ckpt-{number}"))
    keys = [key for key in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in key and "counter" not in key]
    return {key: reader.get_tensor(key) for key in keys}


def check_state(folder: Path, run: Path, number: int) -> None:
    """Checks that a state is, bit by bit, that of the run that nothing disturbed."""
    expected, found = read_state(folder / "whole", number), read_state(run, number)
    assert found.keys() == expected.keys()
    assert len(found) > 50
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


def test_a_slow_disk_whose_power_fails_has_what_was_reported_as_saved(folder, library):
    """Killed while a state is written, then stopped while one is written, each time with the power going."""
    run, states = folder / "run", states_of(folder / "run")
    log = folder / "synced.txt"
    faults = {"LD_PRELOAD": str(library), "SLOW_PATH": "run/checkpoints", "SLOW_MSEC": "60", "SLOW_LOG": str(log)}
    process = start(folder, "output_dir=run", "save_steps=8", **faults)
    wait_until(lambda: list(states.glob("ckpt-16*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cut_power(states, log) == {"ckpt-8.index"}
    check_state(folder, run, 8)

    process = start(folder, "output_dir=run", "save_steps=8", "resume=true", **faults)
    train_log = run / "train.log"
    wait_until(lambda: f"resumed after epoch 1, step 8 of {NUM_STEPS}" in train_log.read_text(), process)
    wait_until(lambda: list(states.glob("ckpt-16*")), process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 143)
    (number,) = re.findall(rf"the state after epoch 1, step (\d+) of {NUM_STEPS} is saved", output)
    assert f"ckpt-{number}.index" in cut_power(states, log)
    check_state(folder, run, int(number))


def test_a_clock_that_jumps_changes_nothing(folder, library):
    faults = {"LD_PRELOAD": str(library), "JUMP_SEC": "86400"}
    output = finish(start(folder, "output_dir=jumps", "save_minutes=0.01", **faults))
    (trained,) = re.findall(r"trained for (.*)", output)
    assert re.fullmatch(r"(\d min )?\d+ s", trained)
    assert len(list(states_of(folder / "jumps").glob("*.index"))) == 2
    check_state(folder, folder / "jumps", NUM_STEPS)
    days = {line.split()[0] for line in (folder / "jumps" / "train.log").read_text().splitlines() if line[:2] == "20"}
    assert len(days) > 1, "the clock did not jump"
