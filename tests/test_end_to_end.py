"""Whole runs of the commands in the README, each in its own process and folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest

ROOT = Path(__file__).parents[1]
CLIPS = ROOT / "tests" / "clips"

pytestmark = pytest.mark.slow

TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "model.drop_path_rate=0.2",
    "model.dropout=0.3",
    "dataset=folder",
    "clip.num_frames=4",
    "clip.frame_stride=4",
    "clip.resize=40",
    "clip.crop=32",
    "batch_size=4",
)


def run(script: str, *overrides: str, cwd: Path, code: int = 0, **environment: str) -> str:
    command, environment = [sys.executable, str(ROOT / script), *overrides], os.environ | environment
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200
    )
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.fixture
def real_clips(tmp_path: Path) -> Path:
    """Cuts each of the three clips into five pieces: three classes of real videos."""
    root = tmp_path / "clips"
    for clip in sorted(CLIPS.glob("*.*")):
        if clip.suffix == ".md":
            continue
        (root / clip.stem).mkdir(parents=True)
        for i in range(5):
            piece = root / clip.stem / f"piece_{i}.mp4"
            cut = ["-ss", str(i), "-i", str(clip), "-t", "1.5", "-an", "-c:v", "mpeg4", "-q:v", "3", str(piece)]
            subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *cut], check=True)
    return root


def test_real_clips_are_told_apart_by_folder_and_by_list(tmp_path, real_clips):
    run("train.py", *TINY, f"dataset.root={real_clips}", "epochs=12", "output_dir=run", cwd=tmp_path)
    report = tmp_path / "run" / "report.html"
    assert "12 of 12 epochs" in report.read_text()
    assert "vswin evaluate run=run" in report.read_text()
    run("evaluate.py", "run=run", "clip.num_clips=2", "clip.num_crops=3", cwd=tmp_path)
    # One page shows the training and the test, with a moving picture of each sample clip.
    page = report.read_text()
    assert "12 of 12 epochs" in page
    assert "2 clips x 3 crops" in page
    assert page.count("<picture>") == 3
    assert "no picture" not in page
    assert page.count("train.py ") == page.count("evaluate.py ") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["top1"] == 1.0
    assert metrics["protocol"]["num_crops"] == 3

    lines = [f"{path.relative_to(real_clips)} {path.parent.name}" for path in sorted(real_clips.rglob("*.mp4"))]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    lists = ("dataset.train_list=all.txt", "dataset.val_list=all.txt")
    run("evaluate.py", "run=run", *lists, cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["num_videos"] == 15
    (earlier,) = (tmp_path / "run" / "earlier_evaluations").iterdir()
    assert (earlier / "report.html").read_text() == page
    assert "15 videos" in report.read_text()

    code = "from vswin.cli import main; main()"
    command = [sys.executable, "-c", code, "compare", "run", "run/earlier_evaluations/*", "--json", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    pair = json.loads(done.stdout)["pairs"][0]
    assert (pair["num_videos"], pair["num_first_has_alone"], pair["num_second_has_alone"]) == (3, 12, 0)
    assert any("tested differently: num_clips" in note for note in pair["notes"])
    assert "devices of the training: CPU" in done.stderr


def test_fine_tuning_says_what_is_missing_and_where_to_get_it(tmp_path, real_clips):
    output = run("train.py", "model=swin_base", "dataset=ucf101", cwd=tmp_path, code=1)
    assert all(words in output for words in ("UCF101", "crcv.ucf.edu", "set dataset.root"))
    # Nothing answers at the proxy's address, as on a machine without network.
    environment = {"HTTPS_PROXY": "http://127.0.0.1:9", "VSWIN_CACHE": str(tmp_path / "cache")}
    overrides = ("model=swin_base", "dataset=folder", f"dataset.root={real_clips}")
    output = run("train.py", *overrides, cwd=tmp_path, code=1, **environment)
    name = "swin_base_patch244_window877_kinetics400_22k"
    for words in (f"v1.0.4/{name}.pth", str(tmp_path / "cache"), "VSWIN_WEIGHTS_DIR", "init_from="):
        assert words in output
    assert not (tmp_path / "outputs").exists()
