from pathlib import Path

import pytest

from vswin.runs.differences import config_differences, environment, protocol_differences
from vswin.runs.figures import format_value
from vswin.runs.files import Run, read_run

BASE = {
    "model": {"learning_rate": 0.001, "freeze": [], "init_from": None},
    "optimizer": {"learning_rate": 0.001},
    "dataset": {"epochs": 30, "root": "/data"},
    "logger": {"csv": True},
    "epochs": 30,
    "resume": False,
    "output_dir": "a",
}


@pytest.fixture
def make(make_run):
    def made(label, *args, **contents):
        return read_run(label, label, make_run(label, **contents))

    return made


def test_only_what_differs_is_listed_and_not_where_a_run_writes(make):
    other = {
        "model": {"learning_rate": 0.01, "freeze": ["backbone.*", "x"], "init_from": None},
        "optimizer": {"learning_rate": 0.01},
        "dataset": {"epochs": 10, "root": "/data"},
        "logger": {"csv": False},
        "epochs": 10,
        "resume": True,
        "output_dir": "b",
    }
    rows = config_differences([make("a", config=BASE), make("b", config=other), make("c", top1=[1.0])])
    assert {row.key: row.values for row in rows} == {
        "model.freeze": ["[]", "[backbone.*,x]", "-"],
        "optimizer.learning_rate": ["0.001", "0.01", "-"],
        "epochs": ["30", "10", "-"],
    }


def test_a_key_that_an_earlier_version_did_not_know(make):
    older = {key: value for key, value in BASE.items() if key != "epochs"}
    rows = config_differences([make("a", config=BASE), make("b", config=older | {"gone": 1})])
    assert {row.key: row.values for row in rows} == {"epochs": ["30", "-"], "gone": ["-", "1"]}


def test_runs_without_a_configuration_differ_in_nothing(make):
    runs = [make("a", top1=[0.5]), make("b", config=BASE)]
    assert config_differences(runs) == []
    assert protocol_differences(runs) == []
    assert environment(runs) == []


def test_protocol_versions_and_devices(make):
    dataset = {"name": "ucf101", "root": "/x", "split": 2, "list_hash": "f"}
    runs = [
        make("a", hits="10", devices="CPU (x86_64)"),
        make("b", hits="10", devices="4 GPUs", protocol={"dataset": dataset, "vswin": "0.2.0"}),
        make("c", top1=[0.5]),
    ]
    assert {row.key: row.values for row in protocol_differences(runs)} == {
        "test dataset": ["folder", "ucf101", "-"],
        "test split": ["null", "2", "-"],
    }
    assert {row.key: row.values for row in environment(runs)} == {
        "devices of the training": ["CPU (x86_64)", "4 GPUs", "-"],
        "vswin of the evaluation": ["0.1.0", "0.2.0", "-"],
        "tensorflow of the evaluation": ["2.21.0", "2.21.0", "-"],
    }


def test_values_are_written_as_on_a_command_line():
    values = [None, True, False, 1, 1.0, 1e-08, "x", [1, None, [0.5, True]], []]
    assert [format_value(value) for value in values] == [
        *("null", "true", "false", "1", "1.0", "1e-08", "x", "[1,null,[0.5,true]]", "[]")
    ]


def test_a_run_of_nothing_has_no_protocol():
    assert Run("a", "a", Path("a")).protocol == {}
