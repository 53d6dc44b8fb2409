from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.cluster import Workers
from vswin.errors import InputError
from vswin.models.zoo import ModelSize
from vswin.runtime import make_strategy, set_precision, start_log
from vswin.training.checkpoints import Checkpoints
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.trainer import Trainer, warmed_decay
from vswin.weights.checkpoint import open_checkpoint, read_metadata
from vswin.weights.names import named_weights

SIZE = ModelSize(8, (1, 1), (1, 2), window_size=(2, 2, 3), drop_path_rate=0.2)
HEAD_BIAS = "cls_head.fc_cls.bias"
BATCH_SIZE = 4


def make_trainer(ema_decay: float | None = 0.5, **options: object) -> Trainer:
    keras.utils.set_random_seed(0)
    model = vswin.build_model(SIZE, num_classes=3, dropout=0.3, remat=options.pop("remat", False))
    trainer = Trainer(model, BATCH_SIZE, 3, ema_decay=ema_decay, **options)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in trainer.trained_variables}
    trainer.compile(optimizer=AdamW(1e-2, groups))
    trainer.optimizer.build(trainer.trained_variables)
    return trainer


def make_batch(seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "clips": tf.constant(rng.integers(0, 256, (BATCH_SIZE, 4, 16, 24, 3), np.uint8)),
        "labels": tf.constant(rng.integers(0, 3, BATCH_SIZE), tf.int32),
        "weights": tf.ones([BATCH_SIZE]),
        "positions": tf.range(BATCH_SIZE),
    }


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in named_weights(model).items()}


def take_steps(trainer: Trainer, *seeds: int) -> list[dict[str, np.ndarray]]:
    """Takes a step for each seed; returns the weights after each step."""
    step, after = tf.function(trainer.train_step), []
    for seed in seeds:
        step(make_batch(seed))
        after.append(values(trainer.model))
    return after


def average_by_hand(start: dict[str, np.ndarray], steps: list[dict[str, np.ndarray]], decay: float) -> dict:
    average = dict(start)
    for t, weights in enumerate(steps):
        kept = min(decay, (1 + t) / (10 + t))
        average = {name: kept * average[name] + (1 - kept) * weights[name] for name in average}
    return average


def assert_equal(given: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    assert given.keys() == expected.keys()
    for name, value in given.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)


def test_the_decay_warms_up_to_its_value():
    assert [float(warmed_decay(0.999, step)) for step in (0, 8, 90)] == pytest.approx([0.1, 0.5, 0.91])
    assert float(warmed_decay(0.999, 100_000)) == pytest.approx(0.999)
    assert float(warmed_decay(0.3, 8)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("precision", "options"),
    [("float32", {}), pytest.param("bfloat16", {"micro_batches": 2, "remat": True}, marks=pytest.mark.slow)],
)
def test_the_average_by_hand(precision, options):
    """With a decay of 0.2 the warm-up ends in the third step: 0.1, 0.18, 0.2."""
    set_precision(precision)
    trainer = make_trainer(0.2, **options)
    start = values(trainer.model)
    assert_equal(values(trainer.average.model), start)
    steps = take_steps(trainer, 0, 1, 2, 3)
    average = values(trainer.average.model)
    assert {value.dtype for value in average.values()} == {np.dtype("float32")}
    assert_equal(average, average_by_hand(start, steps, 0.2), 1e-6)
    assert np.abs(average[HEAD_BIAS] - steps[-1][HEAD_BIAS]).max() > 1e-4


def test_an_average_changes_nothing_else():
    with_average, without = make_trainer(0.9), make_trainer(None)
    assert without.average is None
    assert_equal(take_steps(with_average, 0, 1)[-1], take_steps(without, 0, 1)[-1])
    assert [metric.name for metric in without.saved_metrics] == ["loss", "top1", "top5"]


@pytest.mark.slow
def test_a_step_that_loss_scaling_skips_does_not_move_the_average():
    set_precision("float16")
    trainer = make_trainer(0.2)
    take_steps(trainer, 0)
    before, weights = values(trainer.average.model), values(trainer.model)
    trainer.optimizer._loss_scale._current_loss_scale.assign(2.0**127)
    take_steps(trainer, 1)
    assert float(trainer.optimizer.loss_scale) == 2.0**126
    assert_equal(values(trainer.model), weights)
    assert_equal(values(trainer.average.model), before)
    trainer.optimizer._loss_scale._current_loss_scale.assign(8.0)
    steps = take_steps(trainer, 2)
    kept = np.float32(0.2)  # Keras counts the skipped step: (1 + 2) / (10 + 2) would be larger
    assert_equal(values(trainer.average.model), {k: kept * before[k] + (1 - kept) * steps[0][k] for k in before}, 1e-6)


@pytest.mark.parametrize("precision", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_two_devices_hold_the_same_average(precision):
    set_precision(precision)
    strategy = make_strategy("mirrored")
    with strategy.scope():
        trainer = make_trainer(0.2)
    start = values(trainer.model)
    whole = make_batch(1)

    @tf.function
    def step() -> None:
        def take(context: tf.distribute.ReplicaContext) -> dict[str, tf.Tensor]:
            first = 2 * context.replica_id_in_sync_group
            return trainer.train_step({key: value[first : first + 2] for key, value in whole.items()})

        strategy.run(lambda: take(tf.distribute.get_replica_context()))

    steps = []
    for _ in range(3):
        step()
        steps.append(values(trainer.model))
    expected = average_by_hand(start, steps, 0.2)
    for name, variable in named_weights(trainer.average.model).items():
        first, second = (value.numpy() for value in strategy.experimental_local_results(variable))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, expected[name], atol=1e-6)


def test_validation_measures_both():
    """The weights always predict class 0, their average always class 1; one clip has class 0, three have class 1."""
    trainer = make_trainer(0.5)
    for model, label in ((trainer.model, 0), (trainer.average.model, 1)):
        weights = named_weights(model)
        weights["cls_head.fc_cls.weight"].assign(tf.zeros([16, 3]))
        weights[HEAD_BIAS].assign(3 * tf.one_hot(label, 3))
    logs = trainer.test_step(make_batch() | {"labels": tf.constant([0, 1, 1, 1])})
    figures = {"top1": 0.25, "f1_macro": 0.4 / 2, "balanced_accuracy": 0.5}
    figures |= {"ema_top1": 0.75, "ema_f1_macro": 6 / 7 / 2, "ema_balanced_accuracy": 0.5}
    measured = {name: float(value) for name, value in logs.items() if "loss" not in name}
    assert measured == pytest.approx(figures)
    right, wrong = np.log(1 + 2 * np.exp(-3)), np.log(1 + 2 * np.exp(-3)) + 3
    assert float(logs["loss"]) == pytest.approx((right + 3 * wrong) / 4, rel=1e-5)
    assert float(logs["ema_loss"]) == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert set(trainer.train_step(make_batch())) == {"loss", "top1"}


def make_checkpoints(folder: Path, trainer: Trainer, patience: int | None = None) -> Checkpoints:
    checkpoints = Checkpoints(folder, trainer, 10, {}, Workers(tf.distribute.get_strategy()), patience)
    checkpoints.set_params({"epochs": 9})
    checkpoints.set_model(trainer)
    return checkpoints


def train_epochs(checkpoints: Checkpoints, *tops: tuple[float, float], first: int = 0) -> None:
    """Ends epochs; the head bias tells the epoch: [epoch, 0, 0] in the weights, [0, epoch, 0] in the average."""
    for epoch, (top1, ema_top1) in enumerate(tops, start=first):
        named_weights(checkpoints.trainer.model)[HEAD_BIAS].assign([epoch + 1, 0, 0])
        named_weights(checkpoints.trainer.average.model)[HEAD_BIAS].assign([0, epoch + 1, 0])
        checkpoints.on_epoch_end(epoch, {"val_top1": top1, "val_ema_top1": ema_top1})
    checkpoints.finish_saving()


def test_the_best_of_both_are_kept_and_a_run_stands_for_the_better(tmp_path, capsys):
    start_log(None)
    checkpoints = make_checkpoints(tmp_path, make_trainer())
    train_epochs(checkpoints, (0.2, 0.1), (0.6, 0.3))
    assert vswin.read_checkpoint(tmp_path)[HEAD_BIAS].tolist() == [2, 0, 0]
    train_epochs(checkpoints, (0.4, 0.6), first=2)
    # On a tie the averaged weights are chosen.
    assert vswin.read_checkpoint(tmp_path)[HEAD_BIAS].tolist() == [0, 3, 0]
    assert open_checkpoint(tmp_path).path == tmp_path / "checkpoints" / "best_ema.safetensors"
    assert read_metadata(tmp_path / "checkpoints" / "best.safetensors")["epoch"] == 2
    assert (read_metadata(tmp_path)["epoch"], read_metadata(tmp_path)["val_top1"]) == (3, 0.6)
    checkpoints.on_train_end()
    assert capsys.readouterr().out.splitlines() == [
        f"best epoch 2: val top-1 60.0 %, weights in {tmp_path}/checkpoints/best.safetensors",
        f"best epoch 3: val top-1 60.0 %, weights (averaged) in {tmp_path}/checkpoints/best_ema.safetensors",
    ]


def test_what_was_best_comes_back_and_patience_counts_both(tmp_path):
    train_epochs(make_checkpoints(tmp_path, make_trainer()), (0.5, 0.3), (0.4, 0.6), (0.4, 0.5))
    resumed = make_checkpoints(tmp_path, make_trainer(), patience=2)
    assert resumed.restore() == 3
    assert not resumed.is_stalled(resumed.epochs_saved)
    train_epochs(resumed, (0.5, 0.6), first=3)
    assert resumed.trainer.stop_training
    assert read_metadata(tmp_path)["epoch"] == 2


def test_an_average_that_is_gone_or_was_never_saved_is_an_error(tmp_path):
    train_epochs(make_checkpoints(tmp_path, make_trainer()), (0.5, 0.3))
    (tmp_path / "checkpoints" / "best_ema.safetensors").unlink()
    with pytest.raises(InputError, match=r"best_ema\.safetensors is gone, the best weights \(averaged\) of 1 epochs"):
        make_checkpoints(tmp_path, make_trainer()).restore()
    (tmp_path / "plain").mkdir()
    make_checkpoints(tmp_path / "plain", make_trainer(None)).save_state(0, 3)
    with pytest.raises(InputError, match="does not fit this network"):
        make_checkpoints(tmp_path / "plain", make_trainer()).restore()
