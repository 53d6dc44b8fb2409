"""Decoding processes end with the process that started them, however it ends, and never keep it from ending."""

import multiprocessing.resource_tracker
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vswin.data.decode import VIDEO_FILES
from vswin.data.isolated import IsolatedVideos
from vswin.errors import InputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs Linux or macOS")

STORE = """
import os, sys, time
from vswin.data.decode import VideoFiles
from vswin.data.samples import WHOLE

class SlowFiles(VideoFiles):
    def open(self, path, decoder="auto", timeout_sec=None, part=WHOLE):
        print(os.getpid(), file=sys.stderr, flush=True)
        time.sleep(3600 if path == "hang.avi" else 0)
        return super().open(path, decoder, timeout_sec, part)
"""
# One process waits for work, another hangs. The program uses the exit gate.
PROGRAM = """
import sys, threading, time
from vswin.errors import DecodeError
from vswin.data.decoders import ExitGate
gate = ExitGate()
from slow_store_of_the_tests import SlowFiles
from vswin.data.isolated import IsolatedVideos

def hang():
    with gate.passing():
        try:
            store.open("hang.avi")
        except DecodeError as error:
            print(error.cause, flush=True)

if __name__ == "__main__":
    store = IsolatedVideos(SlowFiles())
    reader = store.open(sys.argv[1])
    threading.Thread(target=hang, daemon=True).start()
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def program(tmp_path: Path, write_video) -> list[str]:
    """Writes a program that decodes in two processes, which print their ids; one of them hangs."""
    (tmp_path / "slow_store_of_the_tests.py").write_text(STORE)
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py"), write_video("good.avi", 5)]


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.02)


def test_they_end_when_their_parent_is_killed(program) -> None:
    with subprocess.Popen([*program, "600"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        pids = [int(running.stderr.readline()) for _ in range(2)]
        assert len(set(pids)) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        running.kill()
        wait_for_end(pids)
    assert running.returncode == -signal.SIGKILL


def test_one_that_hangs_does_not_hold_up_the_exit(program) -> None:
    start = time.monotonic()
    done = subprocess.run([*program, "2"], capture_output=True, text=True, timeout=60)
    assert time.monotonic() - start < 20
    assert done.returncode == 0
    pids = [int(line) for line in done.stderr.split()]
    assert len(pids) == 2
    wait_for_end(pids)


def test_the_main_program_is_not_run_again(tmp_path: Path, write_video) -> None:
    # This script has no `if __name__ == "__main__"`, like many others.
    code = f"""
print("once")
from vswin.data.isolated import IsolatedVideos
from vswin.data.decode import VIDEO_FILES
with IsolatedVideos(VIDEO_FILES).open({write_video("good.avi", 5)!r}) as reader:
    print(reader.num_video_frames)
"""
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n5\n", "")


def test_a_process_that_does_not_start_is_an_error(monkeypatch) -> None:
    multiprocessing.resource_tracker.ensure_running()
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    with pytest.raises(InputError, match=r"dataset\.isolate=true: a decoding process did not start"):
        IsolatedVideos(VIDEO_FILES)
