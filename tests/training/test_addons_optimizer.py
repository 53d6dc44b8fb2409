"""What `optimizer=adamw_addons` always refuses, and how it trains if TensorFlow Addons is installed."""

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from vswin.errors import InputError
from vswin.models.layers import PatchProjection
from vswin.runtime import make_strategy
from vswin.training import callbacks
from vswin.training.optimizer import WarmupCosine, build_optimizer, find_group
from vswin.training.run import run_training

HAS_ADDONS = importlib.util.find_spec("tensorflow_addons") is not None
needs_addons = pytest.mark.skipif(not HAS_ADDONS, reason="tensorflow_addons is not installed")

SHAPES = {
    "backbone.patch_embed.proj.weight": (4, 3),
    "backbone.layers.0.blocks.0.norm1.weight": (3,),
    "backbone.layers.0.blocks.0.attn.relative_position_bias_table": (5, 2),
    "cls_head.fc_cls.weight": (3, 2),
    "cls_head.fc_cls.bias": (2,),
}
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "model.drop_path_rate=0.2",
    "model.dropout=0.3",
    "dataset=folder",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=4",
    "epochs=2",
    "optimizer=adamw_addons",
    "optimizer.warmup_epochs=1",
)


def make_weights() -> dict[str, tf.Variable]:
    rng = np.random.default_rng(0)
    return {
        name: tf.Variable(rng.normal(size=shape), dtype=tf.float32, name=name.replace(".", "_"))
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize(
    ("override", "way_out"),
    [
        ("optimizer.clip_norm=1", "optimizer.clip_norm=null"),
        ("optimizer.ema_decay=0.9", "optimizer.ema_decay=null"),
        ("optimizer.layer_decay=0.8", "optimizer.layer_decay=1.0"),
        ("model.freeze_stages=1", "model.freeze_stages=0"),
        ("model.freeze=[backbone.*]", r"model.freeze=\[\]"),
        ("runtime.precision=float16", "runtime.precision=bfloat16"),
    ],
)
def test_what_it_cannot_do_is_refused(compose_train, override, way_out):
    key = override.split("=")[0]
    with pytest.raises(InputError, match=f"^{key}=.* does not go with optimizer=adamw_addons.* use .*{way_out}"):
        compose_train("optimizer=adamw_addons", override)


@pytest.mark.parametrize(("version", "spec"), [("2.21.0", object()), ("2.15.1", None)])
def test_without_its_library_it_says_which_environment_to_make(compose_train, monkeypatch, version, spec):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(InputError, match=f"here are TensorFlow {version}") as caught:
        compose_train("optimizer=adamw_addons")
    assert "`make install-addons`" in str(caught.value)
    assert "pip install --constraint constraints-addons.txt --editable '.[addons]'" in str(caught.value)


def test_backbone_and_head_are_two_groups_that_both_decay(compose_train):
    config = compose_train("optimizer.groups=backbone_and_head").optimizer
    groups = {name: find_group(name, config) for name in SHAPES}
    assert [group.name for group in groups.values()] == ["backbone"] * 3 + ["head"] * 2
    assert {group.weight_decay for group in groups.values()} == {config.weight_decay}
    assert [group.learning_rate_multiplier for group in groups.values()] == [config.backbone_multiplier] * 3 + [1.0] * 2


@needs_addons
def test_it_is_a_multi_optimizer_of_two_adamws(compose_train):
    config = compose_train("optimizer=adamw_addons", "optimizer.backbone_multiplier=0.1").optimizer
    optimizer = build_optimizer(config, make_weights(), 1e-3)
    import tensorflow_addons as tfa  # warns unless it has been imported already

    assert isinstance(optimizer, tfa.optimizers.MultiOptimizer)
    backbone, head = (spec["optimizer"] for spec in optimizer.optimizer_specs)
    assert isinstance(backbone, tfa.optimizers.AdamW)
    assert isinstance(head, tfa.optimizers.AdamW)
    assert float(backbone.learning_rate) == pytest.approx(0.1 * float(head.learning_rate))
    assert float(head.weight_decay) == pytest.approx(1e-3 * config.weight_decay)
    assert optimizer.last_rates() == pytest.approx({"backbone": 1e-4, "head": 1e-3})


@needs_addons
@pytest.mark.parametrize("groups", ["backbone_and_head", "official", "mmaction2"])
@pytest.mark.parametrize("strategy_name", ["one_device", "mirrored"])
def test_ten_steps_equal_those_of_our_adamw(compose_train, strategy_name, groups):
    """Gradients of all sizes, down to those where epsilon matters; replicas get different ones."""
    strategy, finals = make_strategy(strategy_name), {}
    for name in ("adamw", "adamw_addons"):
        config = compose_train(f"optimizer={name}", f"optimizer.groups={groups}", "optimizer.backbone_multiplier=0.1")
        with strategy.scope():
            weights = make_weights()
            optimizer = build_optimizer(config.optimizer, weights, WarmupCosine(1e-2, 4, 3, 1.0))
            optimizer.build(list(weights.values()))

        @tf.function
        def step(scale, optimizer=optimizer, weights=weights):
            def apply():
                replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
                gradients = [(tf.sin(5 * v) + replica) * scale for v in weights.values()]
                optimizer.apply_gradients(zip(gradients, weights.values(), strict=True))

            strategy.run(apply)

        for i in range(10):
            step(tf.constant(10.0 ** (-i % 9 - 1)))
        finals[name] = [variable.numpy() for variable in weights.values()], int(optimizer.iterations.numpy())
    assert finals["adamw"][1] == finals["adamw_addons"][1] == 10
    for ours, theirs, start in zip(finals["adamw"][0], finals["adamw_addons"][0], make_weights().values(), strict=True):
        assert np.abs(ours - start).max() > 1e-3
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6)


@pytest.fixture
def start(compose_train, small_videos, tmp_path):
    """Trains a tiny model on the small videos; returns the history."""

    def run(*overrides: str, output: str = "run"):
        folder = (f"dataset.root={small_videos}", f"output_dir={tmp_path / output}")
        return run_training(compose_train(*TINY, *folder, *overrides))

    return run


def read_weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "checkpoints" / "best.safetensors")


@needs_addons
@pytest.mark.parametrize("strategy_name", ["one_device", "mirrored"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(start, tmp_path, monkeypatch, strategy_name):
    strategy = f"runtime.strategy={strategy_name}"
    whole = start(strategy, output="whole")
    original = callbacks.EpochReport.on_epoch_begin

    def die(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        original(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EpochReport, "on_epoch_begin", die)
        with pytest.raises(KeyboardInterrupt):
            start(strategy)
    rest = start(strategy, "resume=true")
    for key in ("loss", "val_loss", "lr_backbone", "lr_head"):
        assert rest[key] == whole[key][1:], key
    states = [
        tf.train.load_checkpoint(tmp_path / name / "checkpoints" / "last" / "ckpt-6") for name in ("whole", "run")
    ]
    names = [name for name in states[0].get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    assert sum("OPTIMIZER_SLOT" in name for name in names) == 2 * len(read_weights(tmp_path / "run"))
    for name in names:
        np.testing.assert_array_equal(states[0].get_tensor(name), states[1].get_tensor(name), err_msg=name)


@needs_addons
def test_several_workers_are_refused(compose_train, monkeypatch):
    config = compose_train("optimizer=adamw_addons").optimizer
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", type(tf.distribute.get_strategy()))
    with pytest.raises(InputError, match=r"runtime\.strategy=multi_worker does not go with optimizer=adamw_addons"):
        build_optimizer(config, make_weights(), 1e-3)


@needs_addons
def test_layers_can_still_be_rebuilt_from_their_configuration():
    importlib.import_module("vswin.training.addons_optimizer")
    layer = PatchProjection(6, (2, 2, 2), dtype="mixed_bfloat16")
    assert PatchProjection.from_config(layer.get_config()).dtype_policy.name == "mixed_bfloat16"
