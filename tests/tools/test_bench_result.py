"""Tests of `vswin.tools.bench_result`: the table, the file and the comparison."""

import io
import json
import time

import pytest
from rich.console import Console

from vswin.errors import InputError
from vswin.tools import bench_result as module
from vswin.tools.bench_result import Result, Row, interleave, print_result, save_result, timed

MACHINE = {
    "cpu": "Abacus",
    "threads": 2,
    "memory_gb": 8.0,
    "load": 0.5,
    "gpus": ["Slide rule"],
    "python": "3.11.7",
    "tensorflow": "2.21.0",
    "vswin": "0.1.0",
}


def make_result(**changes):
    rows = [
        Row("float32", [2.0, 1.0, 4.0], {"clips_per_second": 0.5, "share_of_floor": 0.25}),
        Row("bfloat16", [1.0, 1.0, 1.5], {"clips_per_second": 1.0}),
    ]
    references = [Row("matmul float32", [0.5], {"gflops": 34.4})]
    return Result(**{"benchmark": "model", "options": {"size": 32}, "rows": rows, "references": references, **changes})


@pytest.fixture
def printed(monkeypatch):
    """Prints a result as to a pipe and returns its lines."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(result, stored=None):
        file = io.StringIO()
        monkeypatch.setattr(module, "console", Console(file=file, width=40, highlight=False, soft_wrap=True))
        print_result(result, stored)
        return file.getvalue().splitlines()

    return run


def test_the_table_gives_medians_spread_figures_and_the_speed_against_the_first_row(printed):
    assert printed(make_result(machine=MACHINE)) == [
        "Abacus, 2 threads, 8.0 GB, Slide rule, load 0.5; Python 3.11.7, TensorFlow 2.21.0, vswin 0.1.0",
        "model           median s  min .. max  clips/s  of floor  GFLOP/s  speed",
        "float32                2      1 .. 4     0.50       25%            1.00",
        "bfloat16               1    1 .. 1.5     1.00                      2.00",
        "matmul float32       0.5  0.5 .. 0.5                          34",
    ]


def test_the_file_holds_every_round_and_says_what_it_was_measured_on(tmp_path):
    save_result(make_result(), tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert [saved["benchmark"], saved["options"]] == ["model", {"size": 32}]
    assert saved["rows"][0] == {
        "name": "float32",
        "median_seconds": 2.0,
        "seconds": [2.0, 1.0, 4.0],
        "clips_per_second": 0.5,
        "share_of_floor": 0.25,
        "speed": 1.0,
    }
    assert saved["rows"][1]["speed"] == 2.0
    assert saved["references"] == [{"name": "matmul float32", "median_seconds": 0.5, "seconds": [0.5], "gflops": 34.4}]
    machine = saved["machine"]
    assert machine["threads"] >= 1
    assert machine["memory_gb"] > 0.1
    assert machine["load"] >= 0
    assert {"cpu", "instructions", "cores", "gpus", "python", "tensorflow", "vswin", "system", "date"} < set(machine)


def test_a_stored_result_stands_beside_the_rows_that_it_has(printed, tmp_path):
    stored = make_result(machine=MACHINE)
    stored.rows[0].seconds = [3.0, 3.0]
    del stored.rows[1]
    save_result(stored, tmp_path / "a.json")
    lines = printed(make_result(machine=MACHINE), tmp_path / "a.json")
    assert lines[1].endswith("speed  against stored")
    assert [line.split()[-1] for line in lines[2:]] == ["1.50", "2.00", "1.00"]


def test_what_cannot_be_compared_is_refused_with_both_sides(tmp_path):
    save_result(make_result(), tmp_path / "a.json")
    with pytest.raises(InputError, match=r"model \{'size': 32\} there, model \{'size': 64\} here; give the same"):
        print_result(make_result(options={"size": 64}), tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(InputError, match="is no result of a benchmark; name a file that --json wrote"):
        print_result(make_result(), tmp_path / "b.json")
    with pytest.raises(InputError, match=r"gone\.json: No such file or directory; name a file"):
        print_result(make_result(), tmp_path / "gone.json")
    with pytest.raises(InputError, match="No such file or directory; name a file in a folder that exists"):
        save_result(make_result(), tmp_path / "gone" / "a.json")


def test_contenders_take_turns_and_the_warm_up_does_not_count():
    log = []

    def contender(name, seconds):
        def run():
            log.append(name)
            return seconds + log.count(name)

        return run

    seconds = interleave({"a": contender("a", 0.0), "b": contender("b", 0.5)}, rounds=3, warm_up=2)
    assert log == ["a", "b"] * 5
    assert seconds == {"a": [3.0, 4.0, 5.0], "b": [3.5, 4.5, 5.5]}


def test_a_contender_of_this_process_takes_as_long_as_it_takes():
    assert 0.02 <= timed(lambda: time.sleep(0.02))() < 1


def test_without_a_round_there_is_nothing_to_time():
    with pytest.raises(InputError, match="--rounds 0: at least 1"):
        interleave({"a": lambda: 1.0}, rounds=0)
