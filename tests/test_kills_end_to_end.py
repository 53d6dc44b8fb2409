"""A training process that is killed again and again ends with the same results as without kills."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
NUM_KILLS = 12
OVERRIDES = [
    "dataset=folder",
    "clip=8x1_64px",
    "clip.num_frames=4",
    "clip.crop=32",
    "clip.resize=32",
    "model.embed_dim=24",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,2]",
    "model.dropout=0.3",
    "model.drop_path_rate=0.2",
    "augment=strong",
    "optimizer.ema_decay=0.9",
    "batch_size=8",
    "epochs=14",
    "save_steps=2",
    "output_dir=run",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for subset, count in (("train", 76), ("val", 10)):
        for number in range(count):
            folder = root / subset / ("left", "right")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            frame = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            writer = cv2.VideoWriter(str(folder / f"{number}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 40))
            for t in range(8):
                writer.write(np.roll(frame, (1 if number % 2 else -1) * 3 * t, axis=1))
            writer.release()
    return root


def start(folder, videos, *overrides):
    folder.mkdir(exist_ok=True)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TF_DETERMINISTIC_OPS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *OVERRIDES, f"dataset.root={videos}", *overrides]
    with (folder / "out.txt").open("a") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment)


def read_run(folder):
    """Reads all results of a run: both best weights, the last state, the history without speeds."""
    found = {}
    for name in ("best.safetensors", "best_ema.safetensors"):
        weights = load_file(folder / "run" / "checkpoints" / name)
        found |= {f"{name}/{key}": values for key, values in weights.items()}
    reader = tf.train.load_checkpoint(str(max((folder / "run/checkpoints/last").glob("*.index")).with_suffix("")))
    for key in reader.get_variable_to_shape_map():
        if "OBJECT_GRAPH" not in key and "save_counter" not in key:
            found[key] = reader.get_tensor(key)
    lines = (folder / "run" / "history.csv").read_text().splitlines()
    speed = lines[0].split(",").index("clips_per_sec")
    for number, line in enumerate(lines):
        cells = line.split(",")
        found[f"history {number}"] = np.array(cells[:speed] + cells[speed + 1 :])
    return found


def wait_until(is_so, process, seconds):
    """Waits until a condition holds, the process ends, or the time is over; returns whether the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if is_so():
            return True
    return False


def test_twelve_kills_leave_no_trace(tmp_path, videos):
    """A third of the kills comes before anything new, a third at any moment, a third inside a save."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, videos).wait(600) == 0, (whole / "out.txt").read_text()
    output = killed / "out.txt"
    states = killed / "run" / "checkpoints" / "last"
    rng = random.Random(0)
    num_kills = num_in_saves = 0
    while num_kills < NUM_KILLS:
        seen, known = len(output.read_text()) if output.exists() else 0, set(states.glob("*.index"))
        process = start(killed, videos, "resume=true")
        assert wait_until(lambda seen=seen: "output:" in output.read_text()[seen:], process, 120), output.read_text()
        if num_kills % 3:
            wait_until(lambda known=known: set(states.glob("*.index")) - known, process, 120)
        if num_kills % 3 == 2:
            num_in_saves += wait_until(lambda: list(states.glob("ckpt-*_temp*")), process, 30)
        else:
            time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_kills += 1
    assert process.poll() is not None
    if num_kills == NUM_KILLS:
        process = start(killed, videos, "resume=true")
    assert process.wait(600) == 0, (killed / "out.txt").read_text()
    assert num_kills >= 9, "the run was over too soon to be killed so often"
    assert num_in_saves >= 3
    expected, found = read_run(whole), read_run(killed)
    assert expected.keys() == found.keys()
    assert len(expected) > 100
    differing = [key for key, value in expected.items() if not np.array_equal(value, found[key])]
    assert differing == []
