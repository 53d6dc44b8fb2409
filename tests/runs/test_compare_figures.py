import json

import pytest

from vswin.runs.compare import as_json
from vswin.runs.figures import Figures, sum_up
from vswin.runs.files import read_run
from vswin.runs.pairs import compare_pairs


def test_best_and_last(make_run):
    folder = make_run("a", config={"epochs": 5}, top1=[0.25, 0.75, 0.75, 0.5])
    assert sum_up(read_run("a", "a", folder)) == Figures(4, 5, 0.75, 2, False, 0.5, 11.5)


def test_an_average_of_the_weights_counts_where_it_is_better(make_run):
    better = read_run("a", "a", make_run("a", top1=[0.25, 0.75], ema=[0.5, 0.8]))
    equal = read_run("b", "b", make_run("b", top1=[0.25, 0.75], ema=[0.75, 0.75]))
    assert sum_up(better)[2:5] == (0.8, 2, True)
    assert sum_up(equal)[2:5] == (0.75, 2, False)


def test_what_is_not_known(make_run):
    run = read_run("a", "a", make_run("a", config={"epochs": 5}))
    assert sum_up(run) == Figures(0, 5, None, None, False, None, None)
    folder = make_run("b")
    (folder / "history.csv").write_text("epoch,val_top1\r\n0,nan\r\n2,nan\r\n")
    figures = sum_up(read_run("b", "b", folder))
    assert figures[:4] == (3, None, None, None)
    assert figures.last_top1 != figures.last_top1


def test_everything_is_json_even_what_is_no_number(make_run):
    folder = make_run("a", hits="1100")
    (folder / "history.csv").write_text("epoch,val_top1,clips_per_sec\r\n0,0.5,inf\r\n1,nan,\r\n")
    runs = [
        read_run("a", "a", folder),
        read_run("b", "b", make_run("b", hits="1111", protocol={"new": [{"x": float("nan")}]})),
    ]
    runs.append(read_run("c", "c", make_run("c", hits="11", labels=["x", "y"], classes=["x", "y"])))
    content = as_json(runs, [], [], compare_pairs(runs))
    content = json.loads(json.dumps(content, allow_nan=False))
    assert content["runs"][0]["history"] == {"epoch": [1, 2], "val_top1": [0.5, None], "clips_per_sec": [None, None]}
    assert content["runs"][0]["training"]["best_top1"] == 0.5
    assert content["runs"][0]["training"]["clips_per_sec"] is None
    assert content["runs"][1]["test"]["top1"] == 1.0
    assert content["runs"][1]["test"]["protocol"]["num_clips"] == 4
    assert content["runs"][1]["test"]["protocol"]["new"] == [{"x": None}]
    first, refused = content["pairs"]
    assert first["difference"] == 0.5
    assert first["p_value"] == first["corrected_p"] == 0.5
    assert first["interval"] == pytest.approx([-0.41, 0.85], abs=0.01)
    assert first["sentence"].startswith("b and a: no difference that 4 videos could show")
    assert set(refused) == {"first", "second", "problem", "sentence"}
