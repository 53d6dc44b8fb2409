"""Tests of `benchmarks/growth.py`, small: it writes its figures, table and plot."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "growth.py"


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_one_workload_has_time_and_memory():
    workload = {"model": "swin_micro", "num_frames": 4, "size": 32, "batch_size": 2}
    measured = json.loads(run("one", json.dumps(workload), "--rounds", "1"))
    assert measured["seconds"] > 0
    assert measured["memory_gb"] >= 0


@pytest.mark.slow
def test_lists_are_measured_and_drawn(tmp_path):
    output = run("records", "--most", "10000", "--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png"))
    assert "10 times the videos take " in output
    table = json.loads((tmp_path / "r.json").read_text())["table"]["videos"]
    assert [row["value"] for row in table] == [1000, 10000]
    assert all(row[key] > 0 for row in table for key in ("list_seconds", "pipeline_seconds", "first_batch_seconds"))
    assert cv2.imread(str(tmp_path / "r.png")).std() > 5
