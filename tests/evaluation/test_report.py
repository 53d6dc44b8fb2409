"""Tests of `vswin.evaluation.report`: what the files contain and the screen shows."""

import csv
import io
import json

import cv2
import numpy as np
import pytest
from rich.console import Console

from vswin.evaluation.published import Comparison
from vswin.evaluation.report import Result, print_report, set_report_aside, write_report
from vswin.runs.metrics import compute_metrics
from vswin.weights.published import find_published

NAMES = ("jump, high", "run [fast]", "Ärmel")
UNPUBLISHED = Comparison(None, "best.safetensors is not the name of a published model")


@pytest.fixture
def result():
    """Five videos of three classes: three right, one wrong, one bad."""
    labels = np.array([0, 0, 1, 1, 2])
    ranked = np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0], [-1, -1, -1], [2, 0, 1]])
    probabilities = np.array([[0.5, 0.3, 0.2]] * 5, "f4")
    paths = [f"videos/{number}, a.mp4" for number in range(5)]
    return Result(paths, labels, ranked, probabilities, NAMES, compute_metrics(ranked, labels, np.ones((5, 2), int), 2))


def make_result(num_classes):
    labels = np.repeat(np.arange(num_classes), 2)
    ranked = (labels[:, np.newaxis] + np.arange(min(5, num_classes))) % num_classes
    probabilities = np.full(ranked.shape, 0.1, "f4")
    names = [f"class {label}" for label in range(num_classes)]
    metrics = compute_metrics(ranked, labels, np.ones((len(labels), 2), int), 1)
    return Result([str(path) for path in labels], labels, ranked, probabilities, names, metrics)


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def printed(result, comparison, width=120):
    text = io.StringIO()
    print_report(Console(file=text, width=width), result, comparison)
    return text.getvalue()


def test_metrics_json_holds_fractions_and_the_protocol(tmp_path, result):
    write_report(tmp_path, result, UNPUBLISHED, {"num_frames": 8, "decoder": "x 1.0"})
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["top1"] == pytest.approx(3 / 5)
    assert summary["top5"] == pytest.approx(4 / 5)
    assert summary["mean_class_accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert (summary["num_videos"], summary["num_bad_videos"]) == (5, 1)
    assert summary["protocol"] == {"num_frames": 8, "decoder": "x 1.0"}
    assert summary["published"] == {"name": None, "reason": UNPUBLISHED.reason}


def test_predictions_csv_lists_every_video_with_names_and_probabilities(tmp_path, result):
    write_report(tmp_path, result, UNPUBLISHED, {})
    rows = read_rows(tmp_path / "predictions.csv")
    assert rows[0][:5] == ["path", "label", "label_name", "class_1", "probability_1"]
    assert rows[1][:5] == ["videos/0, a.mp4", "0", "jump, high", "jump, high", "0.500000"]
    assert rows[2][3:] == ["run [fast]", "0.500000", "jump, high", "0.300000", "Ärmel", "0.200000"]
    assert rows[4] == ["videos/3, a.mp4", "1", "run [fast]"] + [""] * 6
    assert len(rows) == 6


def test_per_class_csv(tmp_path, result):
    write_report(tmp_path, result, UNPUBLISHED, {})
    rows = read_rows(tmp_path / "per_class.csv")
    figures = ["top1", "top5", "confused_with", "num_confused", "precision", "f1"]
    assert rows[0] == ["label", "label_name", "num_videos", *figures]
    assert rows[1] == ["0", "jump, high", "2", "0.5000", "1.0000", "run [fast]", "1", "1.0000", "0.6667"]
    assert rows[2] == ["1", "run [fast]", "2", "0.5000", "0.5000", "", "0", "0.5000", "0.5000"]
    assert rows[3] == ["2", "Ärmel", "1", "1.0000", "1.0000", "", "0", "1.0000", "1.0000"]


def test_class_without_videos_has_empty_accuracies(tmp_path, result):
    result.labels[4] = 1
    write_report(tmp_path, result, UNPUBLISHED, {})
    assert read_rows(tmp_path / "per_class.csv")[3] == ["2", "Ärmel", "0", "", "", "", "0", "0.0000", "0.0000"]


@pytest.mark.parametrize("num_classes", [2, 21, 130])
def test_confusion_matrix_is_a_picture_with_a_dark_diagonal(tmp_path, num_classes):
    write_report(tmp_path, make_result(num_classes), UNPUBLISHED, {})
    image = cv2.imread(str(tmp_path / "confusion_matrix.png"))
    is_dark = image[:, :, 2] < 60
    # 1/K of the matrix is dark, and the text, the frame and half of the colour bar.
    assert 0.3 / num_classes < is_dark.mean() < 1.0 / num_classes + 0.1
    assert 300 < min(image.shape[:2]) <= max(image.shape[:2]) < 1600


def test_files_replace_older_ones_and_leave_nothing_else(tmp_path, result):
    (tmp_path / "metrics.json").write_text("old")
    write_report(tmp_path, result, UNPUBLISHED, {})
    names = ["confusion_matrix.png", "metrics.json", "per_class.csv", "predictions.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert json.loads((tmp_path / "metrics.json").read_text())["num_videos"] == 5


def test_screen_shows_percent_worst_classes_and_that_nothing_is_published(result):
    text = printed(result, UNPUBLISHED)
    assert "60.00 %" in text
    assert "80.00 %" in text
    assert "23.1 to 88.2" in text
    assert "50.00 %" in text
    assert "66.67 %" in text
    assert "no published number for this: best.safetensors is not the name of a published model" in text
    assert "5 videos, 1 of them could not be decoded" in text
    assert "run [fast] (1)" in text
    assert "Ärmel" not in text


def test_screen_shows_the_published_row_with_difference_verdict_and_note(tmp_path, result):
    row = find_published("swin_base_patch244_window877_kinetics400_1k")
    comparison = Comparison(row, note="the TF-Hub page gives 96.6 % top-5 (official: 94.6 %)")
    text = printed(result, comparison)
    assert "80.6 %" in text
    assert "-20.60" in text
    assert "below" in text
    assert "96.6 % top-5" in text
    write_report(tmp_path, result, comparison, {})
    published = json.loads((tmp_path / "metrics.json").read_text())["published"]
    assert published["top1"] == pytest.approx(0.806)
    assert published["top1_verdict"] == "below, but too few videos to tell"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_window_of_any_width_shows_every_figure_whole(result, width):
    comparison = Comparison(find_published("swin_base_patch244_window877_kinetics400_1k"))
    lines = printed(result, comparison, width).splitlines()
    assert max(map(len, lines)) <= max(width, 80)
    text = " ".join(" ".join(lines).split())
    for figure in ("60.00 %", "23.1 to 88.2", "80.6 %", "-20.60", "80.00 %", "37.6 to 96.4", "94.6 %", "-14.60"):
        assert figure in text
    for words in ("95 % interval", "published", "difference", "verdict", "mean class", "most often taken"):
        assert words in text
    row = "top-1 60.00 % 23.1 to 88.2 80.6 % -20.60 below, but too"
    assert " ".join(lines[1].split()).startswith(row)


def test_screen_of_a_perfect_model_has_no_worst_classes():
    assert "Worst classes" not in printed(make_result(3), UNPUBLISHED)


def test_an_earlier_report_is_set_aside(tmp_path):
    for name, text in {"metrics.json": "1", "predictions.csv": "2", "config.yaml": "3"}.items():
        (tmp_path / name).write_text(text)
    set_report_aside(tmp_path)
    (kept,) = (tmp_path / "earlier_evaluations").iterdir()
    assert {path.name: path.read_text() for path in kept.iterdir()} == {"metrics.json": "1", "predictions.csv": "2"}
    assert (tmp_path / "config.yaml").read_text() == "3"
    set_report_aside(tmp_path)
    assert [path.name for path in (tmp_path / "earlier_evaluations").iterdir()] == [kept.name]
