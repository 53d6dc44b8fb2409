"""Tests of `vswin.evaluation.report`: the files, the screen, and the table of all evaluations."""

import csv
import dataclasses
import io
import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from tests.conftest import spread
from vswin.errors import InputError
from vswin.evaluation.published import Comparison
from vswin.evaluation.report import Result, append_result, print_report, set_report_aside, write_report
from vswin.runs.figures import describe_views
from vswin.runs.metrics import Metrics, compute_metrics, wilson_interval
from vswin.weights.published import find_published

NAMES = ("jump, high", "run [fast]", "Ärmel")
FRAMES = "32 frames with stride 2, short side 224, 224 x 224 px"
BASE = "swin_base_patch244_window877_kinetics400_1k"
NOTE = "the TF-Hub page gives 96.6 % top-5 (official: 94.6 %): a slip of the page"
UNPUBLISHED = Comparison(None, "best.safetensors is not the name of a published model")


@pytest.fixture
def result():
    """Five videos of three classes: three right, one wrong, one bad."""
    labels = np.array([0, 0, 1, 1, 2])
    ranked = np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0], [-1, -1, -1], [2, 0, 1]])
    probabilities = spread(ranked, np.array([[0.5, 0.3, 0.2]] * 5), 3)
    paths = [f"videos/{number}, a.mp4" for number in range(5)]
    metrics = compute_metrics(probabilities, labels, np.ones((5, 2), int), 2)
    return Result(paths, labels, probabilities, NAMES, metrics)


def make_result(num_classes):
    labels = np.repeat(np.arange(num_classes), 2)
    ranked = (labels[:, np.newaxis] + np.arange(min(5, num_classes))) % num_classes
    probabilities = spread(ranked, np.broadcast_to(0.5 / (1 + np.arange(ranked.shape[1])), ranked.shape), num_classes)
    names = [f"class {label}" for label in range(num_classes)]
    metrics = compute_metrics(probabilities, labels, np.ones((len(labels), 2), int), 1)
    return Result([str(path) for path in labels], labels, probabilities, names, metrics)


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def printed(result, comparison, width=120):
    text = io.StringIO()
    print_report(Console(file=text, width=width), result, comparison)
    return text.getvalue()


def test_the_files(tmp_path, result):
    (tmp_path / "metrics.json").write_text("old")
    write_report(tmp_path, result, UNPUBLISHED, {"num_frames": 8, "decoder": "x 1.0"})
    names = ["confusion_matrix.png", "metrics.json", "per_class.csv", "predictions.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names

    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["top1"] == pytest.approx(3 / 5)
    assert not {"top5", "top5_interval", "clip_top5", "roc_auc"} & summary.keys()
    assert summary["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert summary["log_loss"] == pytest.approx(-np.log([0.5, 0.3, 0.5, 0.5]).mean())
    assert summary["mean_class_accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert (summary["num_videos"], summary["num_bad_videos"]) == (5, 1)
    assert summary["protocol"] == {"num_frames": 8, "decoder": "x 1.0"}
    assert summary["published"] == {"name": None, "reason": UNPUBLISHED.reason}

    rows = read_rows(tmp_path / "predictions.csv")
    assert rows[0][:5] == ["path", "label", "label_name", "class_1", "probability_1"]
    assert rows[1][:5] == ["videos/0, a.mp4", "0", "jump, high", "jump, high", "0.500000"]
    assert rows[2][3:] == ["run [fast]", "0.500000", "jump, high", "0.300000", "Ärmel", "0.200000"]
    assert rows[4] == ["videos/3, a.mp4", "1", "run [fast]"] + [""] * 6
    assert len(rows) == 6

    rows = read_rows(tmp_path / "per_class.csv")
    figures = ["top1", "top5", "confused_with", "num_confused", "precision", "f1", "top1_low", "top1_high"]
    assert rows[0] == ["label", "label_name", "num_videos", *figures]
    half = ["0.0945", "0.9055"]  # Wilson, one of two
    assert rows[1] == ["0", "jump, high", "2", "0.5000", "1.0000", "run [fast]", "1", "1.0000", "0.6667", *half]
    assert rows[2] == ["1", "run [fast]", "2", "0.5000", "0.5000", "", "0", "0.5000", "0.5000", *half]
    assert rows[3] == ["2", "Ärmel", "1", "1.0000", "1.0000", "", "0", "1.0000", "1.0000", "0.2065", "1.0000"]
    # A class without videos has empty accuracies.
    result.labels[4] = 1
    write_report(tmp_path, result, UNPUBLISHED, {})
    assert read_rows(tmp_path / "per_class.csv")[3] == ["2", "Ärmel", "0", "", "", "", "0", "0.0000", "0.0000", "", ""]


@pytest.mark.parametrize("num_classes", [2, 21, 130])
def test_confusion_matrix_is_a_picture_with_a_dark_diagonal(tmp_path, num_classes):
    write_report(tmp_path, make_result(num_classes), UNPUBLISHED, {})
    image = cv2.imread(str(tmp_path / "confusion_matrix.png"))
    is_dark = image[:, :, 2] < 60
    # 1/K of the matrix is dark, and the text, the frame and half of the colour bar.
    assert 0.3 / num_classes < is_dark.mean() < 1.0 / num_classes + 0.1
    assert 300 < min(image.shape[:2]) <= max(image.shape[:2]) < 1600


def test_the_screen_without_a_published_row(result):
    text = printed(result, UNPUBLISHED)
    for words in (
        "60.00 %",
        "23.1 to 88.2",
        "macro F1",
        "72.22 %",
        "log loss",
        "0.821",
        "50.00 %",
        "66.67 %",
        "5 videos, 1 of them could not be decoded",
    ):
        assert words in text
    assert "no published number for this: best.safetensors is not the name of a published model" in text
    assert "Ärmel" not in text
    assert "Worst classes" not in printed(make_result(3), UNPUBLISHED)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_window_of_any_width_shows_every_figure_beside_the_published_one(tmp_path, result, width):
    comparison = Comparison(find_published(BASE), note=NOTE)
    lines = printed(result, comparison, width).splitlines()
    assert max(map(len, lines)) <= max(width, 80)
    text = " ".join(" ".join(lines).split())
    for figure in ("60.00 %", "23.1 to 88.2", "80.6 %", "-20.60", "80.00 %", "37.6 to 96.4", "94.6 %", "-14.60"):
        assert figure in text
    for words in ("95 % interval", "published", "difference", "verdict", "mean class", "predicted as", NOTE):
        assert words in text
    row = "top-1 60.00 % 23.1 to 88.2 80.6 % -20.60 below, but too"
    assert " ".join(lines[1].split()).startswith(row)
    write_report(tmp_path, result, comparison, {})
    published = json.loads((tmp_path / "metrics.json").read_text())["published"]
    assert published["top1"] == pytest.approx(0.806)
    assert published["top1_verdict"] == "below, but too few videos to tell"


def test_an_earlier_report_is_set_aside(tmp_path):
    for name, text in {"metrics.json": "1", "predictions.csv": "2", "config.yaml": "3"}.items():
        (tmp_path / name).write_text(text)
    set_report_aside(tmp_path)
    (kept,) = (tmp_path / "earlier_evaluations").iterdir()
    assert {path.name: path.read_text() for path in kept.iterdir()} == {"metrics.json": "1", "predictions.csv": "2"}
    assert (tmp_path / "config.yaml").read_text() == "3"
    set_report_aside(tmp_path)
    assert [path.name for path in (tmp_path / "earlier_evaluations").iterdir()] == [kept.name]


def make_metrics(top1=0.8, top5=0.95, num_videos=19_796, num_bad_videos=0):
    return Metrics(
        top1=top1,
        top5=top5,
        top1_interval=wilson_interval(top1, num_videos),
        top5_interval=wilson_interval(top5, num_videos),
        mean_class_accuracy=0.79,
        clip_top1=0.75,
        clip_top5=0.93,
        num_videos=num_videos,
        num_bad_videos=num_bad_videos,
    )


def make_protocol(init_from=BASE, **changes):
    protocol = {
        **{"num_frames": 32, "frame_stride": 2, "resize": 224, "crop": 224, "num_clips": 4, "num_crops": 3},
        **{"sampling": "dense", "spacing": "centred", "average": "prob", "weights": {"init_from": init_from}},
        **{"dataset": {"name": "kinetics400", "split": None, "num_missing": 0}, "date": "2026-11-25T12:00:00+00:00"},
    }
    return protocol | changes


def read_table(folder):
    lines = (folder / "results.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]


def test_a_row_beside_the_official_one(tmp_path):
    comparison = Comparison(find_published(BASE), note=NOTE)
    append_result(tmp_path / "new", make_metrics(), comparison, make_protocol(), Path("outputs/a"))
    headings, rule, row = read_table(tmp_path / "new")
    assert len(headings) == len(rule) == len(row)
    assert row == [
        "2026-11-25",
        BASE,
        "kinetics400",
        "19,796",
        f"4 clips x 3 crops, probabilities averaged, {FRAMES}",
        "80.00 (79.44 to 80.55)",
        "80.6",
        "-0.60",
        "below, but too few videos to tell",
        "95.00 (94.69 to 95.29)",
        "94.6 (TF-Hub page: 96.6)",
        "+0.40",
        "within ±0.5 points",
        *("75.00", "79.00", "-", "-"),
    ]
    assert f"- {BASE}: {NOTE}" in (tmp_path / "new" / "results.md").read_text()
    (record,) = json.loads((tmp_path / "new" / "results.json").read_text())
    assert record["top5"]["hub_page"] == pytest.approx(0.966)
    assert (record["official"], record["report"], record["num_clips"]) == (BASE, "outputs/a", 4)


def test_rows_without_an_official_figure_say_why_once(tmp_path):
    dataset = {"name": "ucf101", "split": 2, "num_missing": 3}
    protocol = make_protocol("outputs/a|b", sampling="segments", average="score", dataset=dataset)
    for bad in (0, 4):
        append_result(tmp_path, make_metrics(num_bad_videos=bad), UNPUBLISHED, protocol, Path("outputs/a"))
    lines = (tmp_path / "results.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| 2026")]
    assert (
        "| ucf101, split 2 | 19,796, 3 missing | 4 clips x 3 crops, logits averaged, 32 frames from equal parts"
        in rows[0]
    )
    assert "| 19,796, 3 missing, 4 bad |" in rows[1]
    assert "outputs/a\\|b" in rows[0]
    assert [line for line in lines if line.startswith("- ")] == [f"- outputs/a\\|b on ucf101: {UNPUBLISHED.reason}"]


def test_a_row_has_the_figures_that_fit_the_task(tmp_path, result):
    append_result(tmp_path, result.metrics, UNPUBLISHED, make_protocol(), Path("outputs/a"))
    headings, _, row = read_table(tmp_path)
    cells = dict(zip(headings, row, strict=True))
    assert (cells["top-5 %"], cells["mean class %"], cells["macro F1 %"], cells["log loss"]) == (
        *("-", "66.67"),
        *("72.22", "0.8209"),
    )
    # A row of an earlier version has no such figures.
    (record,) = json.loads((tmp_path / "results.json").read_text())
    for key in ("f1_macro", "log_loss"):
        del record[key]
    (tmp_path / "results.json").write_text(json.dumps([record]))
    append_result(tmp_path, result.metrics, UNPUBLISHED, make_protocol(), Path("outputs/a"))
    assert [row[-2:] for row in read_table(tmp_path)[2:]] == [["-", "-"], ["72.22", "0.8209"]]


def test_clips_end_to_end_are_named():
    words = describe_views(make_protocol(spacing="end_to_end"))
    assert words["views"] == "4 clips x 3 crops, clips end to end, probabilities averaged"


def test_a_foreign_file_is_left_as_it_is_and_a_folder_that_cannot_be_written_is_named(tmp_path):
    for text in ("not json", "{}"):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(InputError, match=r"results\.json is no table of vswin.*left as it is"):
            append_result(tmp_path, make_metrics(), UNPUBLISHED, make_protocol(), Path("outputs/a"))
        assert (tmp_path / "results.json").read_text() == text
    words = r"stands in outputs/a, but the table in results_dir=.*results\.json.* null for no table"
    with pytest.raises(InputError, match=words):
        append_result(tmp_path / "results.json", make_metrics(), UNPUBLISHED, make_protocol(), Path("outputs/a"))


def append_ten(folder, worker):
    for number in range(10):
        metrics = dataclasses.replace(make_metrics(), num_bad_videos=10 * worker + number)
        append_result(folder, metrics, UNPUBLISHED, make_protocol(), Path("outputs/a"))


def test_processes_at_the_same_time_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_ten, args=(tmp_path, worker)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = json.loads((tmp_path / "results.json").read_text())
    assert sorted(record["num_bad_videos"] for record in records) == list(range(20))
