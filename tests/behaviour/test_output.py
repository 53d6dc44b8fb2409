"""What a user reads, whatever names the files have and whatever becomes of the terminal."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ("model=swin_micro", "dataset=folder", "clip=8x1_64px", "batch_size=2", "epochs=2", "init_from=null")


def lose_terminal(command: list[str], seen: bytes) -> int:
    """Runs vswin on a terminal, with SIGHUP ignored; closes the terminal when it shows `seen`; gives the exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from vswin.cli import main; main()", *command],
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
def test_a_run_whose_terminal_is_gone_goes_on(small_videos, tmp_path):
    run = tmp_path / "run"
    assert lose_terminal(["train", *RUN, f"dataset.root={small_videos}", f"output_dir={run}"], b"epoch 1/2") == 0
    assert "trained for" in (run / "train.log").read_text()
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert (run / "checkpoints" / "best.h5").is_file()
    assert lose_terminal(["evaluate", f"run={run}", f"results_dir={tmp_path}"], b"precision:") == 0
    assert (run / "metrics.json").is_file()
    assert (run / "report.html").is_file()
