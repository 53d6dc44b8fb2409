import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.runtime import set_precision
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.trainer import Trainer
from vswin.zoo import ModelSize

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 2, 3), drop_path_rate=0.2)


def make_trainer(batch_size: int, dropout: float = 0.0, size: ModelSize = SIZE, label_smoothing=0.0) -> Trainer:
    keras.utils.set_random_seed(0)
    model = vswin.build_model(size, num_classes=7, dropout=dropout)
    trainer = Trainer(model, batch_size, seed=3, label_smoothing=label_smoothing)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in model.trainable_variables}
    trainer.compile(optimizer=AdamW(1e-2, groups))
    trainer.optimizer.build(model.trainable_variables)
    return trainer


def make_batch(batch_size: int, seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "clips": tf.constant(rng.integers(0, 256, (batch_size, 4, 16, 24, 3), np.uint8)),
        "labels": tf.constant(rng.integers(0, 7, batch_size), tf.int32),
        "weights": tf.ones([batch_size]),
        "positions": tf.range(batch_size),
    }


def weights_of(trainer: Trainer) -> list[np.ndarray]:
    return [variable.numpy() for variable in trainer.model.trainable_variables]


def test_a_slot_of_weight_0_changes_nothing():
    """A batch of three and a batch of four whose last clip counts nothing take the same step."""
    size = ModelSize(8, (1, 2), (1, 2), window_size=(2, 2, 3), drop_path_rate=0.0)
    batch = make_batch(4)
    four, three = make_trainer(4, size=size), make_trainer(3, size=size)
    logs = four.train_step(batch | {"weights": tf.constant([1.0, 1.0, 1.0, 0.0])})
    expected = three.train_step({key: value[:3] for key, value in batch.items()})
    assert float(logs["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)
    for a, b in zip(weights_of(four), weights_of(three), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_a_batch_without_any_weight_takes_no_wrong_step():
    trainer = make_trainer(2)
    before = weights_of(trainer)
    trainer.train_step(make_batch(2) | {"weights": tf.zeros([2])})
    for a, b in zip(before, weights_of(trainer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_draws_follow_the_step_and_the_position():
    """Two trainers of one seed agree with dropout on; what a clip meets depends on its position."""
    batch = make_batch(4)
    first, second = make_trainer(4, dropout=0.5), make_trainer(4, dropout=0.5)
    losses = [[float(t.train_step(batch)["loss"]) for _ in range(2)] for t in (first, second)]
    assert losses[0] == losses[1]
    moved = make_trainer(4, dropout=0.5)
    assert float(moved.train_step(batch | {"positions": tf.constant([3, 2, 1, 0])})["loss"]) != losses[0][0]


def test_label_smoothing_by_hand():
    trainer = make_trainer(2, label_smoothing=0.1)
    logits = tf.constant([[2.0, 0, 0, 0, 0, 0, 0], [0.0, 1, 0, 0, 0, 0, 3]])
    labels = tf.constant([0, 6])
    log_p = tf.nn.log_softmax(logits).numpy()
    expected = [-(0.9 * log_p[i, label] + 0.1 / 7 * log_p[i].sum()) for i, label in enumerate([0, 6])]
    np.testing.assert_allclose(trainer._cross_entropy(labels, logits), expected, rtol=1e-5)


def test_an_undecodable_video_counts_as_wrong_in_validation():
    trainer = make_trainer(4)
    batch = make_batch(4)
    best = tf.argmax(trainer.model(batch["clips"]), axis=1, output_type=tf.int32)
    labels = tf.concat([best[:2], [-1, 0]], axis=0)  # [B]
    logs = trainer.test_step(batch | {"labels": labels, "weights": tf.constant([1.0, 1.0, 1.0, 0.0])})
    assert float(logs["top1"]) == pytest.approx(2 / 3)
    assert np.isfinite(float(logs["loss"]))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_takes_about_the_same_step(precision):
    batch = make_batch(4)
    expected = float(make_trainer(4).train_step(batch)["loss"])
    set_precision(precision)
    trainer = make_trainer(4)
    is_scaled = isinstance(trainer.optimizer, keras.mixed_precision.LossScaleOptimizer)
    assert is_scaled == (precision == "float16")
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(expected, rel=2e-2)
    assert all(variable.dtype == tf.float32 for variable in trainer.model.trainable_variables)
    assert all(variable.dtype in (tf.float32, tf.int64) for variable in trainer.optimizer.variables)
