"""Tests of `vswin.runs.files`: every file of a run may be missing, and a damaged one is named."""

import json

import numpy as np
import pytest

from tests.conftest import spread
from vswin.config.load import save_config
from vswin.errors import InputError
from vswin.evaluation.published import Comparison
from vswin.evaluation.report import Result, write_report
from vswin.runs.files import read_run
from vswin.runs.metrics import compute_metrics
from vswin.training.loggers import HistoryFile

CONFIG = {"model": {"name": "swin_micro", "freeze": []}, "epochs": 3, "init_from": None}


@pytest.fixture
def folder(make_run):
    return make_run("run", config=CONFIG, top1=[0.25, 0.5], hits="110x", devices="2 GPUs")


def test_everything_is_read(folder):
    run = read_run("a", "run", folder)
    assert run.config == {"model.name": "swin_micro", "model.freeze": [], "epochs": 3, "init_from": None}
    assert run.history["epoch"].tolist() == [1, 2]
    assert run.history["val_top1"].tolist() == [0.25, 0.5]
    assert run.devices == "2 GPUs"
    assert run.metrics["top1"] == 0.5
    assert run.predictions.is_right.tolist() == [True, True, False, False]
    assert run.predictions.predicted == ["jump, high", "run [fast]", "jump, high", ""]
    assert run.class_names == ("jump, high", "run [fast]", "Ärmel")


@pytest.mark.parametrize(
    "name", ["config.yaml", "history.csv", "environment.json", "metrics.json", "predictions.csv", "per_class.csv"]
)
def test_any_file_may_be_missing(folder, name):
    (folder / name).unlink()
    run = read_run("a", "run", folder)
    absent = {"config.yaml": run.config, "history.csv": run.history, "metrics.json": run.metrics}
    absent |= {"predictions.csv": run.predictions, "environment.json": run.devices, "per_class.csv": run.class_names}
    assert not absent[name]
    assert sum(bool(value) for value in absent.values()) == 5
    assert run.protocol == {} or name != "metrics.json"


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("predictions.csv", lambda text: text[: text.rindex(",")], "row 4 does not have 5 columns"),
        ("predictions.csv", lambda text: text[:-1], "it is cut off in the middle of its last row"),
        ("predictions.csv", lambda text: text[: text[:-1].rindex("\n") + 1], "predictions.csv has 3 videos, 2 of them"),
        ("predictions.csv", lambda text: text.splitlines()[0] + "\n", "it has no rows"),
        ("predictions.csv", lambda text: "", "it has no column path"),
        (
            "predictions.csv",
            lambda text: text + '"' + "x" * 200_000 + '"\n',
            "predictions.csv is damaged: field larger",
        ),
        ("predictions.csv", lambda text: text[: text.rindex("jump") + 6], "is damaged: unexpected end of data"),
        ("predictions.csv", lambda text: text.replace('"jump, high"', "jump, high", 1), "row 1 does not have"),
        ("history.csv", lambda text: text.replace("0.25", "0.2.5"), "could not convert string to float: '0.2.5'"),
        ("history.csv", lambda text: text.replace("\n1,", "\n0,"), "its epochs are not in order"),
        ("history.csv", lambda text: text.replace("\n1,", "\nnan,"), "its epochs are not in order"),
        ("history.csv", lambda text: "a,b\r\n1,2\r\n", "it has no column epoch"),
        ("metrics.json", lambda text: text[:-5], "it is no JSON"),
        ("metrics.json", lambda text: "[" * 100_000, "it is no JSON"),
        ("metrics.json", lambda text: "[]", "is not what an evaluation writes"),
        (
            "metrics.json",
            lambda text: text.replace('"top5": 0.95', '"top5": "0.95"'),
            "is not what an evaluation writes",
        ),
        ("metrics.json", lambda text: text.replace('"top5": 0.95', '"top5": NaN'), "is not what an evaluation writes"),
        ("metrics.json", lambda text: text.replace('"num_videos": 4', '"num_videos": 5'), "4 videos, 2 of them right"),
        ("per_class.csv", lambda text: "x\n1\n", "it has no column label_name"),
        ("config.yaml", lambda text: text[:-9], "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_in_a_paragraph(folder, name, damage, words):
    path = folder / name
    text = path.read_text(encoding="utf-8")
    path.write_bytes(damage(text).encode())
    with pytest.raises(InputError) as error:
        read_run("a", "run", folder)
    message = str(error.value)
    assert str(folder) in message
    assert words in message
    assert "\n\n" not in message
    assert "copy it again" in message or "evaluate the run again" in message


@pytest.mark.parametrize("name", ["predictions.csv", "history.csv", "metrics.json"])
def test_what_is_no_text_and_what_is_no_file(folder, name):
    (folder / name).write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=f"{name} is damaged: it is no text"):
        read_run("a", "run", folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        read_run("a", "run", folder)


def test_files_of_other_versions_do_no_harm(folder):
    for devices, shown in (("\x1b[2JGPU", "\\x1b[2JGPU"), (3, "3"), (None, ""), (["GPU"], "['GPU']")):
        (folder / "environment.json").write_text(json.dumps({"sessions": [{"devices": devices}]}))
        assert read_run("a", "run", folder).devices == shown
    # A column that came later is empty before.
    (folder / "history.csv").write_text("epoch,val_top1,val_ema_top1\r\n0,0.5,\r\n1,nan,0.75\r\n")
    history = read_run("a", "run", folder).history
    assert np.isnan(history["val_ema_top1"]).tolist() == [True, False]
    assert np.isnan(history["val_top1"]).tolist() == [False, True]
    metrics = json.loads((folder / "metrics.json").read_text())
    for protocol in (None, {}, {"dataset": {}}, {"dataset": {"root": 3, "list_hash": [1]}}):
        (folder / "metrics.json").write_text(json.dumps(metrics | {"protocol": protocol}))
        run = read_run("a", "run", folder)
        assert run.protocol == (protocol or {})
        assert run.test_set == (protocol or {}).get("dataset", {})


def test_what_training_and_evaluation_write_is_what_is_read(tmp_path, compose_train):
    save_config(compose_train("epochs=7"), tmp_path / "config.yaml")
    history = HistoryFile(tmp_path / "history.csv", 0)
    history.on_epoch_end(0, {"val_top1": 0.5})
    history.on_epoch_end(1, {"val_top1": 0.75, "val_ema_top1": 0.7})
    labels, ranked = np.array([0, 1, 2, 2]), np.array([[0, 1, 2], [0, 2, 1], [-1, -1, -1], [2, 0, 1]])
    names = ("jump, high", 'run "fast"\nnow', "Ärmel")
    paths = ["a, b.mp4", "c\udcff.mp4", "d\n.mp4", "é.mp4"]
    probabilities = spread(ranked, np.tile([0.5, 0.3, 0.2], (4, 1)), 3)
    metrics = compute_metrics(probabilities, labels, np.ones((4, 2), int), 1)
    result = Result(paths, labels, probabilities, names, metrics)
    write_report(tmp_path, result, Comparison(None, "none"), {"dataset": {"name": "folder", "root": None}})
    run = read_run("a", "a", tmp_path)
    assert run.config["epochs"] == 7
    assert run.history["epoch"].tolist() == [1, 2]
    assert run.history["val_ema_top1"][1] == 0.7
    assert run.predictions.paths == ["a, b.mp4", "c\\udcff.mp4", "d\n.mp4", "é.mp4"]
    assert run.predictions.labels == [names[label] for label in labels]
    assert run.predictions.is_right.tolist() == [True, False, False, True]
    assert run.predictions.predicted.count("") == 1
    assert run.class_names == tuple(names)
    assert run.metrics["mean_class_accuracy"] == metrics.mean_class_accuracy
    assert run.metrics["f1_macro_interval"] == list(metrics.f1_macro_interval)
