"""Tests of `vswin.tools.splits`: three real runs on a small data set in UCF101's layout."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vswin.config.compose import compose_config, compose_evaluation
from vswin.config.schema import TrainConfig
from vswin.data.catalog import read_class_names
from vswin.errors import InputError
from vswin.evaluation.run import run_evaluation
from vswin.tools.splits import run_splits
from vswin.training.run import run_training

VSWIN = str(Path(sys.executable).with_name("vswin"))
TINY = [
    *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,2]", "clip=8x1_64px"),
    *("clip.num_frames=4", "clip.crop=32", "clip.resize=32", "epochs=1", "batch_size=4", "augment=none"),
]


def test_a_data_set_without_splits_and_keys_that_are_decided_here(compose_train):
    with pytest.raises(InputError, match="dataset=motion has no official splits; ucf101 and hmdb51 have three"):
        run_splits(compose_train(), [])
    for override in ("dataset.split=2", "resume=true"):
        with pytest.raises(InputError, match=f"{override.partition('=')[0]} is decided for each split"):
            run_splits(compose_train("dataset=ucf101", override), ["dataset=ucf101", override])


@pytest.fixture
def ucf101(tmp_path):
    """Twelve videos of two classes; each split tests on four others."""
    names = read_class_names("ucf101")[:2]
    videos, splits = tmp_path / "ucf" / "videos", tmp_path / "ucf" / "splits"
    splits.mkdir(parents=True)
    paths = []
    for label, name in enumerate(names):
        (videos / name).mkdir(parents=True)
        for group in range(6):
            paths.append(f"{name}/v_{name}_g{group + 1:02d}_c01.avi")
            writer = cv2.VideoWriter(str(videos / paths[-1]), cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(8):
                writer.write(np.full((40, 48, 3), 40 + 150 * label + 3 * group + t, np.uint8))
            writer.release()
    for split in (1, 2, 3):
        tested = [path for index, path in enumerate(paths) if index % 3 == split - 1]
        trained = [f"{path} {1 + names.index(path.split('/')[0])}" for path in paths if path not in tested]
        (splits / f"trainlist0{split}.txt").write_text("\n".join(trained) + "\n")
        (splits / f"testlist0{split}.txt").write_text("\n".join(tested) + "\n")
    return videos


def run_here(command, **options):
    """Trains or evaluates in this process."""
    if command[1].endswith("train.py"):
        run_training(compose_config("train", command[2:], TrainConfig))
    else:
        run_evaluation(compose_evaluation(command[3:], run=command[2].removeprefix("run=")))
    return subprocess.CompletedProcess(command, 0)


@pytest.mark.slow
def test_the_mean_of_three_splits_in_a_command_that_stops_at_a_failure_and_goes_on(
    tmp_path, ucf101, compose_train, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    output, tested = tmp_path / "out", ucf101.parent / "splits" / "testlist01.txt"
    overrides = ["dataset=ucf101", f"dataset.root={ucf101}", f"output_dir={output}", *TINY]
    content = tested.read_text()
    tested.write_text("Nowhere/v_Nowhere_g01_c01.avi\n")
    failed = subprocess.run([VSWIN, "splits", *overrides], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "split 1" in failed.stdout
    assert "split 2" not in failed.stdout

    tested.write_text(content)
    monkeypatch.setattr(subprocess, "run", run_here)
    run_splits(compose_train(*overrides), overrides)
    printed = capsys.readouterr().out
    report = json.loads((output / "splits.json").read_text())
    top1 = [report["splits"][split]["top1"] for split in ("1", "2", "3")]
    assert report["mean"]["top1"] == pytest.approx(np.mean(top1))
    assert report["standard_deviation"]["top1"] == pytest.approx(np.std(top1, ddof=1))
    assert "standard deviation" in printed
    assert printed.count("table: outputs/results.md") == 3
