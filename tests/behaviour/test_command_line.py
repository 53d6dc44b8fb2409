"""What a command line accepts: any path, numbers within their ranges, and all arguments of a training."""

import math
import re
import runpy
import shlex
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import vswin.evaluation.run
import vswin.training.run
from vswin import cli
from vswin.config.checks import check_values
from vswin.config.compose import compose_config, compose_evaluation
from vswin.config.load import ROOT, save_config
from vswin.config.schema import (
    DataCheckConfig,
    DataPrepareConfig,
    DataShowConfig,
    EvaluateConfig,
    TrainConfig,
    list_keys,
)
from vswin.errors import InputError
from vswin.training.interruptions import resume_command
from vswin.weights.checkpoint import open_weights

ODD_NAMES = [
    "#20_my videos (2024), a=b [1] {c} & 100%~",
    'it\'s "so" $HOME; x! <y> |z| `w` ^ *?@ \\',
    "видео 视频 é",
    "2024_01",
    " true ",
    "[f(1)]",
]
PATHS = {
    TrainConfig: (
        *("dataset.root", "dataset.train_list", "dataset.val_list", "dataset.cache_dir", "dataset.tfds_dir"),
        *("init_from", "model.init_from", "output_dir"),
    ),
    EvaluateConfig: ("init_from", "output_dir", "results_dir"),
    DataCheckConfig: ("report", "clean_lists", "dataset.root"),
    DataPrepareConfig: ("output_dir", "dataset.root"),
    DataShowConfig: ("output", "dataset.root"),
}
COMMANDS = {TrainConfig: "train", EvaluateConfig: "evaluate", DataCheckConfig: "data_check"} | {
    DataPrepareConfig: "data_prepare",
    DataShowConfig: "data_show",
}


def find(config: object, key: str) -> object:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def vswin_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["vswin", *words])
    monkeypatch.setattr(sys, "orig_argv", ["vswin", *words])
    cli.main()


@pytest.fixture
def run_script(monkeypatch, tmp_path) -> Callable[..., list[tuple]]:
    """Runs train.py or evaluate.py and returns the arguments of `run_training` or `run_evaluation`."""
    calls: list[tuple] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vswin.training.run, "run_training", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(vswin.evaluation.run, "run_evaluation", lambda *arguments: calls.append(arguments))

    def run(script: str, *words: str) -> list[tuple]:
        calls.clear()
        monkeypatch.setattr(sys, "argv", [script, *words])
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, script, *words])
        runpy.run_path(str(ROOT / script), run_name="__main__")
        return list(calls)

    return run


@pytest.mark.parametrize("schema", PATHS)
def test_a_path_may_have_any_characters(schema):
    for name in ODD_NAMES[:2]:
        words = [f"{key}={name}" for key in PATHS[schema]]
        config = compose_config(COMMANDS[schema], ["dataset=folder", *words], schema)
        assert [find(config, key) for key in PATHS[schema]] == [name] * len(words)


def test_a_home_folder_is_found_in_paths(monkeypatch, compose_train):
    monkeypatch.setenv("HOME", "/home/me")
    config = compose_config("train", ["dataset.root=~/videos (1)", "output_dir=~", "init_from='~/a,b'"], TrainConfig)
    assert (config.dataset.root, config.output_dir) == ("/home/me/videos (1)", "/home/me")
    assert config.init_from == "~/a,b"  # quoted for Hydra, which keeps its meaning


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("null", None),
        (" ", ""),
        ("'a,b'", "a,b"),
        ('"a (1)"', "a (1)"),
        (r"'it\'s'", "it's"),
        (r"a\,b\=c", "a,b=c"),
        ("runs/${dataset.name}", "runs/motion"),
        ("runs (é)/${dataset.name}", "runs (é)/motion"),
    ],
)
def test_what_is_written_for_hydra_means_what_it_meant(value, meant):
    assert compose_config("train", [f"output_dir={value}"], TrainConfig).output_dir == meant
    assert compose_config("train", [f"++output_dir={value}"], TrainConfig).output_dir == meant


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("a,2024_01", ["a", "2024_01"]),
        ("choice(a,b)", ["a", "b"]),
        ("'a,b'", ["a,b"]),
        ("'a,b',c (1), ~/b=c, y é/${seed}", ["a,b", "c (1)", "/home/me/b=c", "y é/0"]),
    ],
)
def test_paths_are_swept_as_hydra_sweeps(run_script, monkeypatch, value, meant):
    monkeypatch.setenv("HOME", "/home/me")
    calls = run_script("train.py", "--multirun", f"output_dir={value}")
    assert [config.output_dir for config, _ in calls] == meant
    # The command that resumes one of these runs is quoted for a shell and resumes only that run.
    config, command = calls[-1]
    words = shlex.split(resume_command(command, Path(config.output_dir)))
    ((again, _),) = run_script("train.py", *words[2:])
    assert (again.output_dir, again.resume) == (meant[-1], True)


@pytest.mark.parametrize("name", ODD_NAMES[:5])
def test_train_and_its_command_to_continue_take_any_path(run_script, name):
    ((config, command),) = run_script("train.py", "dataset=folder", f"dataset.root={name}", "init_from=null")
    assert (config.dataset.root, config.init_from) == (name, None)
    go_on = shlex.split(resume_command(command, Path(f"outputs/{name}")))
    ((again, _),) = run_script("train.py", *go_on[2:])
    assert (again.dataset.root, again.output_dir, again.resume) == (name, f"outputs/{name}", True)


@pytest.mark.parametrize("name", ODD_NAMES[:3])
def test_evaluate_takes_a_run_by_any_name(run_script, compose_train, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / name).mkdir()
    save_config(compose_train("seed=3", "clip.num_frames=6"), tmp_path / name / "config.yaml")
    ((config, _),) = run_script("evaluate.py", f"run=~/{name}", f"results_dir={name}")
    assert config.init_from == str(tmp_path / name)
    assert (config.clip.num_frames, config.results_dir) == (6, name)


@pytest.mark.slow
def test_a_run_in_a_folder_of_any_name_is_saved_and_read(small_videos, tmp_path, monkeypatch):
    """TensorFlow treats the paths of states and SavedModels as patterns."""
    monkeypatch.setenv("HOME", str(tmp_path))
    name = f"{ODD_NAMES[0]}\\b"
    small_videos.rename(tmp_path / name)
    words = ["model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"]
    words += ["dataset=folder", f"dataset.root=~/{name}", f"output_dir=~/runs/{name}", "batch_size=4", "epochs=1"]
    words += ["clip.num_frames=4", "clip.resize=32", "clip.crop=32", "clip.num_clips=1", "clip.num_crops=1"]
    run = tmp_path / "runs" / name
    assert vswin.training.run.run_training(compose_config("train", words, TrainConfig))["val_top1"]
    # A complete run reads its last state.
    assert vswin.training.run.run_training(compose_config("train", [*words, "resume=true"], TrainConfig)) == {}
    assert not (run / "checkpoints" / "last" / "damaged").exists()
    vswin.evaluation.run.run_evaluation(compose_evaluation(["results_dir=null"], run=str(run)))
    assert (run / "metrics.json").is_file()
    vswin_command(monkeypatch, "export", str(run), f"{run}2")
    assert open_weights(f"{run}2").metadata["class_names"] == ["bright", "dark"]


@pytest.mark.parametrize("schema", COMMANDS)
def test_every_number_has_a_range(schema):
    for key, field in list_keys(schema).items():
        kinds = {schema, *typing.get_args(field.type), *(typing.get_args(field.type) or [field.type])}
        inner = {kind for each in kinds for kind in (typing.get_args(each) or [each])}
        assert bool(inner & {int, float}) == ("range" in field.metadata or key == "clip.num_crops"), key


NUMBERS = {key: field.metadata["range"] for key, field in list_keys(TrainConfig).items() if "range" in field.metadata}


@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_passes_that_means_nothing(key, compose_train):
    """Negative numbers, infinity, NaN and numbers with too many digits."""
    config = compose_train()
    group, _, name = key.rpartition(".")
    owner = find(config, group) if group else config
    for value in (-1, math.inf, -math.inf, math.nan, 10**400):
        setattr(owner, name, [value] * NUMBERS[key].lengths[-1] if NUMBERS[key].lengths else value)
        with pytest.raises(
            InputError, match=rf"^{key}=\[?-?(1|inf|nan|10*).*: .*(at least|above) [\d.]+ and (at most|below) "
        ):
            check_values(config)


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.clip_norm=0",
        "optimizer.clip_norm=nan",
        "optimizer.learning_rate=-1e-3",
        "optimizer.weight_decay=-0.05",
        "optimizer.beta_1=1",
        "optimizer.beta_2=1.5",
        "optimizer.epsilon=0",
        "optimizer.warmup_epochs=-1",
        "optimizer.backbone_multiplier=-0.1",
        "model.backbone_multiplier=-1",
        "model.drop_path_rate=1",
        "model.embed_dim=0",
        "model.patch_size=[2,4]",
        "dataset.val_fraction=1",
        "dataset.num_classes=1",
        "dataset.split=0",
        "dataset.crop_area=[0,1]",
        "dataset.warmup_epochs=inf",
        "save_minutes=0",
        "seed=4294967296",
    ],
)
def test_numbers_out_of_their_range_are_named(override, capsys, monkeypatch):
    key = override.partition("=")[0]
    with pytest.raises(SystemExit) as caught:
        vswin_command(monkeypatch, "tune", "lr", override)
    assert re.match(
        rf"error: {re.escape(key)}=\[?-?[\d.naif]+.*: (\d numbers, each )?(at least|above) ", caught.value.code
    )


def test_numbers_of_use_are_taken():
    words = [
        "optimizer.learning_rate=0",
        "optimizer.backbone_multiplier=0",
        "optimizer.clip_norm=40",
        "optimizer.beta_1=0",
        "optimizer.epsilon=1",
        "optimizer.ema_decay=null",
        "optimizer.warmup_epochs=0",
        "augment.mixup=0",
        "augment.crop_area=[1,1]",
        "dataset.clip_timeout_sec=null",
        "dataset.val_fraction=0",
        "clip.num_frames=1",
        "clip.frame_stride=64",
        "save_steps=null",
        "seed=4294967295",
    ]
    assert compose_config("train", words, TrainConfig).seed == 4294967295


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip.num_frames", "2000000000"),
        ("clip.num_frames", "9" * 400),
        ("clip.crop", "9" * 5000),
        ("model.learning_rate", "9" * 400),
        ("model.embed_dim", "2000000000"),
        ("model.embed_dim", "8000"),
        ("model.depths", "[2000000000, 1]"),
        ("model.window_size", "[900, 900, 900]"),
        ("clip.num_clips", "-3"),
        ("model.drop_path_rate", ".nan"),
    ],
)
def test_a_run_of_a_stranger_whose_numbers_mean_nothing_is_refused(key, value, tmp_path, monkeypatch, compose_train):
    save_config(compose_train(), tmp_path / "config.yaml")
    group, name = key.split(".")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    saved[group][name] = "HERE"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved).replace("HERE", value))
    (tmp_path / "a.mp4").touch()
    for words in (["predict", str(tmp_path), f"--model={tmp_path}"], ["evaluate", f"run={tmp_path}"]):
        with pytest.raises(SystemExit) as caught:
            vswin_command(monkeypatch, *words)
        assert re.match(rf"error: ({key}=|model\.name=swin_micro with|.*config.yaml)", caught.value.code)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "optimizer.learning_rate=" + "9" * 400,
            r"optimizer\.learning_rate=9{60}\.\.\.: there is no number of so many",
        ),
        ("epochs=" + "9" * 5000, r"epochs=9{60}\.\.\.: there is no number of so many digits"),
        ("model.window_size=[900,900,900]", r"model\.name=swin_micro with .* has 1\.2e\+11 parameters; at most 1e\+10"),
    ],
)
def test_numbers_beyond_measure_are_one_paragraph(override, words, run_script):
    with pytest.raises(SystemExit, match=words):
        run_script("train.py", override)


def test_data_show_takes_the_words_of_a_training(small_videos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["model=swin_tiny", "dataset=folder", f"dataset.root={small_videos}", "clip=8x1_64px", "batch_size=4"]
    train += ["optimizer=official", "optimizer.learning_rate=1e-4", "augment=strong", "logger=wandb", "seed=1"]
    vswin_command(monkeypatch, "data", "show", *train, "num_clips=2", "output=a (1).png")
    assert (tmp_path / "a (1).png").is_file()
    vswin_command(monkeypatch, "data", "check", *train)
    assert "nothing is wrong" in capsys.readouterr().out
    for word in ("leraning_rate=1", "optimizer.rate=1", "num_clip=2", "model=swin_bass"):
        with pytest.raises(SystemExit, match="did you mean"):
            vswin_command(monkeypatch, "data", "show", *train, word)


@pytest.mark.parametrize("word", ["num_clips=x", "num_clips=[", "epochs=f(1)", "model.depths=3"])
def test_an_error_of_hydra_is_one_paragraph(word, monkeypatch):
    with pytest.raises(SystemExit) as caught:
        vswin_command(monkeypatch, "data", "show", word)
    assert caught.value.code.count("configuration:") == 1
