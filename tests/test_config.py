import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vswin.config.load import check_overrides, differing_keys, save_config
from vswin.config.schema import EvaluateConfig, TrainConfig
from vswin.errors import InputError


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=swin_bass", "no model is called 'swin_bass'; did you mean 'swin_base'"),
        ("dataset=ucf", "no dataset is called 'ucf'; did you mean 'ucf101'"),
        ("clip.cropp=1", "there is no key 'clip.cropp'; did you mean 'clip.crop'"),
        ("leraning_rate=1", "there is no key 'leraning_rate'"),
        ("=null", "'=null' has no key before the `=`"),
        ("x" * 300 + "=1", "there is no key 'xxx"),
        ("+unknown=1", "there is no key 'unknown'; see --help"),
        ("++clip.cropp=1", "there is no key 'clip.cropp'; did you mean 'clip.crop'"),
        ("+model=swin_bass", "no model is called 'swin_bass'"),
        ("+=1", "'+=1' has no key before the `=`"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(override, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check_overrides([override], TrainConfig)


def test_right_names_and_hydras_own_grammar_pass():
    check_overrides(
        [
            "model=swin_base,swin_tiny",
            "clip.crop=112",
            "--multirun",
            "hydra.verbose=true",
            "++epochs=1",
            "+hydra.x=1",
            "~clip",
        ],
        TrainConfig,
    )
    check_overrides(["run=outputs/x", "dataset=folder"], EvaluateConfig)


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


def test_an_evaluation_chooses_among_the_weights_of_a_run(tmp_path, compose_train, compose_evaluate):
    save_config(compose_train(), tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.safetensors").touch()
    raw = compose_evaluate(f"run={tmp_path}", "weights=raw")
    assert (raw.init_from, raw.output_dir) == (str(tmp_path / "checkpoints" / "best.safetensors"), str(tmp_path))
    with pytest.raises(InputError, match=r"weights=ema: there is no best_ema in .*; only a run with optimizer"):
        compose_evaluate(f"run={tmp_path}", "weights=ema")
    (tmp_path / "checkpoints" / "best_ema.safetensors").touch()
    chosen = compose_evaluate(f"run={tmp_path}", "weights=ema")
    assert chosen.init_from == str(tmp_path / "checkpoints" / "best_ema.safetensors")
    for name in ("best", "best_ema"):  # the names in earlier versions
        (tmp_path / "checkpoints" / f"{name}.safetensors").rename(tmp_path / "checkpoints" / f"{name}.h5")
    chosen = compose_evaluate(f"run={tmp_path}", "weights=ema")
    assert chosen.init_from == str(tmp_path / "checkpoints" / "best_ema.h5")
    with pytest.raises(InputError, match="weights=averaged: one of best, raw, ema"):
        compose_evaluate(f"run={tmp_path}", "weights=averaged")
    with pytest.raises(InputError, match="weights=ema chooses among those of a training run: name it with run="):
        compose_evaluate("weights=ema", "init_from=x")


def test_differing_keys_are_listed(tmp_path, compose_train):
    save_config(compose_train(), tmp_path / "config.yaml")
    assert differing_keys(compose_train("output_dir=elsewhere", "resume=true", "logger.csv=false"), tmp_path) == []
    assert differing_keys(compose_train("dataset.isolate=true"), tmp_path) == []
    assert differing_keys(compose_train("epochs=9", "clip.crop=32"), tmp_path) == [
        "clip.crop: 64 there, 32 here",
        "epochs: 3 there, 9 here",
    ]


def test_saved_configuration_has_no_interpolation_left(tmp_path, compose_train):
    save_config(compose_train("model=swin_base"), Path(tmp_path / "config.yaml"))
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert "${" not in (tmp_path / "config.yaml").read_text()
    assert saved.optimizer.learning_rate == pytest.approx(3e-4)
