"""Whole runs that are interrupted, or meet a full disk, and resume with the command they print."""

import contextlib
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
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
NUM_STEPS = 75

pytestmark = pytest.mark.slow

# 75 steps per epoch, of several milliseconds each: enough time to interrupt one.
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "model.drop_path_rate=0.2",
    "model.dropout=0.3",
    "dataset=folder",
    "dataset.root=my videos",
    "clip.num_frames=4",
    "clip.resize=40",
    "clip.crop=32",
    "batch_size=2",
    "epochs=3",
    "optimizer.warmup_epochs=1",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Makes a folder to run in, with 150 training and 38 validation videos in `my videos`."""
    for label, level in (("bright", 150), ("dark", 40)):
        (tmp_path / "my videos" / label).mkdir(parents=True)
        for i in range(94):
            path = tmp_path / "my videos" / label / f"{i}.avi"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(12):
                writer.write(np.full((40, 48, 3), level + i + t, np.uint8))
            writer.release()
    return tmp_path


def start(*overrides: str, cwd: Path, **options) -> subprocess.Popen[str]:
    """Starts a run in its own process group, as a terminal does."""
    command = [sys.executable, str(ROOT / "train.py"), *TINY, *overrides]
    return start_command(command, cwd, **options)


def start_command(command: list[str], cwd: Path, **options) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, start_new_session=True, **pipes, **options)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(run: Path, epoch: int) -> Path:
    return run / "checkpoints" / "last" / f"ckpt-{epoch * NUM_STEPS}.index"


def wait_for_record(run: Path, epoch: int, process: subprocess.Popen[str]) -> None:
    """Waits until TensorFlow's record names a state, which is the last file of its write."""
    record, newest = state(run, epoch).with_name("checkpoint"), state(run, epoch).stem
    wait_for(record, process)
    while f'model_checkpoint_path: "{newest}"' not in record.read_text():
        time.sleep(0.01)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=600)
    return process.returncode, output, errors


def last_command(text: str) -> list[str]:
    """Reads the resume command that a run printed; `exec` removes the shell, which would react to group signals."""
    return ["sh", "-c", "exec " + text.splitlines()[-1].strip()]


def read_history(run: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((run / "history.csv").read_text().splitlines())
    return [{key: float(value) for key, value in row.items()} for row in rows]


def test_ctrl_c_and_sigterm_inside_epochs_leave_no_trace_in_the_result(folder):
    """SIGTERM, then Ctrl-C in the whole process group: the run equals an uninterrupted one, and wandb resumes."""
    assert finish(start("output_dir=whole", cwd=folder))[0] == 0

    run = folder / "the user's run"
    overrides = (r"output_dir='the user\'s run'", "logger=wandb")
    environment = os.environ | {"WANDB_MODE": "offline"}
    process = start(*overrides, cwd=folder, env=environment)
    wait_for(run / "tensorboard", process)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    code, output, errors = finish(process)
    assert code == 143, output + errors
    assert "once more to stop at once" in errors
    assert "Traceback" not in errors
    assert "stopped by SIGTERM; the state after epoch 1, step " in output
    assert output.splitlines()[-2].endswith(f" of {NUM_STEPS} is saved. Go on with")

    process = start_command(last_command(output), folder, env=environment)
    wait_for(state(run, 1), process)
    os.killpg(process.pid, signal.SIGINT)
    code, output, errors = finish(process)
    assert code == 130, output + errors
    assert "resumed after epoch 1, step " in output
    assert "stopped by Ctrl-C; the state after epoch 2, step " in output

    code, output, errors = finish(start_command(last_command(output), folder, env=environment))
    assert code == 0, output + errors
    assert "resumed after epoch 2, step " in output
    whole, interrupted = read_history(folder / "whole"), read_history(run)
    assert [row["epoch"] for row in interrupted] == [0, 1, 2]
    for expected, row in zip(whole, interrupted, strict=True):
        for key in ("loss", "top1", "val_loss", "val_top1", "learning_rate"):
            assert row[key] == pytest.approx(expected[key], rel=1e-5)
    expected = vswin.read_checkpoint(folder / "whole")
    for name, values in vswin.read_checkpoint(run).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-6)
    assert len(list((run / "wandb").glob("offline-run-*"))) == 3
    assert len({path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}) == 1


def test_a_second_ctrl_c_ends_a_run_at_once_and_costs_the_epoch_alone(folder):
    run = folder / "run"
    process = start("output_dir=run", cwd=folder)
    wait_for(state(run, 1), process)
    os.kill(process.pid, signal.SIGSTOP)  # both signals arrive before the step continues
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGCONT)
    code, output, _ = finish(process)
    assert code in (130, 143)
    assert "stopped by" not in output
    code, output, errors = finish(start("output_dir=run", "resume=true", cwd=folder))
    assert code == 0, output + errors
    assert "resumed after epoch 1\n" in output
    assert [row["epoch"] for row in read_history(run)] == [0, 1, 2]


def test_a_run_that_has_stopped_early_is_complete(folder):
    overrides = ("output_dir=run", "epochs=8", "patience=1", "optimizer.learning_rate=0")
    code, output, errors = finish(start(*overrides, cwd=folder))
    assert code == 0, output + errors
    assert "stopped early: no better val top-1 for patience=1 epoch" in output
    assert len(read_history(folder / "run")) == 2
    code, output, _ = finish(start(*overrides, "resume=true", cwd=folder))
    assert code == 0
    assert "the run is complete, stopped early" in output
    assert len(read_history(folder / "run")) == 2


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """Mounts a separate disk on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def can_mount(path: Path) -> bool:
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        return False
    subprocess.run(["umount", str(path)], check=True)
    return True


def fill(disk: Path) -> None:
    """Fills a disk, including the last pages of files that runs write."""
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


def check_disk_error(code: int, errors: str) -> None:
    """Checks that an error is one paragraph; TensorFlow's messages about CUDA come before it."""
    assert code == 1, errors
    assert "Traceback" not in errors
    before, _, message = errors.partition("error: writing into ")
    assert len(message.splitlines()) == 2, errors
    assert "No space left" not in before
    assert "File too large" not in before


def test_a_full_disk_loses_nothing_that_was_reported_as_saved(folder):
    disk = folder / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("needs the right to mount a small disk")
    run = disk / "run"
    with small_disk(disk, megabytes=8):
        process = start("output_dir=disk/run", "logger=wandb", cwd=folder, env=os.environ | {"WANDB_MODE": "offline"})
        wait_for_record(run, 1, process)
        fill(disk)
        code, output, errors = finish(process)
        check_disk_error(code, errors)
        assert "No space left on device; the state after epoch 1 is saved and whole. Make room, then go on" in errors
        assert len(read_history(run)) == 1
        assert vswin.read_checkpoint(run)
        (disk / "filler").unlink()
        code, output, errors = finish(start_command(last_command(errors), folder))
        assert code == 0, output + errors
        assert "resumed after epoch 1" in output
        assert [row["epoch"] for row in read_history(run)] == [0, 1, 2]
        left = [path.name for path in run.rglob("*") if "partial" in path.name or "temp" in path.name]
        assert left == []


@pytest.mark.parametrize("limit", [10_000, 70_000])
def test_a_file_that_may_not_grow_ends_a_run_in_one_paragraph(folder, limit):
    """The system limits the file size, once below the size of the best weights, once below that of the state."""

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code, _, errors = finish(start("output_dir=run", cwd=folder, preexec_fn=set_limit))
    check_disk_error(code, errors)
    assert "File too large; no state is saved yet. Make room, then go on" in errors
    assert [path.suffix for path in (folder / "run" / "checkpoints").rglob("*.*")] in ([], [".safetensors"])


def test_a_loss_that_is_not_finite_keeps_the_last_good_state_and_names_its_clips(
    folder, compose_train, monkeypatch, capsys
):
    """The learning rate explodes from the fifth step of the second epoch on."""
    original = WarmupCosine.__call__

    def explode(self: WarmupCosine, step: tf.Tensor) -> tf.Tensor:
        return tf.where(step < NUM_STEPS + 4, original(self, step), 1e38)

    monkeypatch.chdir(folder)
    run = folder / "run"
    with monkeypatch.context() as patch:
        patch.setattr(WarmupCosine, "__call__", explode)
        with pytest.raises(InputError, match=r"epoch 2, step \d of 75\) gave a loss of nan"):
            run_training(compose_train(*TINY, "output_dir=run"))
    report = json.loads((run / "non_finite_step.json").read_text())
    assert report["global_step"] == NUM_STEPS + report["step_in_epoch"]
    assert report["step_in_epoch"] in (6, 7)
    assert len(report["clips"]) == 2
    assert all((folder / clip["path"]).exists() for clip in report["clips"])
    assert [path.name for path in (run / "checkpoints" / "last").glob("*.index")] == [state(run, 1).name]
    assert all(np.isfinite(values).all() for values in vswin.read_checkpoint(run).values())
    history = run_training(compose_train(*TINY, "output_dir=run", "resume=true"))
    assert len(history["loss"]) == 2
    assert np.isfinite(history["loss"]).all()
    assert "resumed after epoch 1\n" in capsys.readouterr().out
