import json
import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.training.callbacks import FiniteGuard
from vswin.training.groups import ParameterGroup
from vswin.training.optimizer import AdamW
from vswin.training.trainer import Trainer
from vswin.zoo import ModelSize

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
        def find_records(epoch: int, step: int) -> list[VideoRecord]:
            return [VideoRecord(f"e{epoch}s{step}_{i}.mp4", i) for i in range(2)]

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
        "clips": [{"path": "e2s1_0.mp4", "label": 0}, {"path": "e2s1_1.mp4", "label": 1}],
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


def test_a_learning_rate_that_is_far_too_high_ends_training(make_guard, tmp_path):
    trainer = make_trainer(learning_rate=1e38)
    with pytest.raises(InputError, match=r"step \d of 4\) gave (a loss of|weights that are not finite)"):
        trainer.fit(batches(), epochs=2, steps_per_epoch=STEPS, callbacks=[make_guard(trainer)], verbose=0)
    assert read_report(tmp_path)["global_step"] <= 3


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
