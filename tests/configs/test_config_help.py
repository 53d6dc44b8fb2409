"""`train.py --help` and `evaluate.py --help`: what they say is what is composed, and from every file."""

import re
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from vswin.config import CONFIG_DIR, ROOT
from vswin.config_help import describe, print_help_if_asked
from vswin.schema import EvaluateConfig, TrainConfig

SCHEMAS = {"train": TrainConfig, "evaluate": EvaluateConfig}


@pytest.mark.parametrize("command", SCHEMAS)
def test_keys_and_defaults_are_those_that_hydra_composes(command):
    ConfigStore.instance().store(f"{command}_schema", SCHEMAS[command])
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = OmegaConf.to_container(compose(command), resolve=False)
    settings = describe(command).partition("model.dropout=0.3:\n")[2].partition("\n\nHydra's own")[0]
    said = yaml.safe_load(settings)
    assert OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), said)) == composed
    assert said.keys() == composed.keys()
    for group in ("model", "dataset", "clip", "runtime"):
        assert said[group].keys() == composed[group].keys()


def test_help_has_examples_every_option_and_what_files_say_of_keys():
    text = describe("train")
    for words in (
        "usage: train.py [GROUP=OPTION ...] [KEY=VALUE ...]",
        "  python train.py model=swin_base dataset=ucf101         fine-tuning",
        "  optimizer:  adamw, adamw_addons, official\n",
        "resume: false                       # true: go on in output_dir",
        "  # RandAugment on imgaug's scale: `official` is imgaug's own",
        "one_device; mirrored: every GPU",
        "crop_area: [1.0, 1.0]              # whole frames",  # motion's own
        "batch_size: 16                     # as published",  # its value, and what folder says of the key
    ):
        assert words in text
    assert "resize: ${clip.crop}" in describe("evaluate")
    groups = text.partition("Groups:")[2].partition("Keys and")[0]
    assert all(len(line) <= 120 for line in groups.splitlines())
    for path in CONFIG_DIR.glob("*/*.yaml"):
        assert path.stem in groups


def test_help_names_the_command_it_was_asked_of():
    text = describe("train", "vswin train")
    assert text.startswith("usage: vswin train [GROUP=OPTION ...]")
    rows = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert all(row.startswith("  vswin train ") for row in rows)
    assert len({re.search("  +(?=(?:swin_micro|fine-tuning))", row).end() for row in rows[:2]}) == 1
    assert ".py" not in text.partition("Groups:")[0]


@pytest.mark.parametrize("arguments", [[], ["seed=1"], ["dataset=ucf101", "--help"], ["--cfg", "job"]])
def test_anything_else_is_for_hydra(arguments, capsys):
    print_help_if_asked(arguments, "train")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_that_nobody_reads_to_its_end_ends_quietly(option):
    command = f"{sys.executable} {ROOT / 'train.py'} {option} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "usage: train.py [GROUP=OPTION ...] [KEY=VALUE ...]\n"
    assert done.stderr == ""


def test_help_of_composed_words_still_comes_from_hydra(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "model=swin_tiny", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "name: swin_tiny" in done.stdout, done.stderr
