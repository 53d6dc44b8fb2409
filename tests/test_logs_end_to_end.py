"""A run that is killed, resumed and tested: wandb and TensorBoard show one run, with each epoch once."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from vswin.weights.checkpoint import read_metadata

ROOT = Path(__file__).parents[1]
NUM_STEPS = 5
KEYS = ("train/loss", "train/top1", "val/loss", "val/top1")
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "dataset.root=videos",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=2",
    "epochs=3",
    "optimizer.warmup_epochs=1",
    "logger=wandb",
    "output_dir=run",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(small_videos) -> Path:
    """The folder of `videos`: 10 for training, 2 for validation."""
    return small_videos.parent


def start(folder: Path, program: str, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / program), *overrides]
    environment = os.environ | {"WANDB_MODE": "offline"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_after_second_epoch(folder: Path) -> None:
    """Kills a run that has logged two epochs, and removes the state of the second."""
    process, states = start(folder, "train.py", *TINY), folder / "run" / "checkpoints" / "last"
    deadline = time.monotonic() + 300
    while not (states / f"ckpt-{2 * NUM_STEPS}.index").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for epoch in (2, 3):
        for path in states.glob(f"ckpt-{epoch * NUM_STEPS}.*"):
            path.unlink()


def read_history(folder: Path) -> dict[int, dict[str, float]]:
    """Reads the metrics of each epoch, counted from 1, by their standard keys."""
    rows = csv.DictReader((folder / "run" / "history.csv").read_text().splitlines())
    names = {"train/loss": "loss", "train/top1": "top1", "val/loss": "val_loss", "val/top1": "val_top1"}
    return {int(row["epoch"]) + 1: {key: float(row[names[key]]) for key in KEYS} for row in rows}


def check_wandb(folder: Path, sessions: list) -> None:
    run, history = folder / "run", read_history(folder)
    # A killed session may lose its logs in memory, so the next session logs all epochs.
    *_, resumed, tested = sessions
    run_id = (run / "wandb_run_id.txt").read_text()
    assert [path.stem for path in run.glob("wandb/offline-run-*/run-*.wandb")] == [f"run-{run_id}"] * 3
    assert {record.run_id for session in sessions for record in session.of("run")} == {run_id}
    assert [row["_step"] for row in resumed.history] == [1, 2, 3]
    rows = {row["_step"]: row for session in sessions for row in session.history}  # the later session's values win
    assert sorted(rows) == [1, 2, 3, 4]
    for epoch, figures in history.items():
        assert {key: rows[epoch][key] for key in KEYS} == pytest.approx(figures)
    assert resumed.config["epochs"] == 3
    assert (resumed.exit_code, tested.exit_code) == (0, 0)

    best = read_metadata(run / "checkpoints" / "best.safetensors")["epoch"]
    aliases = {alias: json.loads(entry.metadata)["epoch"] for entry in resumed.artifacts for alias in entry.aliases}
    assert (aliases["best"], aliases["last"]) == (best, 3)
    assert [session.artifacts for session in (*_, tested)] == [[], []]

    metrics = json.loads((run / "metrics.json").read_text())
    assert tested.summary["test/top1"] == metrics["top1"]
    for row, key in ((rows[3], "val/samples"), (rows[4], "test/samples")):
        assert len(row[f"{key}/captions"]) == metrics["num_videos"] == 2
        for film in row[f"{key}/videos"]:
            (path,) = run.glob(f"wandb/offline-run-*/files/{film['path']}")
            assert cv2.VideoCapture(str(path)).read()[0]
    (path,) = run.glob(f"wandb/offline-run-*/files/{rows[4]['test/confusion_matrix/path']}")
    assert cv2.imread(str(path)).shape == cv2.imread(str(run / "confusion_matrix.png")).shape
    assert rows[4]["test/confused_classes/nrows"] == round(2 * (1 - metrics["top1"]))


def check_tensorboard(folder: Path) -> None:
    run, history = folder / "run", read_history(folder)
    events = EventAccumulator(str(run / "tensorboard")).Reload()

    def read(key: str) -> dict[int, np.ndarray]:
        found = [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(key)]
        assert len(dict(found)) == len(found)
        return dict(found)

    for key in KEYS:
        assert read(key) == pytest.approx({epoch: figures[key] for epoch, figures in history.items()})
    tops = [figures["val/top1"] for figures in history.values()]
    assert read("val/best_top1") == pytest.approx({epoch: max(tops[:epoch]) for epoch in history})
    best = read_metadata(run / "checkpoints" / "best.safetensors")["epoch"]
    assert read("test/top1") == pytest.approx({best: json.loads((run / "metrics.json").read_text())["top1"]})
    for key in ("test/confusion_matrix", "test/samples"):
        _, _, image = read(key)[best]
        assert tf.io.decode_png(image).shape[2] == 3
    assert "hparams" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name


def test_a_run_that_is_killed_goes_on_and_is_tested_is_one_run_in_its_logs(folder, wandb_offline):
    kill_after_second_epoch(folder)
    assert len(read_history(folder)) >= 2
    output = finish(start(folder, "train.py", *TINY, "resume=true"))
    assert "resumed after epoch 1\n" in output
    assert "was not taken" not in output
    output = finish(start(folder, "evaluate.py", "run=run", "wandb=true"))
    assert "was not taken" not in output
    check_wandb(folder, wandb_offline(folder / "run"))
    check_tensorboard(folder)
