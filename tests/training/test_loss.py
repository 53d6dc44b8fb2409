"""The training loss, its weights of classes and what the summary says of them, against NumPy and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tests.training.test_trainer import make_batch, make_trainer
from vswin.data.catalog import Catalog
from vswin.data.samples import Sample
from vswin.errors import InputError
from vswin.models.zoo import configured_size
from vswin.training.loss import Loss, weigh_classes
from vswin.training.summary import describe_run

NAMES = ("goal", "high jump", "idle", "absent")
COUNTS = (2, 8, 30, 0)


def make_catalog(names=NAMES, counts=COUNTS) -> Catalog:
    samples = [Sample(f"{label}_{number}", (label,)) for label, count in enumerate(counts) for number in range(count)]
    return Catalog(names, samples, samples[:1])


def draw_targets_and_logits():
    rng = np.random.default_rng(0)
    targets, logits = rng.dirichlet(np.ones(4), 6), 3 * rng.normal(size=(6, 4))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return targets, logits, log_p


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, (2.0, 0.5, 1.0, 3.0)])
def test_weights_and_focal_factors_apply_to_every_class_of_a_soft_target(gamma, weights):
    targets, logits, log_p = draw_targets_and_logits()
    expected = -(targets * (1 - np.exp(log_p)) ** gamma * log_p * np.array(weights or 1)).sum(axis=1)
    losses = Loss(weights, gamma)(tf.constant(targets, tf.float32), tf.constant(logits, tf.float32))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_gradients_are_finite_where_the_model_is_certain():
    logits = tf.Variable([[200.0, 0.0], [0.0, 200.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(Loss(None, 0.5)(tf.constant([[1.0, 0.0], [1.0, 0.0]]), logits))
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def effective(count):
    return (1 - 0.9) / (1 - 0.9**count)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("balanced", [1 / 2, 1 / 8, 1 / 30]),
        ("effective", [effective(2), effective(8), effective(30)]),
        ("{goal:4,high jump:2}", [4, 2, 1]),
        ("{idle:0.5,absent:9}", [1, 1, 0.5]),
    ],
)
def test_weights_have_mean_1_over_the_training_samples(compose_train, given, expected):
    config = compose_train(f"loss.class_weights={given}", "loss.effective_beta=0.9")
    *weights, absent = weigh_classes(config, make_catalog())
    assert absent == 1
    assert np.dot(weights, COUNTS[:3]) == pytest.approx(sum(COUNTS))
    np.testing.assert_allclose(np.divide(weights, weights[2]), np.divide(expected, expected[2]), rtol=1e-6)


def test_balanced_epochs_need_no_weights(compose_train):
    assert weigh_classes(compose_train(), make_catalog()) is None
    config = compose_train("augment.balance=true", "loss.class_weights=balanced")
    np.testing.assert_allclose(weigh_classes(config, make_catalog()), 1.0)
    config = compose_train("augment.balance=true", "loss.class_weights={goal:4}")
    np.testing.assert_allclose(weigh_classes(config, make_catalog()), [2, 0.5, 0.5, 1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.class_weights={gaol:2}", r"no class 'gaol'; did you mean 'goal'"),
        ("loss.class_weights={7:2}", r"no class 7; \(choices: goal, high jump, idle, absent\)"),
    ],
)
def test_a_weight_for_an_unknown_class_is_an_error(compose_train, override, message):
    with pytest.raises(InputError, match=message):
        weigh_classes(compose_train(override), make_catalog())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "loss.class_weights=balancd",
            r"weights=balancd: one of none, balanced, effective, or a weight for each",
        ),
        ("loss.class_weights={goal:0}", r"the weight of 'goal' is 0; a number above 0"),
        ("loss.class_weights={goal:much}", r"the weight of 'goal' is much"),
        ("loss.effective_beta=1", r"effective_beta=1\.0: at least 0 and below 1"),
        ("loss.focal_gamma=-1", r"focal_gamma=-1\.0: at least 0"),
    ],
)
def test_wrong_values_are_refused(compose_train, override, message):
    with pytest.raises(InputError, match=message):
        compose_train(override)


def test_a_step_is_trained_on_the_weighted_loss_and_validation_stays_plain():
    batch, weights = make_batch(4), tuple(0.25 * (label + 1) for label in range(7))
    trainer, labels = make_trainer(4, label_smoothing=0.1), batch["labels"].numpy()
    trainer.training_loss = Loss(weights, 1.5)
    log_p = tf.nn.log_softmax(trainer.model(batch["clips"])).numpy()
    assert float(trainer.test_step(batch)["loss"]) == pytest.approx(-log_p[np.arange(4), labels].mean(), rel=1e-5)
    trainer.reset_metrics()
    clips, draws = trainer.model.normalize(batch["clips"]), trainer.make_draws(batch, 0)
    log_p = tf.nn.log_softmax(trainer.model.classify(clips, True, draws.model)).numpy()
    targets = 0.9 * np.eye(7)[labels] + 0.1 / 7
    expected = -(targets * (1 - np.exp(log_p)) ** 1.5 * log_p * weights).sum(axis=1).mean()
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(expected, rel=1e-5)


def summary_of(config, catalog) -> str:
    size, strategy = configured_size(config.model), tf.distribute.OneDeviceStrategy("/cpu:0")
    return "\n".join(describe_run(config, size, catalog, [], "none", strategy, weigh_classes(config, catalog)))


def test_the_summary_names_rare_classes_and_what_each_class_counts(compose_train):
    text = summary_of(compose_train(), make_catalog())
    assert "rare classes:   goal (2); the mean is 13.33 training samples\n" in text
    assert "augment.balance=true or loss.class_weights=balanced favours them" in text
    assert "\nloss:" not in text
    text = summary_of(compose_train("loss.class_weights={idle:0.5,absent:9}", "loss.focal_gamma=2"), make_catalog())
    assert "loss:           class weights (given): goal 1.6, high jump 1.6, idle 0.8\n" in text
    assert "no training samples, so their weight has no effect: absent\n" in text
    assert "focal, gamma 2\n" in text
    assert "favours them" not in text
    text = summary_of(compose_train("augment.balance=true"), make_catalog())
    assert "balance:        each class equally often, so a sample of goal comes 6.67 times an epoch\n" in text
    many = make_catalog(tuple(f"class {label}" for label in range(20)), tuple(range(1, 21)))
    text = summary_of(compose_train("loss.class_weights=balanced"), many)
    assert "class weights (balanced): class 0 10.5, class 1 5.25, class 2 3.5, class 3 2.62, class 4 2.1, ..., " in text
    assert "rare classes:   class 0 (1), class 1 (2), class 2 (3); the mean is 10.5 training samples\n" in text
    even = summary_of(compose_train(), make_catalog(counts=(5, 5, 5, 5)))
    assert "rare" not in even
