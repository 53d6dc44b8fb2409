"""Tests of `vswin.tools.splits`: two real runs on the folds of a small data set."""

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from vswin.config.compose import compose_config, compose_evaluation
from vswin.config.schema import SplitsConfig, TrainConfig
from vswin.errors import InputError
from vswin.evaluation.run import run_evaluation
from vswin.tools.splits import run_splits
from vswin.training.run import run_training

TINY = [
    *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,2]", "clip=8x1_64px"),
    *("clip.num_frames=4", "clip.crop=32", "clip.resize=32", "epochs=1", "batch_size=4", "augment=none"),
]


def start(*overrides: str) -> None:
    run_splits(compose_config("splits", overrides, SplitsConfig), overrides)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dataset=motion", "dataset=motion has no official splits, as ucf101 and hmdb51 have; set folds=5"),
        ("dataset=ucf101 dataset.split=2", "dataset.split is decided for each run"),
        ("dataset=ucf101 resume=true", "resume is decided for each run"),
        ("dataset=ucf101 folds=5", "dataset.folds=5: dataset=ucf101 has official lists"),
        ("dataset=folder folds=1", "dataset.folds=1: at least 2"),
        ("dataset=folder seeds=0", "seeds=0: at least 1"),
    ],
)
def test_settings_that_leave_nothing_to_average_or_contradict(words, message):
    with pytest.raises(InputError, match=message):
        start(*words.split())


@pytest.mark.slow
def test_the_folds_of_a_data_set_in_a_command_that_is_killed_and_goes_on(tmp_path, small_videos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    calls, run = [], subprocess.run

    def run_here(command, **options):
        """Trains or evaluates in this process; what would be the third process is killed."""
        script, folder = Path(command[1]).name, Path(command[2].partition("=")[2])
        if script not in ("train.py", "evaluate.py"):
            return run(command, **options)
        calls.append((script, folder.name if script == "evaluate.py" else Path(command[-2]).name))
        if len(calls) == 3:
            return subprocess.CompletedProcess(command, -9)
        if script == "train.py":
            run_training(compose_config("train", command[2:], TrainConfig))
        else:
            run_evaluation(compose_evaluation(command[3:], run=str(folder)))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run_here)
    words = ["dataset=folder", f"dataset.root={small_videos}", "folds=2", "seed=5", "output_dir=out", *TINY]
    with pytest.raises(SystemExit, match="137"):
        start(*words)
    names = ["fold_1_seed_5", "fold_2_seed_5"]
    assert calls == [("train.py", names[0]), ("evaluate.py", names[0]), ("train.py", names[1])]
    capsys.readouterr()
    start(*words)
    assert calls[3:] == [("train.py", names[0]), ("train.py", names[1]), ("evaluate.py", names[1])]

    report, rows = json.loads(Path("out/splits.json").read_text()), []
    for name, row in zip(names, report["runs"].values(), strict=True):
        rows.append(list(csv.DictReader(Path("out", name, "predictions.csv").read_text().splitlines())))
        metrics = json.loads(Path("out", name, "metrics.json").read_text())
        assert row == {key: metrics[key] for key in ("top1", "mean_class_accuracy", "f1_macro")}
    assert list(report["runs"]) == ["fold 1, seed 5", "fold 2, seed 5"]
    assert sorted(row["path"] for some in rows for row in some) == sorted(map(str, small_videos.glob("*/*.avi")))
    top1 = [row["top1"] for row in report["runs"].values()]
    assert report["mean"]["top1"] == pytest.approx(np.mean(top1))
    assert report["standard_deviation"]["top1"] == pytest.approx(np.std(top1, ddof=1))
    labels, predicted = zip(*((row["label_name"], row["class_1"]) for some in rows for row in some), strict=True)
    assert report["pooled"] == {
        "top1": pytest.approx(np.mean(np.array(labels) == np.array(predicted))),
        "mean_class_accuracy": pytest.approx(report["pooled"]["top1"]),  # both classes have six videos
        "f1_macro": pytest.approx(f1_score(labels, predicted, average="macro")),
    }
    printed = capsys.readouterr().out
    assert "pooled: over the predictions of all folds together\n" in printed
    assert printed.count("these videos neither trained the model nor chose the epoch") == 1
