"""Every choice of every group composes; wrong names and values are errors."""

import dataclasses
import itertools
import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException

from vswin.config import checks
from vswin.config.load import CONFIG_DIR, implied_choices
from vswin.config.schema import EvaluateConfig, TrainConfig
from vswin.errors import InputError
from vswin.evaluation.published import compare
from vswin.models.zoo import configured_size
from vswin.weights.published import find_weights, published_models

CHOICES = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONFIG_DIR.iterdir()
    if folder.is_dir()
}


@pytest.mark.parametrize("override", [f"{group}={name}" for group in CHOICES for name in CHOICES[group]])
def test_every_choice_composes(override, compose_train, monkeypatch):
    # tests/training/test_addons_optimizer.py tests with and without TensorFlow Addons.
    monkeypatch.setattr(checks, "_check_addons_installed", lambda: None)
    compose_train(override, *(["dataset.task=multi_label"] if override == "loss=asymmetric" else []))


@pytest.mark.parametrize(("model", "dataset"), list(itertools.product(CHOICES["model"], CHOICES["dataset"])))
def test_every_pair_of_model_and_dataset_composes(model, dataset, compose_train, compose_evaluate):
    config = compose_train(f"model={model}", f"dataset={dataset}")
    assert config.model.name == model
    assert config.dataset.name == dataset
    assert config.init_from == config.model.init_from
    assert config.epochs == config.dataset.epochs
    assert compose_evaluate(f"model={model}", f"dataset={dataset}").clip.num_frames == config.clip.num_frames


def test_a_data_set_brings_its_clip_and_the_command_line_replaces_it(compose_train):
    assert compose_train().clip.num_frames == 8
    assert compose_train("dataset=ucf101").clip.crop == 224
    assert compose_train("dataset=ucf101", "clip=16x4").clip.frame_stride == 4
    assert compose_train("dataset=ucf101", "clip.num_frames=12").clip.num_frames == 12


def test_model_brings_its_recipe(compose_train):
    assert compose_train("model=swin_base").optimizer.learning_rate == pytest.approx(3e-4)
    assert compose_train("model=swin_tiny").optimizer.weight_decay == pytest.approx(0.02)
    assert compose_train("model=swin_tiny", "optimizer.learning_rate=1").optimizer.learning_rate == 1
    assert compose_train().optimizer.backbone_multiplier == 1
    assert compose_train("model=swin_small").optimizer.backbone_multiplier == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "init_from", "learning_rate", "weight_decay", "drop_path", "epochs", "smoothing"),
    [
        ("swin_tiny_kinetics400", "swin_tiny_patch4_window7_224", 1e-3, 0.02, 0.1, 30, 0),
        ("swin_small_kinetics400", "swin_small_patch4_window7_224", 1e-3, 0.02, 0.1, 30, 0),
        ("swin_base_kinetics400", "swin_base_patch4_window7_224", 1e-3, 0.05, 0.3, 30, 0),
        ("swin_base_22k_kinetics400", "swin_base_patch4_window7_224_22k", 3e-4, 0.05, 0.2, 30, 0),
        ("swin_base_22k_kinetics600", "swin_base_patch4_window7_224_22k", 3e-4, 0.05, 0.2, 30, 0),
        ("swin_base_sthv2", "swin_base_patch244_window1677_kinetics400_22k", 3e-4, 0.05, 0.4, 60, 0.1),
    ],
)
def test_official_recipes(
    name, init_from, learning_rate, weight_decay, drop_path, epochs, smoothing, compose_train, compose_evaluate
):
    """Values from configs/recognition/swin in the official repository."""
    config = compose_train(f"experiment={name}")
    assert config.init_from == init_from
    assert config.dataset.name == name.rpartition("_")[2]
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay) == (learning_rate, weight_decay)
    assert (optimizer.groups, optimizer.backbone_multiplier) == ("official", 0.1)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, optimizer.clip_norm) == (0.9, 0.999, 1e-8, None)
    assert (optimizer.schedule, optimizer.warmup_epochs, optimizer.warmup_ratio) == ("cosine_per_epoch", 2.5, 0.1)
    assert configured_size(config.model).drop_path_rate == drop_path
    assert (config.model.dropout, config.batch_size, config.epochs) == (0.5, 64, epochs)
    assert config.augment.label_smoothing == smoothing
    assert (config.augment.crop_area, config.augment.flip) == ([0.08, 1.0], 0.5)
    is_sthv2 = config.dataset.name == "sthv2"
    assert config.clip.sampling == ("segments" if is_sthv2 else "dense")
    assert (config.augment.rand_augment, config.augment.erasing) == (("official", 0.25) if is_sthv2 else ("none", 0))
    assert config.dataset.allow_flip is not is_sthv2
    assert find_weights(init_from).is_image_model is not is_sthv2


@pytest.mark.parametrize("row", published_models(), ids=lambda row: row.name)
def test_a_published_name_alone_is_evaluated_under_its_protocol(row, compose_evaluate):
    overrides = [f"init_from={row.name}"]
    overrides += implied_choices(overrides)
    config = compose_evaluate(*overrides)
    assert (config.model.name, config.dataset.name) == (row.size, row.dataset)
    assert compare(config.init_from, config.dataset.name, config.clip, config.average, 40_000).published == row


def test_what_the_command_line_names_is_not_implied():
    name = "swin_base_patch244_window1677_sthv2"
    assert implied_choices([f"init_from={name}", "dataset=folder"]) == ["model=swin_base_w16"]
    assert implied_choices([f"init_from={name}", "model=swin_base", "dataset=sthv2"]) == []
    assert implied_choices(["init_from=outputs/run"]) == implied_choices(["run=outputs/run"]) == []


def test_evaluation_resizes_to_the_crop(compose_evaluate):
    assert compose_evaluate("dataset=ucf101").clip.resize == 224
    assert compose_evaluate("dataset=ucf101", "clip.crop=112").clip.resize == 112
    assert compose_evaluate("dataset=ucf101", "clip.resize=256").clip.resize == 256


@pytest.mark.parametrize("override", ["clip.cropp=1", "batchsize=2", "model.window=[8,7,7]"])
def test_a_misspelt_key_fails_in_hydra(override, compose_train):
    with pytest.raises(ConfigCompositionException, match=override.split("=")[0].split(".")[-1]):
        compose_train(override)


@pytest.mark.parametrize(("override", "key"), [("epochs=many", "epochs"), ("clip.crop=1.5", "clip.crop")])
def test_a_wrong_type_fails_and_names_the_key(override, key, compose_train):
    with pytest.raises((ConfigCompositionException, InputError)) as caught:
        compose_train(override)
    assert key in str(caught.value) + str(caught.value.__cause__)


def test_a_misspelt_key_in_yaml_fails(tmp_path):
    ConfigStore.instance().store("train_schema", TrainConfig)
    for path in CONFIG_DIR.rglob("*.yaml"):
        target = tmp_path / path.relative_to(CONFIG_DIR)
        target.parent.mkdir(exist_ok=True)
        target.write_text(path.read_text())
    file = tmp_path / "optimizer" / "adamw.yaml"
    file.write_text(file.read_text().replace("warmup_epochs", "warm_up_epochs"))
    with (
        initialize_config_dir(str(tmp_path), version_base="1.3"),
        pytest.raises(ConfigCompositionException) as caught,
    ):
        compose("train")
    assert "warm_up_epochs" in str(caught.value) + str(caught.value.__cause__)


def test_every_field_is_used_outside_the_schema():
    code = "".join(
        path.read_text()
        for path in (CONFIG_DIR.parent / "vswin").rglob("*.py")
        if path.name not in ("load.py", "checks.py")
    )
    fields = {
        field.name
        for schema in (TrainConfig, EvaluateConfig)
        for group in dataclasses.fields(schema)
        for field in (dataclasses.fields(group.type) if dataclasses.is_dataclass(group.type) else [group])
    }
    # The code uses these through an interpolation in YAML, or as fields of ModelSize; `run` as from_run.
    indirect = {"run", "depths", "num_heads", "window_size", "patch_size", "embed_dim", "drop_path_rate"}
    assert [name for name in sorted(fields - indirect) if not re.search(rf"\.{name}\b", code)] == []
