"""`vswin predict` agrees with `vswin evaluate` on the same videos, and works the way people call it."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from vswin.data.motion import MotionPlan, prepare_motion

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from vswin.cli import main; main()"]
PROTOCOL = {"num_clips": 2, "num_crops": 3, "num_frames": 6, "crop": 56, "resize": 60}

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    folder: Path
    videos: Path


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def vswin(*arguments: str, cwd: Path) -> str:
    """Runs a command; returns its standard output, and shows the rest if it fails."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Trains `swin_micro` for four steps on a small copy of `motion`."""
    folder = tmp_path_factory.mktemp("predict")
    prepare_motion(folder / "motion", MotionPlan(train_per_class=8, val_per_class=3))
    data = ("dataset=folder", f"dataset.root={folder}/motion", "clip=8x1_64px", "dataset.allow_flip=false")
    vswin("train", "model=swin_micro", *data, "epochs=1", "batch_size=16", "output_dir=run", cwd=folder)
    return Run(folder, folder / "motion" / "val")


def test_predictions_are_those_of_the_evaluation(run):
    keys = [f"clip.{key}={value}" for key, value in PROTOCOL.items()]
    vswin("evaluate", "run=run", *keys, "output_dir=report", cwd=run.folder)
    options = [option for key in keys for option in ("--set", key)]
    printed = vswin("predict", str(run.videos), "--model", "run", *options, "--csv", "-", cwd=run.folder)
    predicted = {row["path"]: row for row in csv.DictReader(io.StringIO(printed))}
    with (run.folder / "report" / "predictions.csv").open(newline="") as file:
        evaluated = {row["path"]: row for row in csv.DictReader(file)}
    assert len(evaluated) == 24
    assert predicted.keys() == evaluated.keys()
    for path, row in evaluated.items():
        for rank in range(1, 6):
            # Videos are batched differently, so the last digit may differ.
            value = float(row[f"probability_{rank}"])
            assert float(predicted[path][f"probability_{rank}"]) == pytest.approx(value, abs=2e-6)
            assert predicted[path][f"class_{rank}"] == row[f"class_{rank}"]
    assert len({row["probability_1"] for row in evaluated.values()}) > 20


def test_standard_output_is_nothing_but_json_and_files_are_read_back(run):
    printed = vswin("predict", f"{run.videos}/zoom*", "--model", "run", "--top-k", "1", "--json", "-", cwd=run.folder)
    entries = json.loads(printed)["predictions"]
    assert [Path(entry["path"]).parent.name for entry in entries] == ["zoom_in"] * 3 + ["zoom_out"] * 3
    vswin("extract", str(run.videos), "--model", "run", "--output", "f.npz", cwd=run.folder)
    found = np.load(run.folder / "f.npz")
    assert found["features"].shape == (24, 192)
    assert sorted(set(found["label"].tolist()))[:2] == ["move_down", "move_left"]


@pytest.mark.parametrize(("colour", "num_columns"), [({}, 100), ({"NO_COLOR": "1"}, 36)])
def test_on_a_terminal_there_is_a_bar_and_without_colour_none_of_that(run, colour, num_columns):
    video = run.videos / "zoom_in" / "00001.avi"
    command = [*COMMAND, "predict", str(video), "--model", "run", "--top-k", "2", "--save", f"saved_{num_columns}"]
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=run.folder,
        stdout=follower,
        stderr=subprocess.DEVNULL,
        env=environment(TERM="xterm-256color", COLUMNS=str(num_columns), **colour),
    )
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    assert process.wait(timeout=60) == 0, shown.decode()
    assert b"predict" in shown  # the bar's name
    assert b"\x1b[" in shown
    assert (b"\x1b[38;" in shown) == (not colour)
    assert (run.folder / f"saved_{num_columns}" / "00001.mp4").is_file()


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # Linux reports the closed other end this way
        return b""
