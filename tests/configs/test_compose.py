"""Every choice of every group composes, and wrong names and values are answered."""

import dataclasses
import itertools
import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException

from vswin.config import (
    CONFIG_DIR,
    EvaluateConfig,
    TrainConfig,
)
from vswin.errors import InputError

CHOICES = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in CONFIG_DIR.iterdir()
    if folder.is_dir()
}


@pytest.mark.parametrize("override", [f"{group}={name}" for group in CHOICES for name in CHOICES[group]])
def test_every_choice_composes(override, compose_train):
    compose_train(override)


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
        if path.name not in ("config.py", "checks.py")
    )
    fields = {
        field.name
        for schema in (TrainConfig, EvaluateConfig)
        for group in dataclasses.fields(schema)
        for field in (dataclasses.fields(group.type) if dataclasses.is_dataclass(group.type) else [group])
    }
    # These reach their users through an interpolation in YAML, or as fields of ModelSize; `run` as from_run.
    indirect = {"run", "depths", "num_heads", "window_size", "patch_size", "embed_dim", "drop_path_rate"}
    assert [name for name in sorted(fields - indirect) if not re.search(rf"\.{name}\b", code)] == []
