"""Evaluations that join the wandb run of their training run, read from what `wandb sync` would upload."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import wandb

from tests.conftest import spread
from vswin.config.load import save_config
from vswin.data.decode import VIDEO_FILES
from vswin.errors import InputError
from vswin.evaluation.loggers import check_wandb, log_to_wandb, read_samples
from vswin.evaluation.report import Result
from vswin.runs.metrics import compute_metrics
from vswin.runs.plots import draw_confusion_matrix
from vswin.runtime import start_log
from vswin.training.loggers import open_wandb


@pytest.fixture
def run(compose_train, tmp_path, wandb_offline) -> Path:
    """A training run of three epochs that was stopped after logging two."""
    folder = tmp_path / "my run"
    folder.mkdir()
    config = compose_train("logger=wandb", "logger.wandb_project=swins", "epochs=3")
    save_config(config, folder / "config.yaml")
    with open_wandb(config, folder) as log:
        log.on_epoch_end(0, {"loss": 1.0, "val_top1": 0.25})
        log.on_epoch_end(1, {"loss": 0.5, "val_top1": 0.5})
    return folder


@pytest.fixture
def evaluate(run, compose_evaluate, wandb_offline):
    """Logs a result; returns the wandb session and the folder of its files."""

    def evaluated(result: Result) -> tuple:
        config = compose_evaluate(f"run='{run}'", "wandb=true")
        check_wandb(config)
        log_to_wandb(config, result, list(read_samples(result, VIDEO_FILES)))
        session = wandb_offline(run)[-1]
        (folder,) = [path.parent for path in run.glob("wandb/*/run-*.wandb") if path not in earlier]
        return session, folder / "files"

    earlier = list(run.glob("wandb/*/run-*.wandb"))
    return evaluated


def make_result(pairs, num_classes: int, paths=None) -> Result:
    """Makes an evaluation from (label, prediction) of each video; a prediction of -1 means a bad video."""
    labels = np.array([label for label, _ in pairs])
    size = min(5, num_classes)
    others = [[best, *(other for other in range(num_classes) if other != best)][:size] for _, best in pairs]
    ranked = np.array([[-1] * len(row) if row[0] == -1 else row for row in others])
    values = np.linspace(0.1, 0.0, size) + 0.525 * (np.arange(size) == 0)
    probabilities = spread(ranked, np.broadcast_to(values, ranked.shape), num_classes)
    names = [f"class {label}" for label in range(num_classes)]
    metrics = compute_metrics(probabilities, labels, np.ones((len(labels), 2), int), 2)
    paths = paths or [f"absent/{number}.avi" for number in range(len(labels))]
    return Result([str(path) for path in paths], labels, probabilities, names, metrics)


def entry_of(row: dict, key: str) -> dict:
    """Returns the fields of a table or film in a row; wandb writes each field separately."""
    return {name.removeprefix(f"{key}/"): value for name, value in row.items() if name.startswith(f"{key}/")}


def read_table(files: Path, entry: dict) -> list[list]:
    assert entry["_type"] == "table-file"
    return json.loads((files / entry["path"]).read_text())["data"]


def test_an_evaluation_joins_the_run_with_its_figures_after_the_last_epoch(run, evaluate, wandb_offline):
    (training,) = wandb_offline(run)
    result = make_result([(0, 0), (0, 1), (1, 1), (2, -1)], 3)
    session, _ = evaluate(result)
    assert session.run.run_id == training.run.run_id == (run / "wandb_run_id.txt").read_text()
    assert (session.run.project, session.run.display_name) == ("swins", "my run")
    assert session.exit_code == 0
    figures = {key: value for key, value in session.summary.items() if key.startswith("test/")}
    assert figures["test/top1"] == 0.5
    assert figures["test/f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert "test/top5" not in figures
    assert figures["test/mean_class_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert (figures["test/num_videos"], figures["test/num_bad_videos"]) == (4, 1)
    assert figures["test/top1_interval"] == pytest.approx(list(result.metrics.top1_interval))
    (row,) = session.history
    assert row["_step"] == 4
    assert session.config["test"]["average"] == "prob"
    assert session.config["test"]["clip"]["num_frames"] == 8


def test_confused_classes_are_listed_by_how_often_up_to_a_hundred(evaluate):
    pairs = [(label, other) for label in range(12) for other in range(12) if other != label]
    session, files = evaluate(make_result([*pairs, (2, 0), (2, 0), (1, 2), (0, 0), (1, -1)], 12))
    entry = entry_of(session.history[0], "test/confused_classes")
    assert (entry["nrows"], entry["ncols"]) == (100, 3)
    rows = read_table(files, entry)
    assert rows[:2] == [["class 2", "class 0", 3], ["class 1", "class 2", 2]]
    assert {row[2] for row in rows[2:]} == {1}


def test_the_confusion_matrix_is_that_of_the_report(evaluate):
    result = make_result([(0, -1), (1, -1)], 60)
    session, files = evaluate(result)
    assert session.summary["test/top1"] == 0
    entry = entry_of(session.history[0], "test/confusion_matrix")
    assert entry["_type"] == "image-file"
    png = draw_confusion_matrix(result.labels, result.ranked[:, 0], result.class_names)
    drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.imread(str(files / entry["path"])), drawn)


def test_sample_videos_are_small_films_that_say_what_they_are(evaluate, small_videos):
    bright, dark = ([small_videos / label / f"{number}.avi" for number in range(4)] for label in ("bright", "dark"))
    dark[1] = dark[1].with_name("gone.avi")
    pairs = [(0, 0), (0, 1), (0, -1), (0, 0), (1, 1), (1, 1), (1, 1), (1, 0)]
    session, files = evaluate(make_result(pairs, 2, bright + dark))
    films = entry_of(session.history[0], "test/samples")
    assert films["_type"] == "videos"
    predicted = [(0, 0), (0, 1), (0, 0), (1, 1), (1, 1), (1, 0)]
    assert films["captions"] == [f"class {label}, predicted class {best} (62.5 %)" for label, best in predicted]
    for film, level in zip(films["videos"], (200, 204, 212, 40, 48, 52), strict=True):
        assert film["path"].endswith(".mp4")
        capture = cv2.VideoCapture(str(files / film["path"]))
        frames = [capture.read()[1] for _ in range(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))]
        capture.release()
        assert np.shape(frames) == (12, 40, 48, 3)
        np.testing.assert_allclose(np.mean(frames, axis=(1, 2, 3)), level + np.arange(12), atol=3)


def test_large_videos_are_reduced_and_no_more_than_eight_are_shown(tmp_path):
    path = tmp_path / "large.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (322, 240))
    for t in range(50):
        writer.write(np.full((240, 322, 3), 2 * t, np.uint8))
    writer.release()
    samples = list(read_samples(make_result([(0, 0)] * 9, 3, [path] * 9), VIDEO_FILES))
    assert len(samples) == 8
    assert samples[0].frames.shape == (32, 128, 172, 3)


def test_only_a_run_that_logged_to_wandb_can_be_joined(compose_train, compose_evaluate, tmp_path):
    save_config(compose_train("logger.wandb_project=swins"), tmp_path / "config.yaml")
    with pytest.raises(InputError) as caught:
        check_wandb(compose_evaluate(f"run={tmp_path}", "wandb=true"))
    assert str(caught.value) == (
        f"wandb=true needs run=<a training run with logger=wandb>, but run={tmp_path} has no wandb_run_id.txt; "
        "leave out wandb=true"
    )
    with pytest.raises(InputError, match="but run=null has no wandb_run_id"):
        check_wandb(compose_evaluate("wandb=true", "dataset=motion"))
    check_wandb(compose_evaluate(f"run={tmp_path}"))


def test_wandb_that_cannot_start_leaves_the_evaluation_whole(run, compose_evaluate, monkeypatch, capsys):
    def init(**_):
        raise wandb.Error("no process")

    start_log(None)
    capsys.readouterr()
    monkeypatch.setattr(wandb, "init", init)
    config = compose_evaluate(f"run='{run}'", "wandb=true")
    log_to_wandb(config, make_result([(0, 0)], 3), [])
    assert capsys.readouterr().out == (
        "wandb: the evaluation was not taken (wandb=true asks for wandb, which cannot start: no process; set "
        "WANDB_MODE=offline or leave out wandb=true); its report is complete\n"
    )
