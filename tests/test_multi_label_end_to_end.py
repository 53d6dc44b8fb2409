"""Several labels per sample from a list to the report: training, a test and predictions."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vswin.data.motion import NUM_VIDEO_FRAMES, draw_scene, object_states, render_frames, write_video

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 1_200, "val": 150, "test": 150}
# The motions of both objects; "" stands still.
MOTIONS = (("move_left", "move_right", ""), ("move_up", "move_down", ""))
NAMES = ["move_down", "move_left", "move_right", "move_up"]

pytestmark = pytest.mark.slow


def run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / script), *arguments]
    if script == "vswin":
        command = [sys.executable, "-c", "from vswin.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Makes videos of two objects, each of two or three shapes that move alike, and a list of their motions."""
    folder = tmp_path_factory.mktemp("objects")
    with open(folder / "videos.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "labels", "split"])
        for number, subset in enumerate(np.repeat(list(COUNTS), list(COUNTS.values())).tolist()):
            rng = np.random.default_rng([5, number])
            scene, labels = draw_scene(rng), [motions[rng.integers(3)] for motions in MOTIONS]
            states = np.tile(scene.phases, (NUM_VIDEO_FRAMES, 1, 1))  # [T, O, 4]
            for first, label in enumerate(labels):
                if label:
                    states[:, first::2] = object_states(scene, label)[:, first::2]
            write_video(folder / f"{number}.avi", render_frames(scene, states))
            rows.writerow([f"{number}.avi", ";".join(filter(None, labels)), subset])
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> str:
    dataset = ["dataset=folder", "dataset.task=multi_label", f"dataset.root={folder}", "dataset.allow_flip=false"]
    dataset += [f"dataset.train_list={folder / 'videos.csv'}", "dataset.crop_area=[1,1]", "clip=8x1_64px"]
    training = ["batch_size=16", "epochs=2", "optimizer.warmup_epochs=0.5"]
    return run("train.py", *dataset, *training, "output_dir=run", "logger.wandb=false", cwd=folder)


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_two_objects_are_told_apart_and_every_file_says_the_same(folder, trained):
    assert "4 classes, 1,200 training videos, 150 validation videos, 150 test videos" in trained
    history = read_rows(folder / "run" / "history.csv")
    assert float(history[-1]["val_map"]) > 0.9
    assert f"val mAP {100 * max(float(row['val_map']) for row in history):.1f} %, weights in" in trained

    said = run("evaluate.py", "run=run", "tensorboard=true", cwd=folder)
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert (metrics["task"], metrics["num_videos"]) == ("multi_label", 150)
    assert 0.9 < metrics["map_interval"][0] < metrics["map"]
    assert f"mAP               {100 * metrics['map']:.2f} %" in said
    assert "thresholds:     of each class, chosen on validation" in said
    assert "these videos neither trained the model nor chose the epoch" in said
    scores = read_rows(folder / "run" / "scores.csv")
    labels = {
        row["path"]: row["labels"].split(";") for row in read_rows(folder / "videos.csv") if row["split"] == "test"
    }
    targets = np.array([[name in labels[Path(row["path"]).name] for name in NAMES] for row in scores])
    values = np.array([[float(row[name]) for name in NAMES] for row in scores])
    precisions = [average_precision_score(targets[:, k], values[:, k]) for k in range(4)]
    assert metrics["map"] == pytest.approx(np.mean(precisions), abs=1e-4)
    classes = read_rows(folder / "run" / "per_class.csv")
    assert [float(row["average_precision"]) for row in classes] == pytest.approx(precisions, abs=1e-3)
    predictions = read_rows(folder / "run" / "predictions.csv")
    thresholds = np.array([float(row["threshold"]) for row in classes])
    for row, score in zip(predictions, values, strict=True):
        assert row["predicted"].split(";") == [
            name for name, flag in zip(NAMES, score >= thresholds, strict=True) if flag
        ] or [""]
    report = (folder / "run" / "report.html").read_text()
    assert f"{100 * metrics['map']:.2f}" in report
    assert "Figures by class" in report
    assert "Confusion matrix" not in report
    assert "mAP %" in (folder / "outputs" / "results.md").read_text()

    # Predictions are those of the evaluation.
    films = [row["path"] for row in predictions[:3]]
    run("vswin", "predict", *films, "--model", "run", "--json", "found.json", "--top-k", "4", cwd=folder)
    found = json.loads((folder / "found.json").read_text())["predictions"]
    for entry, row, score in zip(found, predictions[:3], values[:3], strict=True):
        probabilities = {best["class"]: best["probability"] for best in entry["top"]}
        assert probabilities == pytest.approx(dict(zip(NAMES, score, strict=True)), abs=1e-4)
        assert sorted(entry["predicted"]) == sorted(filter(None, row["predicted"].split(";")))
