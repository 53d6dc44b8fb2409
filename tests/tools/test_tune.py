"""`vswin tune` on the command line: real steps, its files and output, and bad input."""

import csv
import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from vswin import cli

TINY = (
    *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"),
    *("dataset=folder", "clip.num_frames=4", "clip.resize=32", "clip.crop=32", "batch_size=4"),
)


@pytest.fixture
def tune(monkeypatch):
    """Runs `vswin tune ARGUMENT ...` in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vswin", "tune", *arguments])
        cli.main()

    return run


def test_a_range_test_writes_its_curve_and_says_how_to_train(tune, small_videos, tmp_path, capsys):
    output, rest = tmp_path / "curve", (f"dataset.root={small_videos}", f"output_dir={tmp_path / 'run'}")
    tune("lr", *TINY, *rest, "--min", "1e-5", "--max", "0.1", "--steps", "24", "--output", str(output))
    rows = list(csv.DictReader((output / "learning_rates.csv").read_text().splitlines()))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(1e-5)
    assert len(rows) == 24
    assert rates[-1] == pytest.approx(0.1, rel=1e-4)
    assert rates[13] / rates[12] == pytest.approx(1e4 ** (1 / 23), rel=1e-4)
    with Image.open(output / "learning_rates.png") as plot:
        assert plot.size == (1200, 675)
    assert not (tmp_path / "run").exists()
    printed = capsys.readouterr().out
    assert "24 steps of 4 clips" in printed
    assert "optimizer.learning_rate=" in printed or "no learning rate is suggested" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr", "--min", "1", "--max", "1e-3"], "--min 1 --max 0.001: two learning rates with 0 < smallest < largest"),
        (["lr", "--min", "0"], "--min 0 --max 1: two learning rates"),
        (["lr", "--steps", "19"], "--steps 19: a curve needs at least 20 steps"),
        (["lr", "modle=swin_tiny"], "there is no key 'modle'"),
        (["lr", "runtime.strategy=multi_worker"], "runtime.strategy=multi_worker: vswin tune tries settings in one"),
        (["lr", "resume=true"], "resume=true: vswin tune starts from the weights"),
        (["batch", "--limit-gb", "0"], "--limit-gb 0: gigabytes above 0"),
        (["batch", "--max-batch", "0"], "--max-batch 0: at least 1"),
        (["batch", "runtime.strategy=multi_worker"], "runtime.strategy=multi_worker: vswin tune"),
        (
            ["batch", "augment=strong", "--max-batch", "1"],
            "--max-batch 1: the augmentation of this run takes batches of 2",
        ),
    ],
)
def test_what_cannot_be_tried_is_refused(tune, arguments, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        tune(*arguments)


def test_a_job_of_several_workers_is_refused(tune, monkeypatch):
    cluster = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(SystemExit, match="strategy=auto: vswin tune tries settings in one process"):
        tune("lr")


def test_a_folder_with_files_is_left_alone(tune, small_videos, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(SystemExit, match="exists and is not an empty folder"):
        tune("lr", *TINY, f"dataset.root={small_videos}", "--output", str(tmp_path))
    assert (tmp_path / "mine").read_text() == "kept"


def in_shell(folder, *arguments):
    """Runs `vswin ARGUMENT ...` in a separate process; returns its output."""
    command = [sys.executable, "-c", "from vswin.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def suggested_command(printed, introduction):
    """Finds the command that is printed below a line; returns its words after `vswin`."""
    lines = printed.splitlines()
    program, *words = shlex.split(lines[lines.index(introduction) + 1])
    assert (program, words[0]) == ("vswin", "train")
    return words


@pytest.mark.slow
def test_a_rate_that_learns_is_suggested(tmp_path):
    """With rates from 2e-4 to 2e-3, swin_micro reaches its accuracy on motion; others lose ten points and more."""
    printed = in_shell(tmp_path, "tune", "lr", f"dataset.root={tmp_path / 'motion'}", "--steps", "80")
    words = suggested_command(printed, "train with it:")
    assert 2e-4 <= float(words[-1].removeprefix("optimizer.learning_rate=")) <= 2e-3


@pytest.mark.slow
def test_the_largest_batch_trains_and_the_next_does_not_fit(small_videos, tmp_path):
    overrides = ["model=swin_micro", "dataset=folder", "clip=8x1_64px", "clip.num_frames=16", "clip.resize=224"]
    overrides += ["clip.crop=224", f"dataset.root={small_videos}", "epochs=1", "init_from=null"]
    printed = in_shell(tmp_path, "tune", "batch", *overrides, "--limit-gb", "1.3")
    assert "swin_micro with 400 classes (dataset.num_classes is not set) on made-up clips of 16 x 224 x 224" in printed
    line = next(line for line in printed.splitlines() if line.startswith("largest batch that fits: "))
    largest = int(line.split()[4])
    rows = [line.split() for line in printed.splitlines() if line.split()[1:2] and line.split()[0].isdigit()]
    fitting = [int(row[0]) for row in rows if row[-1] == "fits"]
    others = [int(row[0]) for row in rows if "limit" in row[-1]]
    assert max(fitting) == largest
    assert 0 < min(others) - largest <= max(1, largest // 16)
    words = suggested_command(printed, "to use it, with the learning rate in proportion:")
    assert f"batch_size={largest}" in words
    in_shell(tmp_path, *words, "output_dir=run")
    assert (tmp_path / "run" / "checkpoints" / "best.safetensors").is_file()
