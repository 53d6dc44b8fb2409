"""Tests of `vswin bench`: every benchmark runs, small, and wrong options name the way out."""

import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from vswin import cli
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize
from vswin.tools import bench_input as input_module
from vswin.tools import bench_model as model
from vswin.tools import bench_result as result_module
from vswin.tools.bench_input import videos_at
from vswin.tools.bench_result import Result, Row, interleave, show_result
from vswin.tools.bench_step import Variant, list_variants, measure_memory

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


@pytest.mark.parametrize(
    ("benchmark", "factor", "precisions"), [("model", 1, ["float32", "bfloat16"]), ("step", 3, ["float32"])]
)
def test_the_network_is_measured_against_a_matrix_product_of_its_precision(bench, benchmark, factor, precisions):
    options = [word for precision in precisions for word in ("--precision", precision)]
    result = bench(benchmark, *SMALL, "--batch", "2", *options)
    assert names(result["rows"]) == precisions
    assert names(result["references"]) == [f"matmul {precision}" for precision in precisions]
    flops = factor * model.Workload("swin_micro", 4, 32, 2).flops
    for row, reference in zip(result["rows"], result["references"], strict=True):
        assert row["clips_per_second"] == pytest.approx(2 / row["median_seconds"])
        bound = flops / (reference["gflops"] * 1e9)
        assert row["fraction_of_bound"] == pytest.approx(bound / row["median_seconds"])
    network = {"model": "swin_micro", "num_frames": 4, "size": 32, "batch_size": 2}
    assert result["options"] == network | {"precision" if benchmark == "model" else "variants": precisions}


def test_every_precision_is_measured_alone_and_with_each_other_setting():
    variants = list_variants(["float32", "bfloat16"], remat=True, micro_batches=4, jit=True)
    settings = ("", ", remat", ", 4 micro-batches", ", jit")
    assert [str(variant) for variant in variants] == [
        precision + setting for precision in ("float32", "bfloat16") for setting in settings
    ]
    assert list_variants(["bfloat16"], remat=False, micro_batches=1, jit=False) == [Variant("bfloat16")]


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
        measure_memory(model.Workload("swin_micro", 4, 32, 1), Variant("float32"))


def test_the_input_pipeline_is_measured_by_threads_and_decoding(bench, video):
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


@pytest.mark.parametrize("command", ["model", "step"])
def test_a_wrong_precision_is_refused_before_tensorflow_is_imported(command):
    script = "import sys; sys.modules['tensorflow'] = None; from vswin.cli import main; main()"
    words = [sys.executable, "-c", script, "bench", command, "--precision", "flot"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: --precision flot: one or more of float32, bfloat16, float16\n"


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
        (("input", "--rounds", "1", "--videos", __file__), "test_bench.py cannot be decoded"),
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


MACHINE = {
    **{"cpu": "Abacus", "threads": 2, "memory_gb": 8.0, "load": 0.5, "gpus": ["Slide rule"]},
    **{"python": "3.11.7", "tensorflow": "2.21.0", "vswin": "0.1.0"},
}


def make_result(**changes):
    rows = [
        Row("float32", [2.0, 1.0, 4.0], {"clips_per_second": 0.5, "fraction_of_bound": 0.25}),
        Row("bfloat16", [1.0, 1.0, 1.5], {"clips_per_second": 1.0}),
    ]
    references = [Row("matmul float32", [0.5], {"gflops": 34.4})]
    return Result(**{"benchmark": "model", "options": {"size": 32}, "rows": rows, "references": references, **changes})


@pytest.fixture
def printed(monkeypatch):
    """Prints a result as to a pipe and returns its lines."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(result, *files):
        file = io.StringIO()
        monkeypatch.setattr(result_module, "console", Console(file=file, width=40, highlight=False, soft_wrap=True))
        show_result(result, *files)
        return file.getvalue().splitlines()

    return run


def test_the_table_gives_medians_spread_figures_and_the_speed_against_the_first_row(printed):
    assert printed(make_result(machine=MACHINE)) == [
        "Abacus, 2 threads, 8.0 GB, Slide rule, load 0.5; Python 3.11.7, TensorFlow 2.21.0, vswin 0.1.0",
        "model           median s  min .. max  clips/s  of bound  GFLOP/s  speed",
        "float32                2      1 .. 4     0.50       25%            1.00",
        "bfloat16               1    1 .. 1.5     1.00                      2.00",
        "matmul float32       0.5  0.5 .. 0.5                          34",
    ]


def test_the_file_holds_every_round_and_the_machine_and_is_compared_with(printed, tmp_path):
    result = make_result()
    printed(result, tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert [saved["benchmark"], saved["options"]] == ["model", {"size": 32}]
    figures = {"clips_per_second": 0.5, "fraction_of_bound": 0.25, "speed": 1.0}
    assert saved["rows"][0] == {"name": "float32", "median_seconds": 2.0, "seconds": [2.0, 1.0, 4.0], **figures}
    assert saved["rows"][1]["speed"] == 2.0
    assert saved["references"] == [{"name": "matmul float32", "median_seconds": 0.5, "seconds": [0.5], "gflops": 34.4}]
    machine = saved["machine"]
    assert machine["threads"] >= 1
    assert {"cpu", "instructions", "cores", "gpus", "python", "tensorflow", "vswin", "system", "date"} < set(machine)

    result.rows[0].seconds = [3.0, 3.0]
    del result.rows[1]
    printed(result, tmp_path / "a.json")
    lines = printed(make_result(machine=MACHINE), None, tmp_path / "a.json")
    assert lines[1].endswith("speed  against earlier")
    assert [line.split()[-1] for line in lines[2:]] == ["1.50", "2.00", "1.00"]


def test_results_that_cannot_be_compared_are_refused_with_both_sides(tmp_path):
    show_result(make_result(), tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[]")
    for options, output, earlier, message in (
        ({"size": 64}, None, "a.json", r"model \{'size': 32\} there, model \{'size': 64\} here; give the same"),
        ({"size": 32}, None, "b.json", "is no result of a benchmark; name a file that --json wrote"),
        ({"size": 32}, None, "gone.json", r"gone\.json: No such file or directory; name a file"),
        ({"size": 32}, tmp_path / "gone" / "a.json", "a.json", "name a file in a folder that exists"),
    ):
        with pytest.raises(InputError, match=message):
            show_result(make_result(options=options), output, tmp_path / earlier)


def test_contenders_take_turns_and_the_warm_up_does_not_count():
    log = []

    def contender(name, seconds):
        def run():
            log.append(name)
            return seconds + log.count(name)

        return run

    seconds = interleave({"a": contender("a", 0.0), "b": contender("b", 0.5)}, rounds=3)
    assert log == ["a", "b"] * 4
    assert seconds == {"a": [2.0, 3.0, 4.0], "b": [2.5, 3.5, 4.5]}
    with pytest.raises(InputError, match="--rounds 0: at least 1"):
        interleave({"a": lambda: 1.0}, rounds=0)
