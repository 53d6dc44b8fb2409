"""Whole runs on machines that fail: folders that are taken, vanish or cannot be written, little memory, no network."""

import contextlib
import gzip
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np
import pytest

import vswin

ROOT = Path(__file__).parents[1]
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "dataset.root=videos",
    "clip.num_frames=4",
    "clip.resize=40",
    "clip.crop=32",
    "batch_size=2",
    "epochs=3",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Makes a folder to run in, with 64 training and 16 validation videos in `videos`."""
    for label, level in (("bright", 150), ("dark", 40)):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for i in range(40):
            path = str(tmp_path / "videos" / label / f"{i}.avi")
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(8):
                writer.write(np.full((40, 48, 3), level + i + t, np.uint8))
            writer.release()
    return tmp_path


def command(script: str, *overrides: str) -> list[str]:
    tiny = [word for word in TINY if script == "train.py" or not word.startswith("epochs")]
    return [sys.executable, str(ROOT / script), *tiny, *overrides]


def start(cwd: Path, *overrides: str, **options) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command("train.py", *overrides), cwd=cwd, **pipes, **options)


def run(words: list[str], cwd: Path, **options) -> tuple[int, str, str]:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def wait_for(text: str, path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not path.exists() or text not in path.read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_all_states(run_folder: Path) -> bool:
    names = {path.name for path in (run_folder / "checkpoints" / "last").glob("*.index")}
    return names == {"ckpt-64.index", "ckpt-96.index"}


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_second_run_in_a_folder_is_refused_and_does_the_first_no_harm(folder):
    first = start(folder, "output_dir=run")
    wait_for("output:", folder / "run" / "train.log", first)
    code, _, errors = run(command("train.py", "output_dir=run", "resume=true"), folder)
    assert code == 1
    assert f"error: another process is training in run (process {first.pid} on " in errors
    output, errors = first.communicate(timeout=300)
    assert first.returncode == 0, output + errors
    assert has_all_states(folder / "run")


def test_a_folder_that_is_read_only_is_said_at_once(folder):
    with small_disk(folder, "ro"):
        code, _, errors = run(command("train.py", "output_dir=disk/run"), folder)
    assert code == 1
    assert "error: output_dir=disk/run cannot be written (Read-only file system); name another folder" in errors


def test_an_evaluation_whose_disk_is_full_keeps_its_report_elsewhere(folder):
    with small_disk(folder, "size=64k") as disk:
        (disk / "filler").write_bytes(bytes((64 << 10) - 8192))
        words = command("evaluate.py", "init_from=null", "output_dir=disk/report", "results_dir=null")
        code, output, errors = run(words, folder)
        # The report is written completely or not at all.
        assert {path.name for path in (disk / "report").iterdir()} <= {".report.lock"}
    assert code == 1
    assert "top-1" in output
    found = re.search(r"error: the evaluation is complete, .* \(No space left on device\); it is in (\S+)", errors)
    assert found, errors
    assert json.loads((Path(found[1]) / "metrics.json").read_text())["num_videos"] == 80
    shutil.rmtree(found[1])


def test_too_little_memory_names_the_settings_that_need_less(folder):
    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    # The normalised clips take 2.5 GB in one piece: they do not fit, and much memory stays free.
    larger = ("clip.num_frames=64", "clip.resize=640", "clip.crop=640", "batch_size=8")
    words = command("train.py", "output_dir=run", *larger)
    code, output, errors = run(words, folder, preexec_fn=limit_memory)
    assert code == 1, output + errors
    assert "error: out of memory: batch_size=8 clips of 64 x 640 x 640 with runtime.micro_batches=1" in errors
    assert errors.splitlines()[-1].endswith("resume=true runtime.micro_batches=2")


def test_wandb_without_a_network_is_said_in_one_paragraph(folder):
    environment = os.environ | {"WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "5"}
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait forever to be accepted
        environment |= {"WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        code, output, errors = run(command("train.py", "output_dir=run", "logger=wandb"), folder, env=environment)
    assert code == 1, output
    assert "error: logger=wandb asks for wandb, which cannot start" in errors
    assert "WANDB_MODE=offline" in errors


class WandbServer(ThreadingHTTPServer):
    """Answers enough for a run of wandb, and keeps what it receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WandbRequest)
        self.sent: list[tuple[str, str]] = []
        self.answers = Event()
        self.answers.set()
        Thread(target=self.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        home = dict.fromkeys(("NETRC", "WANDB_CONFIG_DIR"), "/nonexistent")
        url = f"http://127.0.0.1:{self.server_port}"
        account = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": url, "WANDB_ERROR_REPORTING": "false"}
        return os.environ | home | account | {"WANDB_FINISH_TIMEOUT": "4"}

    def fall_silent(self) -> None:
        """Keeps accepting connections and reading, but stops answering."""
        self.answers.clear()

    def close(self) -> None:
        self.answers.set()
        self.shutdown()
        self.server_close()


class WandbRequest(BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        plain = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        text = plain.decode(errors="replace")  # sample videos arrive here, too
        if not self.server.answers.wait(600):
            return
        self.server.sent.append((self.path, text))
        answer = json.dumps(self.answer(json.loads(text)) if self.path == "/graphql" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST

    def answer(self, asked: dict) -> dict:
        if "UpsertBucket" in asked["query"]:
            project = {"name": "vswin", "entity": {"name": "someone"}}
            bucket = {"id": "1", "name": asked["variables"]["name"], "config": "{}", "project": project}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "CreateRunFiles" in asked["query"]:
            url = f"http://127.0.0.1:{self.server.server_port}/file"
            files = [{"name": name, "uploadUrl": url} for name in asked["variables"]["files"]]
            return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        return {"data": {"model": None}}


def test_a_network_that_wandb_loses_during_a_run_costs_seconds_and_nothing_of_the_run(folder):
    server = WandbServer()
    command = ("output_dir=run", "logger=wandb")
    process = start(folder, *command, env=server.environment())
    wait_for("epoch 1/3", folder / "run" / "train.log", process)
    server.fall_silent()
    assert any("UpsertBucket" in text for _, text in server.sent)
    wait_for("wandb: not everything was sent", folder / "run" / "train.log", process)
    trained = time.monotonic()
    output, errors = process.communicate(timeout=300)
    assert time.monotonic() - trained < 20
    assert process.returncode == 0, output + errors
    assert "Traceback" not in errors, errors
    assert "test it on several views" in output
    assert has_all_states(folder / "run")
    assert len((folder / "run" / "history.csv").read_text().splitlines()) == 1 + 3
    # The printed command sends what is on the disk.
    (sync,) = re.findall(r"What is on the disk can be sent with\n  (wandb sync .*)", output)
    server = WandbServer()
    words = [sys.executable, "-m", *sync.split()]
    code, output, errors = run(words, folder, env=server.environment())
    server.close()
    assert code == 0, output + errors
    history = "".join(text for path, text in server.sent if path.endswith("file_stream"))
    assert all(rf"\"epoch\":{epoch}" in history for epoch in (1, 2, 3)), server.sent


def test_training_needs_no_shared_memory(folder):
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    if tried.returncode != 0:
        pytest.skip("needs the right to have mounts of its own")
    full = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/filler; exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", full, "sh", *command("train.py", "output_dir=run", "epochs=1")]
    code, output, errors = run(words, folder)
    assert code == 0, output + errors
    assert vswin.read_checkpoint(folder / "run")
