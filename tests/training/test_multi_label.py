"""Training on several labels per sample: losses by hand, weights, balanced epochs, figures of validation."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, f1_score

from tests.training.test_loss import summary_of
from tests.training.test_trainer import SIZE, make_batch
from vswin.data.catalog import Catalog
from vswin.data.order import Order, order_samples
from vswin.data.samples import Sample, multi_hot
from vswin.errors import InputError
from vswin.runtime import make_strategy
from vswin.training.loss import BinaryLoss, make_loss, weigh_classes
from vswin.training.run import find_inputs
from vswin.training.trainer import Trainer, build_trainer
from vswin.weights.build import build_model

TASK = "dataset.task=multi_label"


def binary_loss(targets, logits, weights=1.0, gamma=0.0, negative_gamma=0.0, margin=0.0):
    p = 1 / (1 + np.exp(-logits))
    shifted = np.maximum(p - margin, 0)
    positives = weights * targets * (1 - p) ** gamma * np.log(p)
    return -(positives + (1 - targets) * shifted**negative_gamma * np.log(1 - shifted)).mean(axis=1)


@pytest.mark.parametrize(
    "options", [{}, {"gamma": 2.0, "negative_gamma": 2.0}, {"gamma": 1.0, "negative_gamma": 4.0, "margin": 0.05}]
)
@pytest.mark.parametrize("weights", [None, (2.0, 0.5, 1.0, 3.0)])
def test_losses_are_those_by_hand_and_have_finite_gradients(options, weights):
    rng = np.random.default_rng(0)
    targets, logits = rng.random((6, 4)), 3 * rng.normal(size=(6, 4))
    loss = BinaryLoss(weights, *(options.get(key, 0.0) for key in ("gamma", "negative_gamma", "margin")))
    losses = loss(tf.constant(targets, tf.float32), tf.constant(logits, tf.float32))
    np.testing.assert_allclose(losses, binary_loss(targets, logits, np.array(weights or 1), **options), rtol=1e-4)
    certain = tf.Variable([[200.0, -200.0, 200.0, -200.0]])
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(loss(tf.constant([[1.0, 1.0, 0.0, 0.0]]), certain))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, certain)).all()


def test_loss_asymmetric_is_the_published_one(compose_train):
    loss = make_loss(compose_train(TASK, "loss=asymmetric"), None)
    assert loss == BinaryLoss(None, 1.0, 4.0, 0.05)
    assert make_loss(compose_train(TASK, "loss.focal_gamma=2"), None) == BinaryLoss(None, 2.0, 2.0)
    with pytest.raises(InputError, match=r"loss.negative_gamma=4.0: .* only with dataset.task=multi_label"):
        compose_train("loss=asymmetric")


NAMES = ("goal", "high jump", "idle", "absent")
SAMPLES = [
    Sample(f"{number}.avi", labels) for number, labels in enumerate([(0, 1)] * 2 + [(1, 2)] * 4 + [(2,)] * 2 + [()] * 2)
]


def effective(count):
    return (1 - 0.9**count) / (1 - 0.9)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("balanced", [8 / 2, 4 / 6, 4 / 6, 1]),
        ("effective", [effective(8) / effective(2), *[effective(4) / effective(6)] * 2, 1]),
        ("{goal: 4}", [4, 1, 1, 1]),
    ],
)
def test_weights_are_those_of_positives_against_negatives(compose_train, given, expected):
    config = compose_train(TASK, f"loss.class_weights={given}", "loss.effective_beta=0.9")
    catalog = Catalog(NAMES, SAMPLES, SAMPLES)
    np.testing.assert_allclose(weigh_classes(config, catalog), expected)
    text = summary_of(config, catalog)
    assert f"weights of positives ({given.split(':')[0].replace('{goal', 'given')}): goal {expected[0]:.3g}, " in text
    assert "val_map, chooses the epoch with the best mAP" in text


def test_a_balanced_epoch_takes_turns_among_classes_and_samples_without_any(compose_train):
    order, drawn = Order(0, 2, 1_000, balance=True), np.zeros(len(SAMPLES))
    for epoch in range(200):
        np.add.at(drawn, order_samples(SAMPLES, order, tf.constant(epoch, tf.int64)).numpy(), 1)
    # Three classes and the samples without labels: a quarter of all turns each, in which all their samples come.
    turns = 200 * len(SAMPLES) / 4
    expected = [turns * (1 / 2 + 1 / 6)] * 2 + [turns * (1 / 6 + 1 / 6)] * 4 + [turns / 6] * 2 + [turns / 2] * 2
    np.testing.assert_allclose(drawn, expected, atol=3)
    # The weights follow from how often the classes then come.
    config = compose_train(TASK, "augment.balance=true", "loss.class_weights=balanced")
    share = np.array(
        [sum(drawn[n] for n, sample in enumerate(SAMPLES) if label in sample.labels) for label in range(3)]
    )
    weights = (drawn.sum() - share) / share
    np.testing.assert_allclose(weigh_classes(config, Catalog(NAMES, SAMPLES, SAMPLES))[:3], weights, rtol=0.01)


@pytest.mark.parametrize("strategy_name", ["one_device", "mirrored"])
def test_validation_figures_are_those_of_scikit_learn(compose_train, strategy_name):
    """Seven classes, the last without positives; the last batch has padding, and one video cannot be decoded."""
    rng, num_samples = np.random.default_rng(0), 6
    samples = [Sample(f"{n}", tuple(np.flatnonzero(rng.random(6) < 0.4).tolist())) for n in range(num_samples)]
    strategy = make_strategy(strategy_name)
    config = compose_train(TASK, "batch_size=4", "optimizer.ema_decay=0.5")
    with strategy.scope():
        model = build_model(SIZE, num_classes=7)
        trainer = build_trainer(config, model, 1, val=samples)
    batches = []
    for first in (0, 4):
        indices = np.array([index if index < num_samples else -1 for index in range(first, first + 4)], "i4")
        bad = {"labels": tf.constant(np.where(indices == 2, -1, 0), tf.int32), "indices": tf.constant(indices)}
        batches.append(make_batch(4, first) | bad)
    size = 4 // strategy.num_replicas_in_sync
    elements = {key: tf.concat([batch[key] for batch in batches], axis=0) for key in batches[0]}
    data = tf.data.Dataset.from_tensor_slices(elements).batch(size, drop_remainder=True)
    results = trainer.evaluate(
        strategy.distribute_datasets_from_function(lambda context: data), steps=2, verbose=0, return_dict=True
    )
    logits = np.concatenate([model(batch["clips"], training=False).numpy() for batch in batches])[:num_samples]
    targets, decoded = multi_hot(samples, 7), np.arange(num_samples) != 2
    ranked = np.where(decoded[:, None], logits, -99)
    has_positives = targets.any(axis=0)
    precisions = [average_precision_score(targets[:, k], ranked[:, k]) for k in np.flatnonzero(has_positives)]
    assert results["map"] == pytest.approx(np.mean(precisions))
    assert results["loss"] == pytest.approx(binary_loss(targets, logits)[decoded].mean(), rel=1e-5)
    thresholds = np.array(trainer.thresholds[""])
    predicted = (1 / (1 + np.exp(-logits)) >= thresholds) & decoded[:, None]
    assert results["f1_micro"] == pytest.approx(f1_score(targets, predicted, average="micro"))
    macro = f1_score(targets[:, has_positives], predicted[:, has_positives], average="macro")
    assert results["f1_macro"] == pytest.approx(macro)
    assert macro > f1_score(
        targets[:, has_positives], (logits > 0)[:, has_positives] & decoded[:, None], average="macro"
    )
    # The average of the weights starts with them.
    assert results["ema_map"] == pytest.approx(results["map"])
    assert trainer.thresholds["ema_"] == pytest.approx(trainer.thresholds[""])


def test_labels_are_smoothed_towards_one_half_and_mixed_with_the_partner(compose_train):
    trainer = Trainer(build_model(SIZE, num_classes=7), 2, 0, label_smoothing=0.2, loss=BinaryLoss())
    targets = trainer._targets(tf.constant([[1.0] + [0.0] * 6]))
    np.testing.assert_allclose(targets, [[0.9] + [0.1] * 6], rtol=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("monitor=val_top1", r"monitor=val_top1: with dataset.task=multi_label one of val_map, val_f1_macro, val_loss"),
        ("dataset.task=several", r"dataset.task=several: one of single_label, multi_label"),
    ],
)
def test_settings_of_the_other_task_are_refused(compose_train, override, message):
    with pytest.raises(InputError, match=message):
        compose_train(TASK, override)
    with pytest.raises(InputError, match=r"monitor=val_map: with dataset.task=single_label one of val_top1"):
        compose_train("monitor=val_map")


def test_a_validation_set_without_labels_is_refused(compose_train, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.avi").touch()
    (tmp_path / "l.csv").write_text("path,labels,split\na.avi,x;y,train\nb.avi,y,train\nc.avi,,val\n")
    overrides = ("dataset=folder", TASK, f"dataset.root={tmp_path}", f"dataset.train_list={tmp_path / 'l.csv'}")
    with pytest.raises(InputError, match=r"no validation video has a label \(1 in all\)"):
        find_inputs(compose_train(*overrides, "model.init_from=null"))
