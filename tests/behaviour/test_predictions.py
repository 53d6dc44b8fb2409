"""`vswin predict`, `extract` and `explain` agree with evaluations and with what a player shows."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vswin.cli import main

pytestmark = pytest.mark.slow

TINY = ("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]")
# Pictures last 10 ms, then one lasts long, then others 100 ms: times far from those of an average frame rate.
TIMES_MS = [*range(0, 120, 10), 1000, *range(1010, 1810, 100)]


def call(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
        main()


def write_video(path: Path, times_ms: list[int], is_changing: bool = False) -> str:
    """Writes gray pictures at given times; with `is_changing` they turn from dark to bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times_ms):
            level = 30 + (190 * number // len(times_ms) if is_changing else int(path.stem) % 7)
            frame = av.VideoFrame.from_ndarray(np.full((48, 48, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for label in ("jump", "run"):
        for number in range(6):
            write_video(root / label / f"{number}.mp4", list(range(0, 480, 40)))
    return root


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory) -> Path:
    """Trains on clips of 4 frames, configured to be tested with one view."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = [f"dataset.root={videos}", "batch_size=2", "epochs=2", "init_from=null", f"output_dir={folder}"]
    clip = ["clip=8x1_64px", "clip.num_frames=4", "clip.crop=32", "clip.resize=32", "clip.frame_stride=2"]
    call("train", *TINY, "dataset=folder", *clip, *arguments)
    return folder


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory) -> Path:
    """Evaluates the run with more views than it was configured with."""
    views = ["clip.num_clips=2", "clip.num_crops=3", "clip.resize=40", "average=score"]
    call("evaluate", f"run={run}", *views, f"results_dir={tmp_path_factory.mktemp('results')}")
    return run


@pytest.fixture
def predict(tmp_path) -> Callable[..., dict]:
    def predicted(*arguments: object) -> dict:
        call("predict", *arguments, "--json", tmp_path / "p.json", "--overwrite")
        return json.loads((tmp_path / "p.json").read_text())

    return predicted


def test_the_time_left_does_not_count_the_compiler_again(run):
    log = (run / "train.log").read_text()
    assert "epoch 1/2" in log
    left = int(re.search(r"epoch 1/2 .* (\d+) s left", log)[1])
    took = int(re.search(r"trained for (\d+) s", log)[1])
    # The first step and the first batch of validation take nearly all the time.
    assert left <= took / 2


def test_a_run_is_predicted_with_the_views_of_its_evaluation(evaluated, predict, capsys):
    with (evaluated / "predictions.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    content = predict(*rows, "--model", evaluated)
    protocol = content["protocol"]
    assert [protocol[key] for key in ("num_clips", "num_crops", "resize", "average")] == [2, 3, 40, "score"]
    for entry in content["predictions"]:
        assert entry["top"][0]["class"] == rows[entry["path"]]["class_1"]
        assert entry["top"][0]["probability"] == pytest.approx(float(rows[entry["path"]]["probability_1"]), abs=2e-6)
    printed = capsys.readouterr().out
    assert f"protocol of the evaluation in {evaluated}\n" in printed
    assert "average of 6 views each (2 clips x 3 crops" in printed


def test_what_is_set_beside_the_protocol_is_said(evaluated, videos, predict, capsys):
    content = predict(videos / "jump" / "0.mp4", "--model", evaluated, "--crops", 1, "--set", "average=score")
    changed = f"protocol of the evaluation in {evaluated}; changed: num_crops=1, not 3"
    assert content["protocol"]["origin"] == changed
    assert (content["protocol"]["num_clips"], content["protocol"]["num_crops"]) == (2, 1)
    assert f"{changed}\n" in capsys.readouterr().out


def test_a_damaged_evaluation_is_refused(evaluated, videos, tmp_path, predict):
    copy = tmp_path / "copy"
    for name in ("config.yaml", "metrics.json", "checkpoints/best.safetensors"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((evaluated / name).read_bytes())
    metrics = json.loads((copy / "metrics.json").read_text())
    for value in ("${oc.env:HOME}", 0, None):
        metrics["protocol"]["num_crops"] = value
        (copy / "metrics.json").write_text(json.dumps(metrics))
        with pytest.raises(SystemExit, match=r"metrics\.json: what it says of the clips is damaged; evaluate the run"):
            predict(videos / "jump" / "0.mp4", "--model", copy)


def test_a_film_of_segments_says_what_is_seen_at_each_moment(run, predict, tmp_path, monkeypatch, capsys):
    """A stand-in for the model classifies clips by their brightness."""
    seen = []

    def classify(clips):
        seen.extend(np.asarray(clips).mean(axis=(1, 2, 3, 4)).tolist())
        is_bright = np.array(seen[-len(clips) :]) > 128
        return np.stack([is_bright, ~is_bright], axis=1).astype(np.float32)

    monkeypatch.setattr("vswin.inference.annotate.make_classifier", lambda loaded: classify)
    times_ms = [*range(0, 800, 40), *range(1000, 3000, 100)]
    path = write_video(tmp_path / "1.mp4", times_ms, is_changing=True)
    arguments = ["--model", run, "--save", tmp_path / "saved", "--clips", 1, "--set", "clip.sampling=segments"]
    predict(path, *arguments)
    assert len(seen) > 5
    assert max(seen) - min(seen) > 100
    assert "the same throughout" not in capsys.readouterr().out
    with av.open(str(tmp_path / "saved" / "1.mp4")) as film:
        shown = [frame.time for frame in film.decode(video=0)]
    np.testing.assert_allclose(shown, np.array(times_ms) / 1000, atol=1e-4)
    short = write_video(tmp_path / "2.mp4", [0, 40, 80])
    predict(short, *arguments)
    assert "2.mp4, which shows the same throughout: the video is no longer than a clip" in capsys.readouterr().out


def test_seconds_are_those_of_the_pictures(run, tmp_path):
    path = write_video(tmp_path / "1.mp4", TIMES_MS)
    arguments = [path, "--model", run, "--clips", "3"]
    call("extract", *arguments, "--output", tmp_path / "f.npz", "--level", "clip", "--set", "dataset.isolate=true")
    # 21 pictures leave 14 possible starts for a clip that spans 8: clips begin at 2, 7 and 11.
    np.testing.assert_allclose(np.load(tmp_path / "f.npz")["start_sec"], [0.02, 0.07, 0.11], atol=1e-6)
    call("explain", *arguments, "--output", tmp_path / "out", "--npz")
    found = np.load(tmp_path / "out" / "1.npz")
    assert found["frames"][2].tolist() == [11, 13, 15, 17]
    np.testing.assert_allclose(found["seconds"], np.array(TIMES_MS)[found["frames"]] / 1000, atol=1e-6)


def test_seconds_of_files_without_times_are_those_of_the_rate(run, small_videos, tmp_path):
    arguments = [small_videos / "dark" / "0.avi", "--model", run, "--clips", "2"]
    call("extract", *arguments, "--output", tmp_path / "f.npz", "--level", "clip")
    # 12 frames leave 5 possible starts for a clip that spans 8: clips begin at 1 and 3.
    np.testing.assert_allclose(np.load(tmp_path / "f.npz")["start_sec"], [1 / 12, 3 / 12])


VSWIN = [sys.executable, "-c", "from vswin.cli import main; main()"]


def test_standard_output_is_nothing_but_the_results(run, videos):
    command = [*VSWIN, "predict", f"{videos}/j*", "--model", run, "--top-k", "1"]
    printed = [
        subprocess.run([*command, option, "-"], capture_output=True, text=True, check=True).stdout
        for option in ("--json", "--csv")
    ]
    assert [Path(entry["path"]).parent.name for entry in json.loads(printed[0])["predictions"]] == ["jump"] * 6
    assert len(list(csv.DictReader(io.StringIO(printed[1])))) == 6


@pytest.mark.parametrize(("colour", "num_columns"), [({}, 100), ({"NO_COLOR": "1"}, 36)])
def test_on_a_terminal_there_is_a_bar_and_colour_unless_it_is_unwanted(run, videos, tmp_path, colour, num_columns):
    saved = tmp_path / "saved"
    command = [*VSWIN, "predict", videos / "jump" / "0.mp4", "--model", run, "--top-k", "2", "--save", saved]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(num_columns), **colour}
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 65536):
                shown += chunk
        except OSError:  # Linux reports the closed other end this way
            pass
    assert process.returncode == 0, shown.decode()
    assert b"predict" in shown  # the bar's name
    assert b"\x1b[" in shown
    assert (b"\x1b[38;" in shown) == (not colour)
    assert (saved / "0.mp4").is_file()
