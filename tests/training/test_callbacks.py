"""What a run prints, and how it ends with bad videos or numbers that are not finite."""

import csv
import io
import json
import math
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from rich.console import Console

import vswin
from vswin.data.bad_videos import BadVideos
from vswin.data.samples import Sample
from vswin.errors import InputError
from vswin.models.zoo import ModelSize
from vswin.runtime import start_log
from vswin.training import callbacks
from vswin.training.callbacks import BadVideoGuard, EpochReport, FiniteGuard
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.trainer import Trainer

LOGS = {"loss": 1.5, "top1": 0.25, "top5": 0.75, "val_loss": 1.25, "val_top1": 0.5, "val_top5": 1.0}


@pytest.fixture
def report() -> EpochReport:
    callback = EpochReport(steps_per_epoch=4, num_clips=30, epochs=12)
    callback.model = keras.Sequential([keras.layers.Dense(1)])
    callback.model.compile(optimizer=keras.optimizers.SGD(0.125))
    return callback


def run_epoch(report: EpochReport, epoch: int) -> dict[str, float]:
    start_log(None)
    report.on_epoch_begin(epoch)
    for step in range(4):
        report.on_train_batch_end(step, LOGS)
    report.on_test_begin()
    logs = dict(LOGS)
    report.on_epoch_end(epoch, logs)
    return logs


def test_an_epoch_ends_with_one_line_in_percent(report, capsys, monkeypatch):
    monkeypatch.setitem(LOGS, "val_ema_top1", 0.625)
    logs = run_epoch(report, 8)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "epoch  9/12  train loss 1.500  top-1  25.0 %  top-5  75.0 %   val loss 1.250  top-1  50.0 %  top-5 100.0 %   "
        "averaged top-1  62.5 %   "
    )
    assert line.endswith("left")
    assert "loss_scale" not in logs


def test_long_epochs_print_lines_without_a_terminal(report, capsys, monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_LINES", 0.0)
    run_epoch(report, 0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("epoch  1/12  step 2/4  loss 1.500  top-1 25.0 %")


def test_the_speed_of_an_epoch_that_went_on_in_its_middle_is_that_of_its_steps(report, monkeypatch):
    """The first two steps belong to an earlier session; here, two steps of 7.5 clips take 3 seconds."""
    clock = iter([10.0, 11.0, 13.0, 14.0])
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    report.on_epoch_begin(0)
    report.on_train_batch_end(2, LOGS)
    report.on_train_batch_end(3, LOGS)
    logs = dict(LOGS)
    report.on_epoch_end(0, logs)
    assert logs["clips_per_sec"] == 5.0


def test_the_rate_of_every_group_is_logged(report):
    """With layer decay, the topmost layer's rate is logged; `learning_rate` is the base rate, not the backbone's."""
    groups = {"a": ParameterGroup("head", 1.0, 0.0), "b": ParameterGroup("bias tables", 0.5, 0.0)}
    groups |= {"c": ParameterGroup("backbone", 0.05, 0.0), "d": ParameterGroup("backbone", 0.1, 0.0)}
    for optimizer in (AdamW(0.5, groups), keras.mixed_precision.LossScaleOptimizer(AdamW(0.5, groups))):
        report.model.compile(optimizer=optimizer)
        logs = run_epoch(report, 0)
        rates = {key: value for key, value in logs.items() if key.startswith("l") and key not in ("loss", "loss_scale")}
        assert rates == pytest.approx(
            {"learning_rate": 0.5, "lr_head": 0.5, "lr_bias_tables": 0.25, "lr_backbone": 0.05}
        )


def test_a_loss_scale_is_shown_and_logged(report, capsys):
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.125), initial_scale=256.0)
    report.model.compile(optimizer=scaled)
    assert run_epoch(report, 0)["loss_scale"] == 256.0
    assert "loss scale 256  " in capsys.readouterr().out


def test_a_terminal_gets_its_cursor_back_when_training_fails(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, force_interactive=True)
    monkeypatch.setattr(callbacks, "console", terminal)
    report = EpochReport(steps_per_epoch=4, num_clips=30, epochs=12)

    def train() -> None:
        with closing(report):
            report.on_epoch_begin(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert hidden in screen.getvalue()
    assert screen.getvalue().rindex(shown) > screen.getvalue().rindex(hidden)


def test_bad_videos_are_listed_when_they_grow_in_number(tmp_path, capsys):
    start_log(None)
    bad, path = BadVideos(), tmp_path / "bad_videos.csv"
    guard = BadVideoGuard(bad, path, num_videos=10, max_bad_share=0.2)
    guard.on_epoch_end(0, {})
    assert not path.exists()
    bad.add("a.avi", "truncated")
    guard.on_epoch_end(1, {})
    guard.on_epoch_end(2, {})
    assert capsys.readouterr().out.count("1 of 10 videos could not be decoded so far (1 truncated)") == 1
    assert [row["path"] for row in csv.DictReader(path.read_text().splitlines())] == ["a.avi"]


def test_too_many_bad_videos_stop_the_run_after_listing_them(tmp_path):
    bad, path = BadVideos(), tmp_path / "bad_videos.csv"
    for name in ("a", "b", "c"):
        bad.add(name, "empty")
    with pytest.raises(InputError, match=r"3 of 10 videos .* \(3 empty\).* dataset\.max_bad_share=0\.2"):
        BadVideoGuard(bad, path, num_videos=10, max_bad_share=0.2).on_epoch_end(0, {})
    assert len(path.read_text().splitlines()) == 4


SIZE = ModelSize(4, (1,), (1,), window_size=(2, 2, 3))
STEPS = 4


def make_trainer(learning_rate: float = 0.1) -> Trainer:
    model = vswin.build_model(SIZE, num_classes=3)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in model.trainable_variables}
    trainer = Trainer(model, global_batch_size=2, seed=0)
    trainer.compile(optimizer=AdamW(learning_rate, groups), run_eagerly=True)
    trainer.optimizer.build(model.trainable_variables)
    return trainer


def batches() -> tf.data.Dataset:
    clips = np.random.default_rng(0).integers(0, 256, (STEPS, 2, 4, 16, 24, 3), np.uint8)
    batch = {
        "clips": clips,
        "labels": np.tile(np.array([0, 2], np.int32), (STEPS, 1)),
        "weights": np.ones((STEPS, 2), np.float32),
        "positions": np.tile(np.arange(2, dtype=np.int32), (STEPS, 1)),
    }
    return tf.data.Dataset.from_tensor_slices(batch).repeat()


@pytest.fixture
def make_guard(tmp_path):
    """Makes a guard for a trainer whose batches hold `e<epoch>s<step>_0.mp4` and `..._1.mp4`."""

    def make(trainer: Trainer) -> FiniteGuard:
        def find_records(epoch: int, step: int) -> list[Sample]:
            return [Sample(f"e{epoch}s{step}_{i}.mp4", (i,)) for i in range(2)]

        guard = FiniteGuard(trainer.model, STEPS, find_records, tmp_path / "non_finite_step.json")
        guard.set_model(trainer)
        guard.on_epoch_begin(2)
        return guard

    return make


def read_report(tmp_path) -> dict:
    return json.loads((tmp_path / "non_finite_step.json").read_text())


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step_and_its_clips(make_guard, tmp_path, loss):
    guard = make_guard(make_trainer())
    guard.on_train_batch_end(0, {"loss": 1e30})
    with pytest.raises(InputError) as caught:
        guard.on_train_batch_end(1, {"loss": loss})
    assert read_report(tmp_path) == {
        "found": f"a loss of {loss}",
        "global_step": 10,
        "epoch": 3,
        "step_in_epoch": 2,
        "clips": [{"path": "e2s1_0.mp4", "labels": [0]}, {"path": "e2s1_1.mp4", "labels": [1]}],
    }
    message = str(caught.value)
    assert message.startswith(f"global step 10 (epoch 3, step 2 of 4) gave a loss of {loss}; nothing of it is saved")
    for words in ("e2s1_0.mp4\n", str(tmp_path), "optimizer.learning_rate", "optimizer.clip_norm=1"):
        assert words in message


@pytest.mark.parametrize("place", ["weight", "optimizer"])
def test_weights_that_the_last_step_has_spoilt_are_found_before_they_are_saved(make_guard, tmp_path, place):
    trainer = make_trainer()
    guard = make_guard(trainer)
    guard.on_epoch_end(2, {"loss": 1.0})
    variables = trainer.model.trainable_variables if place == "weight" else trainer.optimizer.variables
    spoilt = next(variable for variable in reversed(variables) if variable.dtype == tf.float32)
    spoilt.assign(tf.fill(spoilt.shape, math.inf))
    with pytest.raises(InputError, match=r"step 4 of 4.*weights that are not finite, e\.g\. "):
        guard.on_epoch_end(2, {"loss": 1.0})
    assert read_report(tmp_path)["step_in_epoch"] == 4


def test_gradients_that_overflow_under_loss_scaling_are_skipped_and_not_reported(make_guard, tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = vswin.build_model(SIZE, num_classes=3)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in model.trainable_variables}
    trainer = Trainer(model, global_batch_size=2, seed=0)
    optimizer = keras.mixed_precision.LossScaleOptimizer(AdamW(0.1, groups), initial_scale=2.0**40)
    trainer.compile(optimizer=optimizer, run_eagerly=True)
    optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    trainer.fit(batches(), epochs=1, steps_per_epoch=STEPS, callbacks=[make_guard(trainer)], verbose=0)
    assert float(optimizer.loss_scale) == 2.0**36
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert not (tmp_path / "non_finite_step.json").exists()
