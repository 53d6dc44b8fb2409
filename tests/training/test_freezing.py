from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.errors import InputError
from vswin.models.draws import Draws
from vswin.runtime import make_strategy, set_precision
from vswin.training.freezing import count_passed_blocks, find_frozen, run_frozen_parts_as_tested
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.trainer import Trainer
from vswin.weights.names import named_weights, official_names
from vswin.zoo import ModelSize

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


def test_nothing_is_frozen_unless_asked_for():
    assert find_frozen(NAMES, 0, []) == frozenset()


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
    """Without gradient, moments or decay; in micro-batches and rematerialised, too."""
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

    # A softmax in the attention of each of three blocks, a second one where it is rematerialised; a GELU has an Erf.
    assert count(LINEAR_PROBE)["Softmax"] == 3
    assert count(LINEAR_PROBE)["BatchMatMulV2"] == 6
    assert count(FROZEN["one stage"])["Softmax"] == (5 if remat else 3)
    assert count(frozenset())["Softmax"] == (6 if remat else 3)
    assert count(frozenset())["BatchMatMulV2"] > count(FROZEN["one stage"])["BatchMatMulV2"] > 6
