"""Evaluations use the right videos, compute the right metrics, and write all files or none."""

import csv
import itertools
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import vswin
from vswin.cli import main
from vswin.config.compose import compose_config
from vswin.config.load import save_config
from vswin.config.schema import SplitsConfig
from vswin.data.class_names import read_class_names
from vswin.errors import InputError
from vswin.evaluation.run import run_evaluation
from vswin.models.zoo import configured_size
from vswin.runs.pairs import Pair, describe_pair, difference_interval, mcnemar_p
from vswin.tools.splits import run_splits
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

CLASSES = ("hug", "kick")
NETWORK = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,2]",
    "clip=8x1_64px",
    "clip.num_frames=4",
    "clip.crop=32",
)
ALSO = "these videos also chose the epoch; accuracy on a separate test set would be lower"
NEITHER = "these videos neither trained the model nor chose the epoch"
TRAINED = "the model was trained on some of these videos; accuracy on new videos would be lower"


def write_videos(folder: Path, count: int, level: int, size: tuple[int, int] = (48, 40)) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(level)
    for number in range(count):
        writer = cv2.VideoWriter(str(folder / f"{number}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12, size)
        for _ in range(6):
            writer.write(noise.integers(level, level + 40, (size[1], size[0], 3)).astype(np.uint8))
        writer.release()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Makes `videos` (six of each class), a `run` trained on them, and `other`, other videos of the same names."""
    place = tmp_path_factory.mktemp("place")
    for number, name in enumerate(CLASSES):
        write_videos(place / "videos" / name, 6, 20 + 150 * number)
        write_videos(place / "other" / name, 6, 21 + 150 * number, (56, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        data = ("dataset=folder", "dataset.root=videos", "clip.resize=32", "batch_size=4", "epochs=1", "augment=none")
        call(patch, "train", *NETWORK, *data, "output_dir=run", "logger.tensorboard=false")
    return place


@pytest.fixture
def evaluate(place, monkeypatch, capsys):
    """Returns a function that evaluates the run with overrides in the folder `place`: its metrics and its output."""
    monkeypatch.chdir(place)
    (place / "report").exists() and shutil.rmtree(place / "report")
    quick = ("clip.num_clips=1", "clip.num_crops=1", "results_dir=null", "output_dir=report")

    def run(*changes: str) -> tuple[dict, str]:
        capsys.readouterr()
        chosen = changes if any(change.startswith("init_from") for change in changes) else ("run=run", *changes)
        call(monkeypatch, "evaluate", *quick, *chosen)
        return json.loads((place / "report" / "metrics.json").read_text()), " ".join(capsys.readouterr().out.split())

    return run


def test_an_evaluation_is_of_all_that_was_given_and_says_what_chose_the_epoch(place, evaluate):
    shutil.copytree(place / "videos", place / "copy", dirs_exist_ok=True)
    for change, num_videos, trained_on, chose_epoch, sentence in (
        ((), 2, False, True, ALSO),  # the videos that were held out in training and chose the epoch
        (("dataset.root=other",), 12, False, False, NEITHER),  # other videos with the same names
        (("dataset.root=copy",), 12, True, True, TRAINED),  # the run's own videos in another folder
    ):
        metrics, output = evaluate(*change)
        seen = metrics["protocol"]["dataset"]
        assert (metrics["num_videos"], seen["trained_on"], seen["chose_epoch"]) == (num_videos, trained_on, chose_epoch)
        assert sentence in output
        assert sentence.capitalize() in (place / "report" / "report.html").read_text()


@pytest.mark.slow
def test_a_list_needs_no_other_list_and_no_class_folders(place, evaluate):
    (place / "test.csv").write_text("".join(f"other/hug/{number}.avi,hug\n" for number in range(3)) + "o.avi,kick\n")
    shutil.copy(place / "other" / "kick" / "0.avi", place / "o.avi")
    for key in ("val_list", "test_list"):
        metrics, _ = evaluate(f"dataset.{key}=test.csv", "dataset.root=.")
        assert metrics["num_videos"] == 4
        assert metrics["protocol"]["dataset"]["chose_epoch"] is False


def test_the_test_folder_is_the_test_set(place, evaluate, monkeypatch, capsys):
    root = place / "parts"
    for part, source in (("train", "videos"), ("val", "videos"), ("test", "other")):
        shutil.copytree(place / source, root / part)
    # One of the test videos is also one of the training videos.
    shutil.copy(root / "train" / "hug" / "0.avi", root / "test" / "hug" / "9.avi")
    metrics, output = evaluate("init_from=run", "dataset=folder", *NETWORK[:4], *NETWORK[5:], "dataset.root=parts")
    assert metrics["num_videos"] == 13
    assert "folder, 13 test videos, 2 classes" in output
    call(monkeypatch, "data", "check", "dataset=folder", "dataset.root=parts", "clean_lists=clean")
    checked = " ".join(capsys.readouterr().out.split())
    assert "12 training videos, 12 validation videos, 13 test videos" in checked
    assert "in the test set, too: 1" in checked
    assert "dataset.test_list=clean/test.csv" in checked
    assert len((place / "clean" / "test.csv").read_text().splitlines()) == 14


@pytest.mark.slow
def test_classes_without_videos_do_not_lower_the_mean(place, monkeypatch, tmp_path):
    """The weights predict a hug for every video; `run` and `wave` have no videos."""
    monkeypatch.chdir(place)
    names = ["hug", "kick", "run", "wave"]
    model = vswin.build_model("swin_micro", num_classes=4)
    kernel, bias = model.head.linear.weights
    kernel.assign(np.zeros(kernel.shape))
    bias.assign([1, 0, 0, 0])
    save_checkpoint(tmp_path / "model.h5", official_tensors(model), {"class_names": names})
    (tmp_path / "test.txt").write_text(
        "".join(f"other/{name}/{number}.avi {name}\n" for name in CLASSES for number in (0, 1))
    )
    clip = ("clip=8x1_64px", "clip.num_frames=4", "clip.crop=32", "clip.num_clips=1", "clip.num_crops=1")
    data = ("dataset=folder", "dataset.root=.", f"dataset.test_list={tmp_path}/test.txt")
    output = tmp_path / "report"
    call(monkeypatch, "evaluate", f"init_from={tmp_path}/model.h5", *clip, *data, f"output_dir={output}")
    assert json.loads((output / "metrics.json").read_text())["mean_class_accuracy"] == (1 + 0) / 2
    with (output / "per_class.csv").open() as file:
        assert [row["top1"] for row in csv.DictReader(file)] == ["1.0000", "0.0000", "", ""]


def test_a_p_value_and_its_interval_never_contradict_each_other():
    tables = [(first, count - first) for count in range(30) for first in range(count + 1)]
    tables += [
        (count // 2 - shift, count // 2) for count in (100, 900, 4_000) for shift in range(0, count // 8, count // 40)
    ]
    for (first, second), is_many, num_tests in itertools.product(tables, (False, True), (1, 4)):
        num_videos = 3 * (first + second) + 7 if is_many else max(first + second, 1)
        p_value = min(1.0, num_tests * mcnemar_p(first, second))
        low, high = difference_interval(first, second, num_videos, 1 - 0.05 / num_tests)
        assert -1 <= low <= (second - first) / num_videos <= high <= 1
        assert (p_value < 0.05) == (low > 0 or high < 0), (first, second, num_videos, num_tests)
        counts = {"num_videos": num_videos, "num_only_first": first, "num_only_second": second}
        sentence = describe_pair(Pair("a", "b", **counts, interval=(low, high), corrected_p=p_value))
        assert ("no difference" in sentence) == (p_value >= 0.05)
        if p_value < 0.05:
            ends = re.search(r"interval (\S+) to (\S+),", sentence)
            assert 0 < float(ends[1]) <= float(ends[2])


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_evaluation_whole_and_nothing_of_the_new_one(place, evaluate):
    evaluate()
    report = place / "report"
    before = {path.name: path.read_bytes() for path in report.iterdir() if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The predictions still fit on the disk; the plot of the confusion matrix does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, hard))
    try:
        with pytest.raises(SystemExit, match="File too large"):
            evaluate("dataset.root=other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in report.iterdir() if path.is_file()} == before
    assert [path.name for path in report.iterdir() if path.is_dir()] == []
    # The list of bad videos that another worker wrote moves with its evaluation.
    (report / "evaluation_bad_videos.worker1.csv").write_text("path,cause,times\n")
    evaluate("dataset.root=other")
    (earlier,) = (report / "earlier_evaluations").iterdir()
    assert {path.name for path in earlier.iterdir()} >= {"evaluation_bad_videos.worker1.csv", "metrics.json"}
    assert not (report / "evaluation_bad_videos.worker1.csv").exists()


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_in_a_sentence(place):
    code = "from vswin.cli import main; main()"
    words = ["evaluate", "run=run", "output_dir=ended", "clip.num_clips=1000", "clip.views_per_step=1"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # The evaluation has begun to compute.
    assert any(line.startswith("devices:") for line in process.stdout)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "ended by SIGTERM; nothing was written" in errors
    assert list((place / "ended").iterdir()) == []


def test_the_first_run_stays_the_one_that_is_compared_with(place, evaluate, monkeypatch, capsys):
    evaluate()
    shutil.copytree(place / "report", place / "second")
    (place / "new").mkdir()
    shutil.copy(place / "run" / "config.yaml", place / "new")
    call(monkeypatch, "compare", "new", "report", "second")
    output = " ".join(capsys.readouterr().out.split())
    assert "b and a cannot be compared: a has no predictions.csv; evaluate a" in output
    assert "c and b" not in output


@pytest.fixture
def split_runs(tmp_path, monkeypatch, compose_train, compose_evaluate):
    """Makes a run on each split of a small UCF101; returns the arguments of `vswin splits` and its evaluations."""
    monkeypatch.chdir(tmp_path)
    names = read_class_names("ucf101")
    files = [[f"{name}/v_{name}_g0{index}_c01.avi" for index in range(3)] for name in names[:2]]
    for label in (0, 1):
        write_videos(tmp_path / "videos" / names[label], 3, 20 + 150 * label)
        for index in range(3):
            (tmp_path / "videos" / names[label] / f"{index}.avi").rename(tmp_path / "videos" / files[label][index])
    (tmp_path / "splits").mkdir()
    words = ("dataset=ucf101", "dataset.root=videos", *NETWORK, "clip.resize=32")
    for split in (1, 2, 3):
        tested, trained = ([paths[index] for paths in files] for index in (split - 1, split % 3))
        (tmp_path / "splits" / f"testlist0{split}.txt").write_text("\n".join(tested))
        (tmp_path / "splits" / f"trainlist0{split}.txt").write_text(f"{trained[0]} 1\n{trained[1]} 2")
        config = compose_train(*words, f"dataset.split={split}")
        run = tmp_path / "out" / f"split_{split}_seed_0"
        model = vswin.build_model(configured_size(config.model), len(names))
        save_checkpoint(run / "checkpoints" / "best.safetensors", official_tensors(model), {"class_names": list(names)})
        save_config(config, run / "config.yaml")
    evaluated, run = [], subprocess.run

    def run_here(command, **options):
        """Skips training, and evaluates a run in this process once; later calls reuse the result."""
        script = Path(command[1]).name
        if script == "evaluate.py":
            folder = Path(command[2].partition("=")[2])
            evaluated.append(folder.name[6])
            if not (folder / "right.json").exists():
                run_evaluation(compose_evaluate(*command[2:]))
                shutil.copy(folder / "metrics.json", folder / "right.json")
            shutil.copy(folder / "right.json", folder / "metrics.json")
        is_ours = script in ("train.py", "evaluate.py")
        return subprocess.CompletedProcess(command, 0) if is_ours else run(command, **options)

    monkeypatch.setattr(subprocess, "run", run_here)
    return words, evaluated


@pytest.mark.slow
def test_splits_take_only_what_is_of_the_same_weights_videos_and_protocol(split_runs, tmp_path):
    words, evaluated = split_runs

    def run(*more: str) -> list[str]:
        evaluated.clear()
        given = [*words, "output_dir=out", *more]
        run_splits(compose_config("splits", given, SplitsConfig), given)
        return evaluated

    assert run() == ["1", "2", "3"]
    assert run() == []
    for split in (1, 2, 3):
        shutil.copytree(tmp_path / "out" / f"split_{split}_seed_0", tmp_path / "out" / f"split_{split}_seed_1")
    assert run("seeds=2") == []
    report = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert list(report["runs"]) == [f"split {split}, seed {seed}" for split in (1, 2, 3) for seed in (0, 1)]
    assert set(report) == {"runs", "mean", "standard_deviation"}
    metrics = [tmp_path / "out" / f"split_{split}_seed_0" / "metrics.json" for split in (1, 2, 3)]
    # All are newer than the weights, but have another protocol, other weights or another precision.
    changes = (("num_clips", 99), ("weights", {"sha256": "0" * 64}), ("precision", "float16"))
    for path, (key, value) in zip(metrics, changes, strict=True):
        values = json.loads(path.read_text())
        values["protocol"][key] = value
        path.write_text(json.dumps(values))
    assert run() == ["1", "2", "3"]
    values = json.loads(metrics[0].read_text())
    values["protocol"]["dataset"]["split"] = 2
    metrics[0].write_text(json.dumps(values))
    metrics[1].write_text("{}")
    assert run() == ["1", "2"]
    (tmp_path / "out" / "split_1_seed_0" / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors does not exist; give a checkpoint file"):
        run()
