"""Harmless changes keep the metrics, and changes that would falsify them are noticed."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.config.load import save_config
from vswin.config.schema import EvaluateConfig
from vswin.errors import InputError
from vswin.evaluation.run import run_evaluation
from vswin.evaluation.views import average_views, count_view_hits, view_logits
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize, configured_size
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

SIZE = ModelSize(8, (2, 1), (1, 2), window_size=(2, 2, 3), init_std=0.3)
CLIPS = np.random.default_rng(0).integers(0, 256, (5, 4, 32, 44, 3), np.uint8)  # [B, T, H, W, 3]
# The clips in one matrix product decide the last bits of a float32.
CLOSE = {"rtol": 0, "atol": 2e-5}
TINY = ["model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,2]"]
CLIP = ["clip.num_frames=4", "clip.frame_stride=1", "clip.resize=32", "clip.crop=32", "clip.num_clips=2"]


@pytest.fixture(scope="module")
def model() -> VideoSwin:
    keras.utils.set_random_seed(3)
    made = vswin.build_model(SIZE, num_classes=7)
    kernel = made.head.trainable_variables[0]
    kernel.assign(30 * kernel)
    return made


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [1, 2, 3, 4, 0], [2, 0, 4, 1, 3]])
def test_permuting_the_batch_permutes_the_logits(model, order):
    logits = model(CLIPS, training=False).numpy()
    assert np.abs(logits - logits[order]).max() > 0.01
    np.testing.assert_allclose(model(CLIPS[order], training=False).numpy(), logits[order], **CLOSE)


def test_the_other_clips_of_a_batch_change_nothing(model):
    logits = model(CLIPS, training=False).numpy()
    alone = np.concatenate([model(clip[None], training=False).numpy() for clip in CLIPS])
    others = CLIPS.copy()
    others[1:] = 255 - others[1:]
    np.testing.assert_allclose(alone, logits, **CLOSE)
    np.testing.assert_allclose(model(others, training=False).numpy()[0], logits[0], **CLOSE)


@pytest.mark.parametrize("average", ["prob", "score"])
def test_views_are_averaged_in_any_order(model, average):
    views = np.stack([CLIPS, 255 - CLIPS])  # [B, V, T, H, W, 3]
    labels = np.array([0, 3])
    results = []
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        logits = view_logits(lambda clips: model(clips, training=False), tf.constant(views[:, order]), 4)
        results.append((average_views(logits, average).numpy(), count_view_hits(logits, labels).numpy()))
    np.testing.assert_allclose(results[1][0], results[0][0], **CLOSE)
    np.testing.assert_array_equal(results[1][1], results[0][1])
    assert np.abs(results[0][0][0] - results[0][0][1]).max() > 0.001


@pytest.fixture
def make_run(tmp_path, small_videos, compose_train, compose_evaluate) -> Callable[..., Path]:
    """Makes the folder of a run whose weights name the given classes."""

    def make(*class_names: str) -> Path:
        config = compose_train("dataset=folder", f"dataset.root={small_videos}", "init_from=null", *TINY, *CLIP)
        keras.utils.set_random_seed(5)
        trained = vswin.build_model(configured_size(config.model), num_classes=2)
        tensors = official_tensors(trained)
        tensors["cls_head.fc_cls.weight"] = tensors["cls_head.fc_cls.weight"] * 30
        folder = tmp_path / "run"
        save_checkpoint(folder / "checkpoints" / "best.safetensors", tensors, {"class_names": list(class_names)})
        save_config(config, folder / "config.yaml")
        return folder

    return make


def evaluation(run: Path, compose_evaluate: Callable[..., EvaluateConfig], *overrides: str) -> EvaluateConfig:
    sizes = ("clip.num_crops=3", f"results_dir={run / 'results'}")
    return compose_evaluate(f"run={run}", *sizes, *overrides)


def read_report(run: Path) -> tuple[dict[str, float], np.ndarray]:
    """Reads the metrics, and the probability of `bright` for each video."""
    summary = json.loads((run / "metrics.json").read_text())
    figures = {key: summary[key] for key in ("top1", "mean_class_accuracy", "clip_top1", "num_videos")}
    with open(run / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ranks = [1 if row["class_1"] == "bright" else 2 for row in rows]
    return figures, np.array([float(row[f"probability_{rank}"]) for row, rank in zip(rows, ranks, strict=True)])


@pytest.mark.slow
def test_figures_depend_on_neither_batch_size_nor_replicas_nor_threads(make_run, compose_evaluate):
    run = make_run("bright", "dark")
    reports = []
    held_out = "dataset.val_fraction=0.5"
    for overrides in (
        ("runtime.strategy=one_device", "batch_size=1"),
        ("runtime.strategy=one_device", "batch_size=5", "clip.views_per_step=1"),
        ("runtime.strategy=mirrored", "batch_size=4"),
    ):
        run_evaluation(evaluation(run, compose_evaluate, held_out, *overrides))
        reports.append(read_report(run))
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    command = [sys.executable, "evaluate.py", f"run={run}", held_out, "clip.num_crops=3", "results_dir=null"]
    root = Path(vswin.__file__).parents[1]
    subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True)
    reports.append(read_report(run))
    assert reports[0][0]["num_videos"] == len(reports[0][1]) == 6
    assert np.ptp(reports[0][1]) > 0.01
    for figures, probabilities in reports[1:]:
        assert figures == reports[0][0]
        np.testing.assert_allclose(probabilities, reports[0][1], rtol=0, atol=3e-6)


def test_a_shuffled_class_list_is_noticed(make_run, compose_evaluate):
    with pytest.raises(InputError, match=r"in another order \(2 of 2 differ\): class 0 is 'dark', here 'bright'"):
        run_evaluation(evaluation(make_run("dark", "bright"), compose_evaluate))


def test_a_list_that_counts_its_classes_otherwise_is_noticed(make_run, small_videos, compose_evaluate):
    """The classes of a list of indices have no names, but the folders of its videos do."""
    run = make_run("bright", "dark")
    lists = small_videos / "val.csv"
    lists.write_text("path,label\nbright/0.avi,dark\ndark/0.avi,bright\nbright/1.avi,bright\n")
    overrides = (f"dataset.train_list={lists}", f"dataset.val_list={lists}")
    assert run_evaluation(evaluation(run, compose_evaluate, *overrides)).num_videos == 3
    lists.write_text("path,label\nbright/0.avi,a dark one\ndark/0.avi,bright\n")
    with pytest.raises(InputError, match="trained for other classes, or in another order"):
        run_evaluation(evaluation(run, compose_evaluate, *overrides))
