"""A run crashes with a segmentation fault in OpenCV, resumes with `dataset.isolate=true`, and is evaluated."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="file names are always Unicode there"),
]

TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "dataset.max_bad_share=0.3",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=4",
    "epochs=2",
    "optimizer.warmup_epochs=0",
)
# OpenCV crashes at a name that is not UTF-8; vswin refuses such names, but not here.
UNCHECKED = """
import vswin.data.inspection
vswin.data.inspection.check_file = lambda path, content: None
"""


def run(folder: Path, script: str, *overrides: str) -> tuple[int, str]:
    (folder / "sitecustomize.py").write_text(UNCHECKED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *overrides],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


def read_bad(path: Path) -> list[tuple[str, str]]:
    rows = csv.DictReader(path.read_text().splitlines())
    return [(Path(row["path"]).name, row["cause"]) for row in rows]


def test_a_run_that_crashed_goes_on_when_decoding_is_isolated(small_videos: Path, tmp_path: Path) -> None:
    for subset in ("train", "val"):
        shutil.copytree(small_videos, tmp_path / "sets" / subset)
        crash = os.path.join(os.fsencode(tmp_path), b"sets", subset.encode(), b"dark", subset.encode() + b"\xe9.avi")
        shutil.copy(small_videos / "dark" / "0.avi", crash)
    overrides = [*TINY, f"dataset.root={tmp_path / 'sets'}", f"output_dir={tmp_path / 'run'}"]

    code, text = run(tmp_path, "train.py", *overrides)
    assert code == -signal.SIGSEGV, text
    code, text = run(tmp_path, "train.py", *overrides, "resume=true", "dataset.isolate=true")
    assert code == 0, text
    assert "(2 decoder crashed)" in text
    cause = "decoder crashed (SIGSEGV)"
    assert read_bad(tmp_path / "run" / "bad_videos.csv") == [("train\\udce9.avi", cause), ("val\\udce9.avi", cause)]

    evaluation = (f"run={tmp_path / 'run'}", "dataset.isolate=true", "allow_bad_videos=true")
    code, text = run(tmp_path, "evaluate.py", *evaluation)
    assert code == 0, text
    assert read_bad(tmp_path / "run" / "evaluation_bad_videos.csv") == [("val\\udce9.avi", cause)]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["num_videos"], metrics["num_bad_videos"]) == (13, 1)
