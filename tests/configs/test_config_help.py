"""`train.py --help`, `evaluate.py --help` and `vswin data ... --help` show the `configs/` files with every key."""

import re
import subprocess
import sys

import pytest

from vswin.config.help import describe, print_help_if_asked
from vswin.config.load import CONFIG_DIR, ROOT
from vswin.config.schema import (
    DataCheckConfig,
    DataPrepareConfig,
    DataShowConfig,
    EvaluateConfig,
    TrainConfig,
    list_keys,
)

SCHEMAS = {"train": TrainConfig, "evaluate": EvaluateConfig, "data_check": DataCheckConfig}
SCHEMAS |= {"data_prepare": DataPrepareConfig, "data_show": DataShowConfig}


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_key_is_there_with_its_comment_and_no_line_is_too_wide(command):
    text = describe(command)
    shared = set() if command in ("train", "evaluate") else set(list_keys(TrainConfig))
    for key in set(list_keys(SCHEMAS[command])) - shared - {"model", "dataset", "clip", "augment", "optimizer"}:
        name = key.rpartition(".")[2]
        assert re.search(rf"\b{name}\b", text), key
    own = (CONFIG_DIR / f"{command}.yaml").read_text().partition("\nhydra:")[0].strip()
    assert own in text
    assert all(len(line) <= 140 for line in text.splitlines() if not line.startswith("  experiment="))


def test_help_names_every_option_and_the_program():
    text = describe("train", "vswin train")
    assert text.startswith("usage: vswin train [GROUP=OPTION ...] [KEY=VALUE ...]")
    assert "# vswin train model=swin_base dataset=ucf101         fine-tuning" in text
    assert "python train.py" not in text
    assert "experiment" not in describe("evaluate")
    for path in CONFIG_DIR.glob("*/*.yaml"):
        assert re.search(rf"  {path.parent.name}=(.*\|)?{path.stem}\b", text)


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
