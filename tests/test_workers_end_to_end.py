"""Several real processes on this machine train and evaluate one model together, over the loopback network."""

import csv
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
NUM_TRAIN, NUM_VAL = 45, 7
TINY = [
    "dataset=folder",
    "clip=8x1_64px",
    "clip.num_frames=4",
    "clip.crop=32",
    "clip.resize=32",
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,2]",
    "dataset.allow_flip=false",
    "batch_size=6",
    "epochs=3",
    "logger.tensorboard=false",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes that differ in what moves, train and val."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for subset, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for number in range(count):
            folder = root / subset / ("left", "right")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            frame = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            writer = cv2.VideoWriter(str(folder / f"{number}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 40))
            for t in range(8):
                writer.write(np.roll(frame, (1 if number % 2 else -1) * 3 * t, axis=1))
            writer.release()
    return root


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for taken in sockets:
        taken.bind(("localhost", 0))
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


class Job:
    """Runs a script in one process per worker; each writes its output to a file."""

    def __init__(self, folder, num_workers, script, *overrides):
        folder.mkdir(parents=True, exist_ok=True)
        addresses = [f"localhost:{port}" for port in free_ports(num_workers)]
        self.outputs = [folder / f"{script}.{rank}.out" for rank in range(num_workers)]
        self.processes = []
        for rank, output in enumerate(self.outputs):
            environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "CUDA_VISIBLE_DEVICES": ""}
            if num_workers > 1:
                task = {"type": "worker", "index": rank}
                environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            command = [sys.executable, str(ROOT / script), *overrides]
            with output.open("w") as file:
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment)
            self.processes.append(process)

    def wait(self, timeout=400):
        return [process.wait(timeout) for process in self.processes]

    def wait_for(self, text, rank=0, timeout=300):
        deadline = time.monotonic() + timeout
        while text not in self.outputs[rank].read_text():
            assert self.processes[rank].poll() is None, self.outputs[rank].read_text()
            assert time.monotonic() < deadline, self.outputs[rank].read_text()
            time.sleep(0.1)

    def succeed(self):
        codes = self.wait()
        assert codes == [0] * len(codes), "\n".join(output.read_text() for output in self.outputs)
        return self


def train(folder, num_workers, videos, *overrides):
    return Job(folder, num_workers, "train.py", *TINY, f"dataset.root={videos}", "output_dir=run", *overrides)


def read_history(folder):
    with (folder / "run" / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def assert_same_weights(first, second):
    a, b = (load_file(folder / "run" / "checkpoints" / "best.safetensors") for folder in (first, second))
    assert a.keys() == b.keys()
    assert a
    for name, values in a.items():
        assert np.array_equal(values, b[name]), name


@pytest.fixture(scope="module")
def one(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("one")
    train(folder, 1, videos).succeed()
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("two")
    train(folder, 2, videos).succeed()
    return folder


def test_two_and_three_workers_train_as_one_device_does(tmp_path, videos, one, two):
    """Three epochs of eight steps, the last padded; three workers take one clip each."""
    train(tmp_path, 3, videos, "runtime.micro_batches=2").succeed()
    expected = read_history(one)
    for folder in (two, tmp_path):
        for row, reference in zip(read_history(folder), expected, strict=True):
            for key in ("loss", "val_loss", "top1", "val_top1", "val_f1_macro", "val_balanced_accuracy"):
                assert row[key] == pytest.approx(reference[key], abs=1e-5), (folder, key)


def test_each_worker_decodes_its_shard_and_only_the_chief_writes(two):
    run = two / "run"
    logs = [(run / name).read_text() for name in ("train.log", "train.worker1.log")]
    counts = [int(re.search(r"this worker decoded (\d+) of the 52 videos", text)[1]) for text in logs]
    assert sum(counts) >= NUM_TRAIN + NUM_VAL
    assert min(counts) >= 24
    names = ".lock checkpoints config.yaml curves.png environment.json history.csv report.html train.log"
    assert sorted(path.name for path in run.iterdir()) == [*names.split(), "train.worker1.log", "videos.json"]
    assert "2 workers, each with CPU" in logs[0]
    assert "GB for the 2 devices of this machine" in logs[0]
    terminals = [(two / f"train.py.{rank}.out").read_text() for rank in range(2)]
    assert ["epoch 1/3" in text for text in (*terminals, logs[1])] == [True, False, True]


def test_evaluation_counts_every_video_once_on_any_number_of_workers(tmp_path, videos, one):
    overrides = [f"run={one / 'run'}", "clip.num_clips=2", "clip.num_crops=3", "results_dir=results"]
    rows = []
    for num_workers in (1, 2):
        folder = tmp_path / str(num_workers)
        Job(folder, num_workers, "evaluate.py", *overrides, "output_dir=report").succeed()
        metrics = json.loads((folder / "report" / "metrics.json").read_text())
        assert metrics["num_videos"] == NUM_VAL
        assert metrics["protocol"]["decoder"]["opencv"]["videos"] == NUM_VAL
        assert sum(metrics["protocol"]["short_sides"].values()) == NUM_VAL
        assert len(json.loads((folder / "results" / "results.json").read_text())) == 1
        with (folder / "report" / "predictions.csv").open() as file:
            rows.append(list(csv.DictReader(file)))
    assert len(rows[0]) == len(rows[1]) == NUM_VAL
    for first, second in zip(*rows, strict=True):
        assert (first["path"], first["class_1"]) == (second["path"], second["class_1"])
        assert float(first["probability_1"]) == pytest.approx(float(second["probability_1"]), abs=2e-6)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_job_within_a_minute(tmp_path, videos, killed):
    job = train(tmp_path, 2, videos)
    job.wait_for("epoch 1/3")
    job.processes[killed].send_signal(signal.SIGKILL)
    started = time.monotonic()
    codes = job.wait(timeout=60)
    assert time.monotonic() - started < 60
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] not in (0, None)
    if killed == 1:
        # The chief's death ends the coordination service, which may abort the other processes.
        text = job.outputs[0].read_text()
        assert re.search(r"error: worker 0 \(localhost:\d+\): worker 1 \(localhost:\d+\) has gone", text), text


def test_a_worker_that_is_cut_off_names_the_chief_what_is_saved_and_how_to_go_on(tmp_path, videos):
    """Stopping the chief leaves the worker's heartbeats unanswered, as if the network were down."""
    job = train(tmp_path, 2, videos, "epochs=1000")
    try:
        job.wait_for("epoch    3/1000")
        job.processes[0].send_signal(signal.SIGSTOP)
        code = job.processes[1].wait(timeout=60)
    finally:
        for process in job.processes:
            process.kill()
            process.wait()
    text = job.outputs[1].read_text()
    assert code == 1, text
    assert re.search(
        r"error: worker 1 \(localhost:\d+\): the chief, worker 0 \(localhost:\d+\), cannot be reached.*"
        r" The state after epoch \d+ is saved and whole\. Start the job again, each worker with\n"
        r".* output_dir=run .*resume=true\n",
        text,
    ), text
    assert "Traceback" not in text


def test_a_signal_to_one_worker_stops_all_after_the_same_step_and_the_job_resumes_exactly(tmp_path, videos, two):
    job = train(tmp_path, 2, videos)
    job.wait_for("epoch 1/3")
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.wait(timeout=120) == [143, 143]
    assert "stopped by SIGTERM; the state after epoch" in job.outputs[0].read_text()
    train(tmp_path, 2, videos, "resume=true").succeed()
    assert_same_weights(tmp_path, two)
    assert read_history(tmp_path)[-1]["loss"] == read_history(two)[-1]["loss"]


def test_what_the_user_got_wrong_is_said_with_the_rank(tmp_path, videos):
    job = train(tmp_path, 2, videos, "batch_size=5")
    codes = job.wait(timeout=120)
    assert all(code not in (0, None) for code in codes)
    text = "".join(output.read_text() for output in job.outputs)
    assert re.search(r"error: worker [01] \(localhost:\d+\): batch_size=5 cannot be divided among 2 devices", text)
