"""Which weights are trained, with which rate, and what freezing saves."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.config.schema import OptimizerConfig
from vswin.errors import InputError
from vswin.models.draws import Draws
from vswin.models.zoo import SIZES, ModelSize, count_parameters, find_size
from vswin.runtime import make_strategy, set_precision
from vswin.training.optimizer import (
    AdamW,
    ParameterGroup,
    assign_groups,
    count_passed_blocks,
    find_frozen,
    layer_multiplier,
    run_frozen_parts_as_tested,
)
from vswin.training.summary import describe_groups
from vswin.training.trainer import Trainer
from vswin.weights.names import named_weights, official_names


@pytest.fixture(scope="module")
def weights():
    return named_weights(vswin.build_model("swin_micro", num_classes=5))


@pytest.fixture
def make_config(compose_train):
    def make(*overrides: str) -> OptimizerConfig:
        return compose_train("model=swin_tiny", *overrides).optimizer

    return make


def rows(lines: list[str]) -> list[list[str]]:
    return [line.split("  ") and [cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.groups=official", {"backbone": ("5e-05", "0.0001"), "bias tables": ("0.0005", "0.001")}),
        (
            "optimizer.groups=mmaction2",
            dict.fromkeys(("backbone", "layer norms", "bias tables"), ("5e-05", "0.0001")),
        ),
        # Layers with their own rates share a row.
        (
            "optimizer.layer_decay=0.5",
            {
                "backbone": ("3.91e-07 to 5e-05", "7.81e-07 to 0.0001"),
                "bias tables": ("7.81e-06 to 0.00025", "1.56e-05 to 0.0005"),
            },
        ),
    ],
)
def test_every_group_is_a_row(weights, make_config, override, expected):
    table = rows(describe_groups(weights, make_config(override), 5e-4))
    assert table[0][:4] == ["group", "rate now", "full rate", "decay"]
    rates = {name: (now, full) for name, now, full, *_ in table[1:]}
    assert rates == expected | {"head": ("0.0005", "0.001")}
    sizes = {name: int(count.replace(",", "")) for name, *_, count in table[1:]}
    assert sum(sizes.values()) == count_parameters(find_size("swin_micro"), 5)
    assert sizes["head"] == 5 * 192 + 5


def test_frozen_weights_are_counted(weights, make_config):
    table = describe_groups(weights, make_config(), 1e-3, find_frozen(weights, 0, ["backbone.*"]))
    total = count_parameters(find_size("swin_micro"), 5)
    assert [row[0] for row in rows(table)[1:3]] == ["head", "frozen"]
    assert rows(table)[2][1] == f"{total - 965:,}"
    assert table[3] == f"{100 * 965 / total:.3g} % of {total:,} parameters are trained"


def test_the_layers_of_swin_tiny_are_those_of_the_official_image_recipe():
    """From SimMIM's get_swin_layer for depths 2, 2, 6, 2."""
    depths = SIZES["swin_tiny"].depths
    layers = {
        "backbone.patch_embed.norm.bias": 0,
        "backbone.layers.0.blocks.0.norm1.weight": 1,
        "backbone.layers.0.blocks.1.attn.relative_position_bias_table": 2,
        "backbone.layers.0.downsample.reduction.weight": 2,
        "backbone.layers.2.blocks.5.mlp.fc2.bias": 10,
        "backbone.layers.2.downsample.norm.weight": 10,
        "backbone.layers.3.blocks.1.attn.qkv.weight": 12,
        "backbone.norm.weight": 13,
        "cls_head.fc_cls.bias": 13,
    }
    for name, layer in layers.items():
        assert layer_multiplier(name, depths, 0.75) == pytest.approx(0.75 ** (13 - layer)), name


def test_the_decay_multiplies_what_the_groups_say(compose_train):
    config = compose_train("model=swin_tiny", "optimizer.layer_decay=0.5").optimizer
    groups = assign_groups(official_names((2, 2, 6, 2), has_head=True), config)
    assert groups["backbone.layers.3.blocks.1.attn.qkv.weight"] == ("backbone", 0.1 * 0.5, 0.02)
    assert groups["backbone.layers.3.blocks.0.attn.relative_position_bias_table"] == ("bias tables", 0.25, 0.0)
    assert groups["backbone.norm.weight"] == ("backbone", 0.1, 0.02)
    assert groups["cls_head.fc_cls.weight"] == ("head", 1.0, 0.02)


DEPTHS = (1, 2)
NAMES = official_names(DEPTHS, has_head=True)
LINEAR_PROBE = find_frozen(NAMES, 0, ["backbone.*"])
HEAD = {"cls_head.fc_cls.weight", "cls_head.fc_cls.bias"}
BATCH_SIZE = 4


def make_trainer(frozen: frozenset[str], rate: float = 0.3, **options: object) -> Trainer:
    keras.utils.set_random_seed(0)
    size = ModelSize(8, DEPTHS, (1, 2), window_size=(2, 2, 3), drop_path_rate=rate)
    model = vswin.build_model(size, num_classes=3, dropout=rate, remat=options.pop("remat", False))
    trainer = Trainer(model, BATCH_SIZE, 3, frozen=frozen, **options)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.1) for variable in trainer.trained_variables}
    trainer.compile(optimizer=AdamW(1e-2, groups))
    trainer.optimizer.build(trainer.trained_variables)
    return trainer


def make_batch() -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    return {
        "clips": tf.constant(rng.integers(0, 256, (BATCH_SIZE, 4, 16, 24, 3), np.uint8)),
        "labels": tf.constant(rng.integers(0, 3, BATCH_SIZE), tf.int32),
        "weights": tf.ones([BATCH_SIZE]),
        "positions": tf.range(BATCH_SIZE),
    }


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in named_weights(model).items()}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def test_stages_are_frozen_with_the_patch_embedding_and_what_merges_their_patches():
    frozen = find_frozen(NAMES, 1, [])
    assert {name.split(".")[1] for name in frozen} == {"patch_embed", "layers"}
    assert frozen == {name for name in NAMES if name.startswith(("backbone.patch_embed.", "backbone.layers.0."))}
    assert "backbone.layers.0.downsample.reduction.weight" in frozen
    assert find_frozen(NAMES, 2, []) == set(NAMES) - HEAD - {"backbone.norm.weight", "backbone.norm.bias"}


def test_patterns_are_those_of_a_shell_and_add_up():
    assert set(NAMES) - LINEAR_PROBE == HEAD
    assert find_frozen(NAMES, 0, ["backbone.patch_embed.*"]) == {n for n in NAMES if "patch_embed" in n}
    assert find_frozen(NAMES, 0, ["*.norm?.weight", "backbone.norm.bias"]) == {
        *(name for name in NAMES if name.endswith(("norm1.weight", "norm2.weight"))),
        "backbone.norm.bias",
    }
    assert find_frozen(NAMES, 1, ["cls_head.*"]) == find_frozen(NAMES, 1, []) | HEAD


@pytest.mark.parametrize(
    ("freeze_stages", "patterns", "message"),
    [
        (3, [], r"model\.freeze_stages=3: the model has 2 stages"),
        (0, ["backbone.layer.0.*"], r"'backbone\.layer\.0\.\*' matches no weight; did you mean 'backbone\.layers\.0"),
        (0, ["backbone.*", "head.*"], r"'head\.\*' matches no weight; .*'cls_head\.\*'"),
        (0, ["backbone"], r"'backbone' matches no weight; did you mean 'backbone\.\*'"),
        (2, ["*norm*", "cls_head.*"], r"model\.freeze=\['\*norm\*', 'cls_head\.\*'\] freeze every weight"),
    ],
)
def test_mistakes_are_answered(freeze_stages, patterns, message):
    with pytest.raises(InputError, match=message):
        find_frozen(NAMES, freeze_stages, patterns)


@pytest.mark.parametrize(
    ("frozen", "passed"),
    [
        (frozenset(), 0),
        (LINEAR_PROBE, 3),
        (find_frozen(NAMES, 1, []), 1),
        (find_frozen(NAMES, 0, ["backbone.layers.*"]), 0),
        (find_frozen(NAMES, 1, ["backbone.layers.1.blocks.0.*", "backbone.layers.1.blocks.1.norm1.*"]), 2),
        (find_frozen(NAMES, 0, ["*.bias"]), 0),
    ],
)
def test_blocks_that_no_gradient_reaches_are_counted(frozen, passed):
    assert count_passed_blocks(NAMES, frozen) == passed


def test_wholly_frozen_parts_drop_nothing():
    draws = Draws(tf.fill([2, 3, 2], 0.5), tf.fill([2, 16], 2.0))
    second = find_frozen(NAMES, 0, ["backbone.layers.1.blocks.0.*", "backbone.layers.0.blocks.0.attn.*"])
    changed_draws = run_frozen_parts_as_tested(draws, NAMES, second)
    np.testing.assert_array_equal(changed_draws.drop_path, np.broadcast_to([[[0.5], [1.0], [0.5]]], (2, 3, 2)))
    np.testing.assert_array_equal(changed_draws.dropout, draws.dropout)
    head = run_frozen_parts_as_tested(draws, NAMES, find_frozen(NAMES, 0, ["cls_head.*"]))
    np.testing.assert_array_equal(head.drop_path, draws.drop_path)
    np.testing.assert_array_equal(head.dropout, np.ones([2, 16]))


FROZEN = {
    "linear probe": LINEAR_PROBE,
    "one stage": find_frozen(NAMES, 1, []),
    "biases": find_frozen(NAMES, 0, ["*.bias"]),
    "head": find_frozen(NAMES, 0, ["cls_head.*"]),
}


@pytest.mark.parametrize(
    "kind", ["one stage", *(pytest.param(kind, marks=pytest.mark.slow) for kind in FROZEN if kind != "one stage")]
)
def test_frozen_weights_keep_their_bits_and_all_others_move(kind):
    """No gradients, moments or decay, even with micro-batches and rematerialisation."""
    frozen = FROZEN[kind]
    trainer = make_trainer(frozen, micro_batches=2, remat=True)
    before = values(trainer.model)
    step = tf.function(trainer.train_step)
    for _ in range(2):
        step(make_batch())
    assert changed(before, values(trainer.model)) == set(NAMES) - frozen
    assert len(trainer.optimizer._momentums) == len(NAMES) - len(frozen)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_frozen_weights_keep_their_bits_on_two_devices(precision):
    set_precision(precision)
    strategy = make_strategy("mirrored")
    with strategy.scope():
        trainer = make_trainer(FROZEN["one stage"], ema_decay=0.9)
    before = values(trainer.model)
    data = tf.data.Dataset.from_tensors(make_batch()).unbatch().batch(BATCH_SIZE // 2).repeat()
    shares = strategy.distribute_datasets_from_function(lambda _: data)
    trainer.fit(shares, steps_per_epoch=1, epochs=2, verbose=0)
    trained = set(NAMES) - FROZEN["one stage"]
    assert changed(before, values(trainer.model)) == trained
    assert changed(before, values(trainer.average.model)) == trained


def gradients_by_name(trainer: Trainer) -> dict[str, np.ndarray]:
    batch = make_batch()
    gradients = tf.function(trainer._gradients)(batch, trainer.make_draws(batch, 0), tf.constant(4.0))
    names = {id(variable): name for name, variable in named_weights(trainer.model).items()}
    return {names[id(v)]: g.numpy() for v, g in zip(trainer.trained_variables, gradients, strict=True)}


@pytest.mark.slow
def test_what_is_trained_has_the_gradients_it_had():
    whole = gradients_by_name(make_trainer(frozenset(), rate=0.0))
    for frozen in FROZEN.values():
        gradients = gradients_by_name(make_trainer(frozen, rate=0.0))
        assert gradients.keys() == set(NAMES) - frozen
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, whole[name], atol=1e-6 * max(1.0, np.abs(whole[name]).max()))


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_gradient_is_computed_below_the_first_trained_weight(remat):
    def count(frozen: frozenset[str]) -> Counter:
        trainer, batch = make_trainer(frozen, remat=remat), make_batch()
        draws = trainer.make_draws(batch, 0)
        graph = tf.function(trainer._gradients).get_concrete_function(batch, draws, tf.constant(4.0)).graph
        return Counter(operation.type for operation in graph.get_operations())

    # The attention of each of three blocks has one softmax, or two if rematerialised; each GELU has an Erf.
    probe, one_stage, whole = (count(frozen) for frozen in (LINEAR_PROBE, FROZEN["one stage"], frozenset()))
    assert probe["Softmax"] == 3
    assert probe["BatchMatMulV2"] == 6
    assert one_stage["Softmax"] == (5 if remat else 3)
    assert whole["Softmax"] == (6 if remat else 3)
    assert whole["BatchMatMulV2"] > one_stage["BatchMatMulV2"] > 6
