"""AdamW with parameter groups against the official steps, and the learning rate over time."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_group
from vswin.config.schema import OptimizerConfig
from vswin.training.optimizer import AdamW, ParameterGroup, WarmupCosine, build_optimizer, find_group
from vswin.weights.names import named_weights

PARITY = Path(__file__).parents[1] / "parity"


@pytest.fixture
def official_config() -> OptimizerConfig:
    return make_group(
        "optimizer",
        groups="official",
        learning_rate=1e-3,
        weight_decay=0.02,
        backbone_multiplier=0.1,
        layer_decay=1.0,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        clip_norm=None,
        schedule="cosine",
        warmup_epochs=2.5,
        warmup_ratio=0.1,
    )


def test_groups_of_swin_tiny_equal_the_official_ones(official_config):
    golden = json.loads((PARITY / "param_groups_swin_tiny.json").read_text())
    assert (golden["base_lr"], golden["weight_decay"]) == (1e-3, 0.02)
    for name, expected in golden["params"].items():
        group = find_group(name, official_config)
        assert group.learning_rate_multiplier == pytest.approx(expected["lr_mult"]), name
        assert group.weight_decay == expected["weight_decay"], name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone.patch_embed.proj.weight", (0.1, 0.02)),
        ("backbone.patch_embed.norm.weight", (0.1, 0.0)),
        ("backbone.layers.0.blocks.0.norm1.bias", (0.1, 0.0)),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", (0.1, 0.0)),
        ("backbone.layers.0.blocks.0.attn.qkv.bias", (0.1, 0.02)),
        ("backbone.layers.0.downsample.norm.weight", (0.1, 0.0)),
        ("backbone.layers.0.downsample.reduction.weight", (0.1, 0.02)),
        ("backbone.norm.weight", (0.1, 0.0)),
        ("cls_head.fc_cls.weight", (1.0, 0.02)),
        ("cls_head.fc_cls.bias", (1.0, 0.02)),
    ],
)
def test_mmaction2_multiplies_what_matches(official_config, name, expected):
    official_config.groups = "mmaction2"
    assert find_group(name, official_config)[1:] == pytest.approx(expected)


def test_six_steps_equal_the_official_ones(golden_model, official_config):
    """Losses and changes of every parameter, computed with the official model under torch.optim.AdamW."""
    golden = json.loads((PARITY / "train_steps.json").read_text())
    model = golden_model("tiny_w433")
    weights = named_weights(model)
    before = {name: variable.numpy() for name, variable in weights.items()}
    optimizer = build_optimizer(official_config, weights, learning_rate=1e-3)
    rng = np.random.RandomState(11)

    @tf.function
    def step(x, labels):
        with tf.GradientTape() as tape:
            logits = model.head(model.backbone(x))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    optimizer.build(model.trainable_variables)
    losses = []
    for s in range(6):
        x = rng.standard_normal((2, 3, 8, 48, 48)).astype("f4").transpose(0, 2, 3, 4, 1)
        losses.append(float(step(tf.constant(x), tf.constant([s % 5, (s + 2) % 5]))))
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-4)
    for name, (change, norm) in golden["param_delta_and_norm_after_6"].items():
        after = weights[name].numpy()
        # The key's bias has no effect, so Adam follows the rounding errors of its gradient.
        tolerance = 0.1 if name.endswith("qkv.bias") else 5e-3
        assert np.linalg.norm(after) == pytest.approx(norm, rel=tolerance / 10), name
        assert np.linalg.norm(after - before[name]) == pytest.approx(change, rel=tolerance), name


def test_one_step_by_hand():
    variable = tf.Variable([1.0, -2.0], name="w")
    optimizer = AdamW(0.1, {"w:0": ParameterGroup("all", 0.5, 0.2)})
    optimizer.apply_gradients([(tf.constant([3.0, -4.0]), variable)])
    # The first step of Adam is the sign of the gradient; rate 0.1 * 0.5, decay 0.2.
    np.testing.assert_allclose(variable.numpy(), [1 - 0.05 * (1 + 0.2), -2 - 0.05 * (-1 - 0.4)], rtol=1e-5)


def test_slices_are_treated_as_dense():
    dense, sliced = tf.Variable([[1.0], [2.0], [3.0]], name="d"), tf.Variable([[1.0], [2.0], [3.0]], name="s")
    group = ParameterGroup("all", 1.0, 0.1)
    optimizer = AdamW(0.1, {"d:0": group, "s:0": group})
    for _ in range(2):
        gradient = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([0, 0]), tf.constant([3, 1]))
        optimizer.apply_gradients([(tf.constant([[3.0], [0.0], [0.0]]), dense), (gradient, sliced)])
    np.testing.assert_array_equal(dense.numpy(), sliced.numpy())


def test_clip_norm_limits_the_global_norm():
    variables = [tf.Variable([0.0], name="a"), tf.Variable([0.0], name="b")]
    group = ParameterGroup("all", 1.0, 0.0)
    # epsilon dominates, so the step shows the size of the clipped gradient
    optimizer = AdamW(1.0, {"a:0": group, "b:0": group}, epsilon=1e6, clip_norm=1.0)
    optimizer.apply_gradients(zip([tf.constant([3.0]), tf.constant([4.0])], variables, strict=True))
    np.testing.assert_allclose([v.numpy()[0] for v in variables], [-0.6e-6, -0.8e-6], rtol=1e-4)


def test_a_variable_without_a_group_is_an_error():
    optimizer = AdamW(0.1, {"a:0": ParameterGroup("all", 1.0, 0.0)})
    with pytest.raises(ValueError, match=r"1 variables have no parameter group: \['b:0'\]"):
        optimizer.build([tf.Variable([0.0], name="a"), tf.Variable([0.0], name="b")])


STEPS = 40


def official(is_staircase: bool = True) -> WarmupCosine:
    return WarmupCosine(1e-3, STEPS, epochs=30, warmup_epochs=2.5, warmup_ratio=0.1, is_staircase=is_staircase)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 1.000e-4),
        (0.5, 2.800e-4),
        (1, 4.587e-4),
        (2, 8.110e-4),
        (2.5, 9.891e-4),
        (15, 5.000e-4),
        (29.5, 2.739e-6),
    ],
)
def test_staircase_equals_the_official_values(epoch, rate):
    """Values computed with mmcv's CosineAnnealing hook under linear warm-up, Kinetics recipe of Swin-T."""
    assert float(official()(round(epoch * STEPS))) == pytest.approx(rate, rel=5e-4)
    if epoch >= 15:  # flat within an epoch
        assert float(official()(int(epoch) * STEPS)) == float(official()(int(epoch) * STEPS + STEPS - 1))


def test_per_step_cosine_is_exact_and_ends_near_zero():
    schedule = official(is_staircase=False)
    step = 17 * STEPS + 13
    assert float(schedule(step)) == pytest.approx(5e-4 * (1 + math.cos(math.pi * step / (30 * STEPS))), rel=1e-5)
    assert 0 <= float(schedule(30 * STEPS)) < 1e-9
    assert float(WarmupCosine(0.02, STEPS, epochs=3)(0)) == pytest.approx(0.02)


def test_first_step_of_every_epoch_belongs_to_it():
    """In float32, step / steps_per_epoch can round below the epoch's number."""
    schedule = WarmupCosine(1.0, 49, epochs=300, is_staircase=True)
    rates = np.array([float(schedule(49 * epoch)) for epoch in range(300)])
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(300) / 300))
    np.testing.assert_allclose(rates, expected, atol=1e-5)
