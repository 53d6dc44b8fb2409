"""Every choice of every group composes, and wrong names and values are answered."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from vswin.config import (
    CONFIG_DIR,
    EvaluateConfig,
    TrainConfig,
    check_overrides,
    differing_keys,
    save_config,
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


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=swin_bass", "no model is called 'swin_bass'; did you mean 'swin_base'"),
        ("dataset=ucf", "no dataset is called 'ucf'; did you mean 'ucf101'"),
        ("clip.cropp=1", "there is no key 'clip.cropp'; did you mean 'clip.crop'"),
        ("leraning_rate=1", "there is no key 'leraning_rate'"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(override, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check_overrides([override], TrainConfig)


def test_right_names_and_hydras_own_grammar_pass():
    check_overrides(
        ["model=swin_base,swin_tiny", "clip.crop=112", "--multirun", "hydra.verbose=true", "+new=1", "~clip"],
        TrainConfig,
    )
    check_overrides(["run=outputs/x", "dataset=folder"], EvaluateConfig)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=0", "batch_size=0: at least 1"),
        ("epochs=0", "epochs=0: at least 1"),
        ("runtime.precision=fp16", "runtime.precision=fp16: one of float32, bfloat16, float16"),
        ("clip.num_crops=2", "clip.num_crops=2: one of 1, 3"),
        ("clip.crop=300", "clip.resize=64 is smaller than clip.crop=300"),
        ("clip.sampling=random", "clip.sampling=random: one of dense, segments"),
        ("augment.flip=2", "augment.flip=2.0: a share between 0 and 1"),
        ("augment.crop_area=[0.5,0.1]", "0 < smallest <= largest <= 1"),
        ("augment.crop_aspect=[1]", "two numbers"),
        ("model.dropout=1", "model.dropout=1.0"),
        ("model.window_size=[7,7]", "three numbers"),
        ("optimizer.schedule=step", "one of cosine, cosine_per_epoch"),
        ("seed=-1", "seed=-1: at least 0"),
    ],
)
def test_values_out_of_range_are_named(override, words, compose_train):
    with pytest.raises(InputError, match=re.escape(words)):
        compose_train(override)


def test_segments_take_one_clip(compose_train):
    with pytest.raises(InputError, match=r"clip\.num_clips=4"):
        compose_train("dataset=ucf101", "clip.sampling=segments")
    assert compose_train("dataset=ucf101", "clip=segments32").clip.num_clips == 1


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


def test_an_evaluation_takes_over_a_run(tmp_path, compose_train, compose_evaluate):
    config = compose_train("dataset=folder", "dataset.root=here", "clip.num_frames=16", "model.window_size=[4,7,7]")
    save_config(config, tmp_path / "config.yaml")
    taken = compose_evaluate(f"run={tmp_path}")
    assert (taken.model, taken.dataset) == (config.model, config.dataset)
    assert (taken.clip.num_frames, taken.clip.resize) == (16, 224)
    assert (taken.init_from, taken.output_dir) == (str(tmp_path), str(tmp_path))


def test_the_command_line_wins_over_the_run(tmp_path, compose_train, compose_evaluate):
    save_config(compose_train("dataset=folder"), tmp_path / "config.yaml")
    taken = compose_evaluate(
        f"run={tmp_path}", "clip.num_clips=1", "dataset.root=there", "clip.resize=256", "output_dir=out"
    )
    assert (taken.clip.num_clips, taken.clip.resize, taken.clip.num_crops) == (1, 256, 3)
    assert (taken.dataset.root, taken.output_dir) == ("there", "out")
    assert compose_evaluate(f"run={tmp_path}", "dataset=ucf101").dataset.name == "ucf101"


def test_a_run_that_is_none_is_an_error(tmp_path, compose_train, compose_evaluate):
    with pytest.raises(InputError, match=r"is not the folder of a training run: it has no config.yaml"):
        compose_evaluate(f"run={tmp_path}")
    save_config(compose_train(), tmp_path / "config.yaml")
    with pytest.raises(InputError, match="give one of them"):
        compose_evaluate(f"run={tmp_path}", "init_from=x")


def test_differing_keys_are_listed(tmp_path, compose_train):
    save_config(compose_train(), tmp_path / "config.yaml")
    assert differing_keys(compose_train("output_dir=elsewhere", "resume=true", "logger.csv=false"), tmp_path) == []
    assert differing_keys(compose_train("epochs=9", "clip.crop=32"), tmp_path) == [
        "clip.crop: 64 there, 32 here",
        "epochs: 6 there, 9 here",
    ]


def test_saved_configuration_has_no_interpolation_left(tmp_path, compose_train):
    save_config(compose_train("model=swin_base"), Path(tmp_path / "config.yaml"))
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert "${" not in (tmp_path / "config.yaml").read_text()
    assert saved.optimizer.learning_rate == pytest.approx(3e-4)
