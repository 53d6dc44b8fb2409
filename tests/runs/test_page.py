"""Tests of `vswin.runs.page`: what the page says, what it leaves out, and that it needs no other file."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import spread
from vswin.cli import main
from vswin.config.compose import compose_config
from vswin.config.load import save_config
from vswin.config.schema import TrainConfig
from vswin.errors import InputError
from vswin.evaluation.published import Comparison
from vswin.evaluation.report import Result, write_report
from vswin.runs.metrics import compute_metrics
from vswin.runs.report import make_report, report_or_say_why
from vswin.weights.published import find_published

CLIPS = Path(__file__).parents[1] / "clips"
CLASSES = ("jump, high", "<script>alert('run')</script>", "Ärmel & Co", "never shown")
UNPUBLISHED = Comparison(None, "best.safetensors is not the name of a published model")
PROTOCOL = {
    **{"num_frames": 8, "frame_stride": 1, "sampling": "dense", "spacing": "centred", "resize": 64, "crop": 64},
    **{"num_clips": 4, "num_crops": 3, "average": "prob", "precision": "float32", "model": "swin_micro"},
    **{"weights": {"init_from": "outputs/a", "file": "outputs/a/checkpoints/best.safetensors", "sha256": "0" * 64}},
    "dataset": {"name": "folder", "root": "/data/videos", "num_videos": 4, "num_missing": 0, "list_hash": "1" * 16},
    **{"vswin": "0.1.0", "tensorflow": "2.21.0", "date": "2026-01-31T10:15:00+00:00"},
}


@pytest.fixture
def run_folder(tmp_path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def fill_training(folder: Path, *overrides: str, top1: Sequence[float] = (0.25, 0.75, 0.5)) -> None:
    """Writes the files of a training of `swin_micro` on `motion`, with these top-1 values in validation."""
    config = compose_config("train", ["model=swin_micro", "dataset=motion", *overrides], TrainConfig)
    save_config(config, folder / "config.yaml")
    columns = ["epoch", "loss", "top1", "val_loss", "val_top1", "val_top5", "learning_rate"]
    rates = ["lr_backbone", "lr_bias_tables", "lr_head"]
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *rates, "clips_per_sec"])
        for epoch, share in enumerate(top1):
            rate = 0.001 / (epoch + 1)
            row = [epoch, 2 - share, share, 2.5 - share, share, 1.0, rate, rate, rate, 10 * rate, 40.0 + epoch]
            writer.writerow(row)


def fill_test(
    folder: Path,
    answers: Sequence[tuple[str, int, int, float]],
    class_names: Sequence[str] = CLASSES,
    comparison: Comparison = UNPUBLISHED,
) -> None:
    """Writes the files of an evaluation, from path, label, prediction (-1: bad) and probability of each video."""
    paths, labels, predicted, probabilities = zip(*answers, strict=True)
    others = [(label + 1) % len(class_names) for label in predicted]
    ranked = np.array([[best, -1 if best < 0 else other] for best, other in zip(predicted, others, strict=True)])
    of_best = spread(
        ranked, np.array([[share, min(share, 1 - share) / 2] for share in probabilities]), len(class_names)
    )
    metrics = compute_metrics(of_best, np.array(labels), np.zeros((len(labels), 2), np.int64), 12)
    result = Result(list(paths), np.array(labels), of_best, class_names, metrics)
    write_report(folder, result, comparison, PROTOCOL, {"python": "3.11.7", "gpus": [], "cpu": "A processor"})


def many_answers(num_classes: int, num_videos: int) -> list[tuple[str, int, int, float]]:
    """Draws predictions of which about three quarters are right; most mistakes are one of two neighbours."""
    rng = np.random.default_rng(0)
    answers = []
    for video in range(num_videos):
        label = video % num_classes
        is_right = rng.random() < 0.5 + 0.49 * ((label * 37) % num_classes) / num_classes
        predicted = (
            label if is_right else (label + int(rng.choice([1, 1, 1, 2, rng.integers(num_classes)]))) % num_classes
        )
        answers.append((f"/data/videos/{video}.mp4", label, predicted, float(rng.uniform(0.3, 1))))
    return answers


def read_page(folder: Path) -> list[str]:
    """Makes the report and returns its text by lines, with " | " between the cells of a row."""
    written = make_report(folder)
    assert written[0].name == "report.html"
    for path in written[1:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    page = re.sub(r"(?s)<(style|svg)\b.*?</\1>", "", written[0].read_text(encoding="utf-8"))
    page = re.sub(r"\s+", " ", page)
    page = re.sub(r"<h2>", "\n## ", page)
    page = re.sub(r"<(tr|p|h1|h3|figure|dt|pre|summary|title|footer)\b[^>]*>", "\n", page)
    page = re.sub(r"<[^>]*>", "", re.sub(r"<(td|th|dd)\b[^>]*>", " | ", page))
    return [" ".join(unescape(line).split()).removeprefix("| ") for line in page.split("\n") if line.strip()]


def section(lines: list[str], heading: str) -> list[str]:
    """Returns the lines below a heading, up to the next heading of the same level."""
    start = lines.index(f"## {heading}") + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("## ")), len(lines))
    return lines[start:end]


ANSWERS = [
    ("/data/a.mp4", 0, 0, 0.75),
    ("/data/b.mp4", 0, 1, 0.5),
    ("/data/c & d.mp4", 1, 1, 0.875),
    ("/data/<i>e</i>.mp4", 2, 1, 0.625),
    ("/data/f.mp4", 2, -1, 0.0),
]


def test_a_training_shows_its_figures_and_how_to_test_it(run_folder):
    fill_training(run_folder, "epochs=3", "augment.mixup=0.8")
    (run_folder / "environment.json").write_text(
        json.dumps({"sessions": [{"command": "train.py epochs=3", "git": {"revision": "abc123", "is_changed": True}}]})
    )
    page = read_page(run_folder)
    assert page[:2] == ["swin_micro on motion - vswin", "swin_micro on motion"]
    assert page[2].startswith("run · 3 of 3 epochs · report made ")
    assert "best validation top-1 | 75.0 % | epoch 2" in page
    assert "throughput | 41 | training clips per second" in page
    assert (run_folder / "report.html").read_text().count("<svg") == 4
    table = section(page, "Training")[1:]
    assert table[0].startswith("epoch | loss | top1 | val_loss | val_top1")
    assert table[2].startswith("2 | 1.25 | 0.75 | 1.75 | 0.75 | 1 | 0.0005")
    assert section(page, "Test")[1:] == [f"vswin evaluate run={run_folder}"]
    # Only mixup is set; three epochs are the default.
    assert section(page, "Configuration")[:3] == [
        "key | value | default",
        "augment.mixup | 0.8 | 0.0",
        "What differs from the defaults of this model and this data set.",
    ]
    assert section(page, "Machine and versions")[-3:-1] == ["git.revision | abc123", "git.is_changed | true"]
    assert sorted(path.name for path in run_folder.glob("*.png")) == ["curves.png"]


def test_an_evaluation_shows_what_was_right_and_what_was_taken_for_what(run_folder):
    fill_test(run_folder, ANSWERS)
    page = read_page(run_folder)
    assert page[1] == "swin_micro on folder"
    assert "evaluation only" in page[2]
    assert "test top-1 | 40.00 % | 95 % interval 11.8 to 76.9" in page
    assert "mean class accuracy | 50.00 % | 5 videos, 1 of them bad" in page
    (row,) = (row for row in section(page, "Test") if row.startswith("macro F1 | "))
    assert row.startswith("macro F1 | 38.89 % | ")
    assert not any("top-5" in row for row in page)
    assert section(page, "Most confused classes") == [
        "class | predicted as | videos | share | the other way round",
        f"{CLASSES[0]} | {CLASSES[1]} | 1 of 2 | 50 % | 0",
        f"{CLASSES[2]} | {CLASSES[1]} | 1 of 2 | 50 % | 0",
    ]
    assert section(page, "Confusion matrix")[1:] == [
        "| | 1 | 2 | 3 | 4 | bad",
        f"{CLASSES[0]} | 1 | 1 | 1 | | |",
        f"{CLASSES[1]} | 2 | | 1 | | |",
        f"{CLASSES[2]} | 3 | | 1 | | | 1",
        f"{CLASSES[3]} | 4 | | | | |",
    ]
    assert section(page, "Accuracy by class") == [
        "class | videos | top-1 (recall) | | 95 % interval | precision | F1 | most often predicted as",
        f"{CLASSES[2]} | 2 | 0.0 % | | 0.0 to 65.8 | - | 0.0 % | {CLASSES[1]} (1)",
        f"{CLASSES[0]} | 2 | 50.0 % | | 9.5 to 90.5 | 100.0 % | 66.7 % | {CLASSES[1]} (1)",
        f"{CLASSES[1]} | 1 | 100.0 % | | 20.7 to 100.0 | 33.3 % | 50.0 % |",
    ]
    assert "views of a video | 4 clips x 3 crops, probabilities averaged" in section(page, "How it was tested")
    assert "frames of a view | 8 frames in a row" in section(page, "How it was tested")
    assert "date | 2026-01-31T10:15:00+00:00" in section(page, "How it was tested")
    assert "cpu | A processor" in section(page, "Machine and versions")
    assert "No published number for this: best.safetensors is not the name of a published model." in section(
        page, "Test"
    )
    assert not {"## Training", "## Configuration"} & set(page)


def test_names_are_text_and_nothing_is_fetched(run_folder):
    fill_training(run_folder)
    fill_test(run_folder, ANSWERS)
    make_report(run_folder)
    html = (run_folder / "report.html").read_text()
    assert not re.search(r"<script|<i>e|@import|url\((?!#)", html)
    assert "&lt;script&gt;alert(&#39;run&#39;)&lt;/script&gt;" in html
    links = re.findall(r"""\b(?:href|src|srcset|data|poster|action)=["']([^"']*)""", html)
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in links), links
    ids = re.findall(r"""\bid=["']([^"']*)""", html)
    assert len(ids) == len(set(ids))
    # The only addresses are XML namespaces, which browsers do not fetch.
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_clips_move_and_name_the_true_and_the_predicted_class(run_folder):
    name = str(CLIPS / "demo.mp4")
    fill_test(run_folder, [(name, 0, 1, 0.5), (name, 1, 1, 0.875), ("gone.mp4", 2, 2, 0.75)])
    page = read_page(run_folder)
    films = map(
        base64.b64decode, re.findall(r"data:image/webp;base64,([^\"]+)", (run_folder / "report.html").read_text())
    )
    images = [Image.open(io.BytesIO(film)) for film in films]
    assert [image.n_frames for image in images] == [1, 14, 1, 14]
    assert all(image.height <= 112 and image.width <= 200 for image in images)
    moving = images[1]
    first = moving.convert("RGB").tobytes()
    moving.seek(7)
    assert moving.convert("RGB").tobytes() != first
    clips = " ".join(section(page, "Clips"))
    assert f"predicted {CLASSES[1]} 50.0 % actual {CLASSES[0]} {name}" in clips
    assert f"predicted {CLASSES[1]} 87.5 % {name}" in clips
    gone = "no picture: the file is not there any more, or not seen from this folder"
    assert f"{gone} predicted {CLASSES[2]} 75.0 % gone.mp4" in clips


def test_four_hundred_classes_stay_readable(run_folder):
    names = [f"class {label}" for label in range(400)]
    answers = many_answers(400, 4_000)
    published = Comparison(find_published("swin_tiny_patch244_window877_kinetics400_1k"))
    fill_test(run_folder, answers, names, published)
    fill_training(run_folder, top1=[0.5] * 30)
    page = read_page(run_folder)
    assert (run_folder / "report.html").stat().st_size < 1_000_000
    assert len(section(page, "Most confused classes")) == 1 + 20
    assert len([row for row in section(page, "Confusion matrix of these classes") if row.startswith("class ")]) == 12
    rows = section(page, "Accuracy by class")
    shown = rows[: rows.index("All 400 classes")]
    assert [row for row in shown if "worst" in row or "best" in row] == ["The 20 worst classes", "The 10 best classes"]
    assert len([row for row in shown if row.startswith("class ")]) == 20 + 10 + 2
    assert len([row for row in rows if re.match(r"class \d+ \| 10 ", row)]) == 20 + 10 + 400
    right = sum(label == predicted for _, label, predicted, _ in answers) / len(answers)
    (row,) = (row for row in section(page, "Test") if row.startswith("top-1 | "))
    measured, _, *published = row.split(" | ")[1:]
    assert [measured, *published] == [f"{100 * right:.2f} %", "78.8 %", f"{100 * right - 78.8:+.2f}", "below"]
    assert (run_folder / "class_accuracy.png").exists()


def test_a_run_without_an_epoch_and_a_model_of_another_version(run_folder):
    fill_training(run_folder)
    (run_folder / "history.csv").unlink()
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("name: swin_micro", "name: swin_of_tomorrow"))
    page = read_page(run_folder)
    assert "0 of 3 epochs, stopped early or not finished" in page[2]
    assert section(page, "Training") == ["No epoch is complete, or history.csv is missing."]
    assert "<svg" not in (run_folder / "report.html").read_text()
    assert section(page, "Configuration")[0].startswith("This version has no such model or data set")


def test_weights_of_another_run_are_named(run_folder):
    fill_training(run_folder)
    fill_test(run_folder, ANSWERS)
    words = "used weights from another folder"
    assert words in " ".join(read_page(run_folder))
    metrics = json.loads((run_folder / "metrics.json").read_text())
    metrics["protocol"]["weights"]["file"] = str(run_folder / "checkpoints" / "best.safetensors")
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    assert words not in " ".join(read_page(run_folder))


def test_what_metrics_say_besides_the_accuracies_may_be_anything(run_folder):
    fill_test(run_folder, ANSWERS)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    for value in (None, 3, "text", [], {"a": [1, {"b": "<i>"}]}, {"weights": 3, "decoder": 4, "date": 5}):
        protocol = {"protocol": value} if isinstance(value, dict | None) else {}
        odd = {"published": value, "environment": value, "top1_interval": value, "clip_top1": value, **protocol}
        (run_folder / "metrics.json").write_text(json.dumps(metrics | odd))
        assert "test top-1 | 40.00 %" in " ".join(read_page(run_folder))
        assert "<i>" not in (run_folder / "report.html").read_text()


def test_a_damaged_file_or_a_full_disk_does_not_spoil_a_run(run_folder, monkeypatch):
    fill_training(run_folder)
    history = (run_folder / "history.csv").read_text()
    (run_folder / "history.csv").write_text(history + "3,0.5")
    (run_folder / "report.html").write_text("earlier")
    with pytest.raises(InputError, match=r"history\.csv is damaged"):
        make_report(run_folder)
    sentence = report_or_say_why(run_folder)
    assert sentence.startswith("there is no report.html (")
    assert "history.csv is damaged" in sentence
    assert sentence.endswith(f"everything else is complete. Make it later with vswin report {run_folder}")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (run_folder / "history.csv").write_text(history)
    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    assert "No space left on device" in report_or_say_why(run_folder)
    assert (run_folder / "report.html").read_text() == "earlier"
    assert not list(run_folder.glob("*.partial"))


def test_the_command_makes_the_reports_of_all_runs_that_it_can(tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    fill_training(tmp_path / "a")
    fill_training(tmp_path / "b")
    fill_test(tmp_path / "c", ANSWERS)
    (tmp_path / "b" / "history.csv").write_text("damaged")
    monkeypatch.setattr("sys.argv", ["vswin", "report", str(tmp_path / "*")])
    with pytest.raises(SystemExit, match=r"error: .*b/history\.csv"):
        main()
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / name) for name in ("a/report.html", "a/curves.png", "c/report.html")
    ]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_light_and_dark(run_folder, tmp_path, width):
    fill_training(run_folder)
    fill_test(run_folder, many_answers(60, 600), [f"a_class_with_a_long_name_{label}" for label in range(60)])
    make_report(run_folder)
    means = []
    for scheme in ("0", "1"):
        picture = tmp_path / f"{scheme}.png"
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={tmp_path / 'chromium'}", f"--screenshot={picture}"]
        command += [f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},1200"]
        report = f"file://{run_folder / 'report.html'}"
        subprocess.run([*command, report], check=True, capture_output=True, timeout=120)
        image = Image.open(picture).convert("L")
        assert image.width == width
        means.append(sum(value * count for value, count in enumerate(image.histogram())) / (image.width * image.height))
    dark, light = means
    assert dark < 60 < 220 < light
