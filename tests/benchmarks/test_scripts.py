"""The scripts in benchmarks/ run, small, and write what they measured."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
CLIP = ("clip.num_frames=4", "clip.resize=32", "clip.crop=32")


def run(script: str, *words: str) -> str:
    done = subprocess.run([sys.executable, str(SCRIPTS / script), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path: Path) -> tuple[list[str], list[str], dict]:
    result = json.loads(path.read_text())
    return [row["name"] for row in result["rows"]], [row["name"] for row in result["references"]], result["notes"]


@pytest.mark.slow
def test_an_evaluation_is_measured_against_one_view_after_another(small_videos, tmp_path):
    videos = ("--videos", *map(str, sorted(small_videos.glob("dark/*.avi"))[:2]))
    run("evaluation.py", *CLIP, "clip.num_clips=2", *videos, "--rounds", "1", "--json", str(tmp_path / "r.json"))
    rows, references, _ = read(tmp_path / "r.json")
    assert (rows, references) == (["one by one", "all views"], ["reading one by one", "reading all views"])


@pytest.mark.slow
def test_the_first_step_of_a_run_is_waited_for(small_videos, tmp_path):
    words = ("dataset=folder", f"dataset.root={small_videos}", *CLIP, "batch_size=4", "--rounds", "1")
    run("startup.py", *words, "--json", str(tmp_path / "r.json"))
    rows, references, notes = read(tmp_path / "r.json")
    assert rows == ["train.py --help", "first training step"]
    assert references == ["bare Python", "import tensorflow, tf_keras"]
    imported = set(notes["train.py --help imports"])
    assert {"hydra", "omegaconf", "vswin"} <= imported
    assert not {"tensorflow", "tf_keras", "numpy", "cv2"} & imported


@pytest.mark.slow
def test_operations_are_counted_and_a_profile_is_written(tmp_path):
    size = ("--model", "swin_micro", "--frames", "4", "--size", "32")
    lines = run("operations.py", "model", str(tmp_path), *size).splitlines()
    names = [line.split()[0] for line in lines[1:-2]]
    assert any("MatMul" in name for name in names)
    assert list(tmp_path.rglob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.slow
def test_one_workload_has_time_and_memory():
    workload = {"model": "swin_micro", "num_frames": 4, "size": 32, "batch_size": 2}
    measured = json.loads(run("growth.py", "one", json.dumps(workload), "--rounds", "1"))
    assert measured["seconds"] > 0
    assert measured["memory_gb"] >= 0


@pytest.mark.slow
def test_lists_are_measured_and_drawn(tmp_path):
    output = run(
        "growth.py", "records", "--most", "10000", "--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")
    )
    assert "10 times the videos take " in output
    table = json.loads((tmp_path / "r.json").read_text())["table"]["videos"]
    assert [row["value"] for row in table] == [1000, 10000]
    assert all(row[key] > 0 for row in table for key in ("list_seconds", "pipeline_seconds", "first_batch_seconds"))
    assert cv2.imread(str(tmp_path / "r.png")).std() > 5
