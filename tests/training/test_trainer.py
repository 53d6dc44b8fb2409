from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.models.zoo import ModelSize
from vswin.runtime import set_precision
from vswin.training.mixing import NO_MIXING, Mixing
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.trainer import Trainer

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 2, 3), drop_path_rate=0.2)


def make_trainer(
    batch_size: int,
    dropout: float = 0.0,
    size: ModelSize = SIZE,
    label_smoothing: float = 0.0,
    micro_batches: int = 1,
    remat: bool = False,
    erasing: float = 0.0,
    mixing: Mixing = NO_MIXING,
) -> Trainer:
    keras.utils.set_random_seed(0)
    model = vswin.build_model(size, num_classes=7, dropout=dropout, remat=remat)
    trainer = Trainer(model, batch_size, 3, label_smoothing, micro_batches, erasing, mixing)
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
    """The slot's content changes no bit of a step, and the gradients equal those of a batch without the slot.

    Gradients are compared because AdamW enlarges the rounding of tiny gradients to whole steps.
    """
    size = ModelSize(8, (1, 2), (1, 2), window_size=(2, 2, 3), drop_path_rate=0.0)
    batch = make_batch(4) | {"weights": tf.constant([1.0, 1.0, 1.0, 0.0])}
    other = batch | {"clips": tf.concat([batch["clips"][:3], 255 - batch["clips"][3:]], axis=0)}  # [B, T, H, W, 3]
    trainer, twin = make_trainer(4, size=size), make_trainer(4, size=size)
    three, three_trainer = {key: value[:3] for key, value in batch.items()}, make_trainer(3, size=size)
    pairs = zip(gradients_of(trainer, batch), gradients_of(three_trainer, three), strict=True)
    for gradient, expected in pairs:
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    logs, twin_logs = trainer.train_step(batch), twin.train_step(other)
    assert float(logs["loss"]) == float(twin_logs["loss"])
    assert float(logs["loss"]) == pytest.approx(float(three_trainer.train_step(three)["loss"]), rel=1e-6)
    for a, b in zip(weights_of(trainer), weights_of(twin), strict=True):
        np.testing.assert_array_equal(a, b)


def test_draws_follow_the_step_and_the_position():
    """Two trainers with the same seed agree with dropout on; the draws of a clip depend on its position."""
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
    losses = tf.nn.softmax_cross_entropy_with_logits(trainer._targets(labels), logits)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


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


@contextmanager
def without_fusion():
    """Keeps TensorFlow from fusing products with the operations after them."""
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": True})


def gradients_of(trainer: Trainer, batch: dict[str, tf.Tensor]) -> list[np.ndarray]:
    """Computes the gradients of a first step, compiled as in `fit`."""
    draws = trainer.make_draws(batch, 0)
    total = tf.reduce_sum(batch["weights"])
    compute = trainer._gradients if trainer.micro_batches == 1 else trainer._summed_gradients
    return [gradient.numpy() for gradient in tf.function(compute)(batch, draws, total)]


def assert_equal_gradients(given: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert max(np.abs(gradient).max() for gradient in expected) > 0.1
    for a, b in zip(given, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, np.abs(b).max()))


def test_micro_batches_give_the_gradients_of_the_whole_batch():
    """Even with dropout and drop path, since draws follow the position in the global batch."""
    batch = make_batch(6) | {"weights": tf.constant([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])}
    whole = gradients_of(make_trainer(6, dropout=0.5), batch)
    assert_equal_gradients(gradients_of(make_trainer(6, dropout=0.5, micro_batches=6), batch), whole)


def test_micro_batches_take_the_step_and_count_the_clips_of_the_whole_batch():
    batch = make_batch(6) | {"weights": tf.constant([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])}
    whole, parts = make_trainer(6), make_trainer(6, micro_batches=3)
    logs = [trainer.train_step(batch) for trainer in (whole, parts)]
    for key in ("loss", "top1", "top5"):
        assert float(logs[1][key]) == pytest.approx(float(logs[0][key]), rel=1e-6)
    assert float(parts.saved_metrics[1].count) == 5
    assert int(parts.optimizer.iterations) == 1
    for a, b in zip(weights_of(parts), weights_of(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_rematerialised_gradients_are_the_same_with_dropout_and_drop_path_on():
    batch = make_batch(4)
    plain = gradients_of(make_trainer(4, dropout=0.5), batch)
    assert_equal_gradients(gradients_of(make_trainer(4, dropout=0.5, remat=True), batch), plain)
    both = make_trainer(4, dropout=0.5, remat=True, micro_batches=2)
    assert_equal_gradients(gradients_of(both, batch), plain)


@pytest.mark.slow
def test_rematerialised_gradients_are_the_same_in_bfloat16():
    """Bit by bit without fusion: on AVX-512 a fused operation rounds at its end, and fusion depends on the graph."""
    set_precision("bfloat16")
    batch = make_batch(4)
    plain, rematerialised = (make_trainer(4, dropout=0.5, remat=remat) for remat in (False, True))
    expected = gradients_of(plain, batch)
    with without_fusion():
        exact = gradients_of(plain, batch)
        for a, b in zip(gradients_of(rematerialised, batch), exact, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(gradients_of(rematerialised, batch), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2**-5 * np.abs(b).max())


def mixed_batch() -> dict[str, tf.Tensor]:
    """Makes six clips; the fourth has weight 0, so the third has no partner, either."""
    return make_batch(6) | {"weights": tf.constant([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])}


MIXED = {"dropout": 0.5, "label_smoothing": 0.1, "erasing": 0.5, "mixing": Mixing(mixup=0.8, cutmix=1.0)}


def test_erasing_and_mixing_are_the_same_in_micro_batches():
    batch = mixed_batch()
    whole, parts = make_trainer(6, **MIXED), make_trainer(6, micro_batches=3, **MIXED)
    draws, total = whole.make_draws(batch, 0), tf.constant(5.0)
    assert_equal_gradients(parts._summed_gradients(batch, draws, total), whole._gradients(batch, draws, total))
    assert float(parts.saved_metrics[0].result()) == pytest.approx(float(whole.saved_metrics[0].result()), rel=1e-6)
    assert float(parts.saved_metrics[1].result()) == float(whole.saved_metrics[1].result())


def test_the_model_meets_erased_then_mixed_clips_and_the_loss_mixed_smoothed_targets():
    mixing = Mixing(mixup=0.8)
    trainer = make_trainer(6, label_smoothing=0.1, erasing=1.0, mixing=mixing)
    batch = mixed_batch()
    draws = trainer.make_draws(batch, 0)
    clips, targets, labels = trainer._change(batch, draws)
    x = trainer.model.normalize(batch["clips"]).numpy()
    for clip, (top, left, height, width) in zip(x, draws.erased.numpy(), strict=True):
        clip[:, top : top + height, left : left + width] = 0
    smooth = 0.9 * np.eye(7)[batch["labels"]] + 0.1 / 7
    share = draws.mixing.share.numpy()
    assert (share == 1).tolist() == [False, False, True, True, False, False]
    for i in range(6):
        a, j = share[i], i ^ 1
        np.testing.assert_allclose(clips[i], a * x[i] + (1 - a) * x[j], atol=1e-5)
        np.testing.assert_allclose(targets[i], a * smooth[i] + (1 - a) * smooth[j], atol=1e-6)
        assert int(labels[i]) == int(batch["labels"][i if a >= 0.5 else j])


def test_accuracy_counts_the_label_with_the_larger_share():
    """The model has only a bias and always predicts class 0; each pair has a clip of class 0 and one of class 1."""
    trainer = make_trainer(6, mixing=Mixing(mixup=0.8))
    head = trainer.model.head.trainable_variables
    for variable in head:
        variable.assign(tf.zeros_like(variable))
    next(variable for variable in head if variable.shape.rank == 1).assign(tf.one_hot(0, 7))
    batch = make_batch(6) | {"labels": tf.constant([0, 1] * 3)}
    logs = trainer.train_step(batch)
    share = trainer.make_draws(batch, 0).mixing.share.numpy()
    counted = np.where(share >= 0.5, [0, 1] * 3, [1, 0] * 3)
    assert float(logs["top1"]) == pytest.approx(np.mean(counted == 0))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_erases_and_mixes_in_its_type_and_keeps_targets_float32(precision):
    batch, trainer = mixed_batch(), make_trainer(6, **MIXED)
    draws = trainer.make_draws(batch, 0)
    expected, expected_targets, _ = trainer._change(batch, draws)
    set_precision(precision)
    clips, targets, _ = make_trainer(6, **MIXED)._change(batch, draws)
    assert clips.dtype == tf.as_dtype(precision)
    np.testing.assert_allclose(tf.cast(clips, tf.float32), expected, atol=0.05)
    assert targets.numpy().tobytes() == expected_targets.numpy().tobytes()


def test_rematerialisation_really_computes_blocks_again():
    batch = make_batch(2)

    def count_softmaxes(remat: bool) -> int:
        trainer = make_trainer(2, remat=remat)
        draws = trainer.make_draws(batch, 0)
        graph = tf.function(trainer._gradients).get_concrete_function(batch, draws, tf.constant(2.0)).graph
        return sum(operation.type == "Softmax" for operation in graph.get_operations())

    assert count_softmaxes(remat=True) == 2 * count_softmaxes(remat=False)


def test_softmax_normalisation_and_loss_are_float32_in_low_precision():
    set_precision("float16")
    trainer = make_trainer(2)
    batch = make_batch(2)
    draws = trainer.make_draws(batch, 0)
    graph = tf.function(trainer._gradients).get_concrete_function(batch, draws, tf.constant(2.0)).graph
    types = {
        operation.type: {tensor.dtype for tensor in operation.inputs}
        for operation in graph.get_operations()
        if operation.type in ("Softmax", "Rsqrt", "SoftmaxCrossEntropyWithLogits")
    }
    assert types["Softmax"] == {tf.float32}
    assert types["SoftmaxCrossEntropyWithLogits"] == {tf.float32}
    # The standard deviations of layer normalisation.
    assert types["Rsqrt"] == {tf.float32}
