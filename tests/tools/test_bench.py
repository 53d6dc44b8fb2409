"""Tests of `vswin bench`: every benchmark runs, small, and wrong options name the way out."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vswin import cli
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize
from vswin.tools import bench_input as input_module
from vswin.tools import bench_model as model
from vswin.tools.bench_input import videos_at
from vswin.tools.bench_step import Way, list_ways, measure_memory

SMALL = ("--model", "swin_micro", "--frames", "4", "--size", "32", "--rounds", "1")


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Runs `vswin bench ARGUMENT ...` in this process and returns the JSON it wrote."""
    # Even the smallest published network takes seconds to trace; this one has two blocks.
    monkeypatch.setitem(SIZES, "swin_micro", ModelSize(8, (1, 1), (1, 2), window_size=(2, 4, 4), drop_path_rate=0.0))
    monkeypatch.setattr(model, "_SIDE", 64)
    monkeypatch.setattr(input_module, "NUM_BATCHES", 1)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vswin", "bench", *arguments, "--json", str(tmp_path / "result.json")])
        cli.main()
        return json.loads((tmp_path / "result.json").read_text())

    return run


@pytest.fixture
def video(tmp_path):
    """Writes a video of 12 frames of 48 x 40."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (48, 40))
    for level in range(12):
        writer.write(np.full((40, 48, 3), 10 * level, np.uint8))
    writer.release()
    return str(path)


def names(rows):
    return [row["name"] for row in rows]


def test_without_a_benchmark_there_is_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vswin", "bench"])
    cli.main()
    printed = capsys.readouterr().out
    for words in ("model", "step", "input"):
        assert words in printed


@pytest.mark.parametrize("name", ["model", "step", "input"])
def test_the_help_of_each_benchmark_has_examples(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["vswin", "bench", name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert f" vswin bench {name} " in capsys.readouterr().out


def test_the_forward_pass_is_measured_against_a_matrix_product_of_its_precision(bench):
    result = bench("model", *SMALL, "--precision", "float32", "--precision", "bfloat16", "--batch", "2")
    assert names(result["rows"]) == ["float32", "bfloat16"]
    assert names(result["references"]) == ["matmul float32", "matmul bfloat16"]
    flops = model.Workload("swin_micro", 4, 32, 2).flops
    for row, reference in zip(result["rows"], result["references"], strict=True):
        assert row["clips_per_second"] == pytest.approx(2 / row["median_seconds"])
        floor = flops / (reference["gflops"] * 1e9)
        assert row["share_of_floor"] == pytest.approx(floor / row["median_seconds"])


def test_a_training_step_is_measured(bench):
    result = bench("step", *SMALL, "--batch", "2")
    (row,), (reference,) = result["rows"], result["references"]
    assert [row["name"], reference["name"]] == ["float32", "matmul float32"]
    assert row["clips_per_second"] == pytest.approx(2 / row["median_seconds"])
    floor = 3 * model.Workload("swin_micro", 4, 32, 2).flops / (reference["gflops"] * 1e9)
    assert row["share_of_floor"] == pytest.approx(floor / row["median_seconds"])
    assert result["options"] == {
        "model": "swin_micro",
        "num_frames": 4,
        "size": 32,
        "batch_size": 2,
        "ways": ["float32"],
    }


def test_every_precision_is_measured_as_usual_and_in_each_way_that_is_asked_for():
    ways = list_ways(["float32", "bfloat16"], remat=True, micro_batches=4, jit=True)
    assert [str(way) for way in ways] == [
        f"{precision}{way}"
        for precision in ("float32", "bfloat16")
        for way in ("", ", remat", ", 4 micro-batches", ", jit")
    ]
    assert list_ways(["bfloat16"], remat=False, micro_batches=1, jit=False) == [Way("bfloat16")]


@pytest.mark.slow
def test_rematerialised_steps_are_measured_and_their_memory_in_processes_of_their_own(bench):
    rows = bench("step", *SMALL, "--batch", "2", "--remat", "--memory")["rows"]
    assert names(rows) == ["float32", "float32, remat"]
    for row in rows:
        assert 0.1 < row["process_gb"] - row["step_gb"] < row["process_gb"] < 3
        assert 0 < row["estimated_gb"] < 0.1


def test_a_process_that_cannot_measure_its_memory_is_explained(monkeypatch, tmp_path):
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\necho not today >&2\nexit 3\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(InputError, match=r"the process that tries model=swin_micro .* ended with code 3\n  not today"):
        measure_memory(model.Workload("swin_micro", 4, 32, 1), Way("float32"))


def test_the_input_pipeline_is_measured_by_threads_and_ways_of_decoding(bench, video):
    small = ("clip.num_frames=4", "clip.resize=32", "clip.crop=32")
    result = bench("input", *small, "--videos", video, "--threads", "1", "--threads", "2", "--isolate", "--rounds", "1")
    assert names(result["rows"]) == ["1 thread", "1 thread, isolated", "2 threads", "2 threads, isolated"]
    assert result["options"] == {"videos": ["video.avi"], "overrides": list(small)}
    for row in result["rows"]:
        assert row["clips_per_second"] == pytest.approx(6 / row["median_seconds"])


def test_videos_are_made_where_none_are_given_and_gone_afterwards():
    with videos_at(None, num_videos=1, num_frames=8) as (path,):
        capture = cv2.VideoCapture(path)
        sizes = [capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        assert sizes == [342, 256]
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 8
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", "--model", "swin_tinny"), "no model size is called 'swin_tinny': did you mean 'swin_tiny'"),
        (("model", *SMALL, "--precision", "float8"), "--precision float8: one or more of float32, bfloat16, float16"),
        (("model", *SMALL, *("--precision", "float32") * 2), "--precision float32 float32: each once"),
        (("model", *SMALL, "--batch", "0"), "--batch 0: at least 1"),
        (("step", *SMALL, "--frames", "-1"), "--frames -1: at least 1"),
        (("step", *SMALL, "--micro-batches", "0"), "--micro-batches 0: at least 1"),
        (("step", *SMALL, "--micro-batches", "2"), "batch_size=1 cannot be divided"),
        (("input", "--videos", "gone.mp4"), "--videos gone.mp4: there is no such file; name video files"),
        (("input", "clip.crops=3"), "there is no key 'clip.crops'; did you mean"),
        (("input", "--threads", "0"), "--threads 0: at least 1"),
    ],
)
def test_wrong_options_are_answered_with_the_way_out(bench, arguments, message, video, monkeypatch):
    if arguments[0] == "input" and "--videos" not in arguments:
        arguments = (*arguments, "--videos", video)
    with pytest.raises(SystemExit) as exit_info:
        bench(*arguments)
    assert str(exit_info.value).startswith("error: ")
    assert message in str(exit_info.value)


def test_a_video_that_cannot_be_decoded_is_named(bench, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    small = ("clip.num_frames=4", "clip.resize=32", "clip.crop=32")
    with pytest.raises(SystemExit, match=r"broken\.mp4.*cannot be"):
        bench("input", *small, "--videos", str(tmp_path / "broken.mp4"), "--rounds", "1")
