"""A reader's folder: a checkout with videos, data sets and weights where the documents expect them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import places
import pytest
from documents import ROOT
from reader import SMALL_MODELS, Reader, small_environment

# Limits for commands that train: recipes of 30 epochs take one, in steps of two clips.
BOUNDS = {"epochs": "1", "batch_size": "2", "warmup_epochs": "0.5"}


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes small weights for every published name, and configurations whose recipes end soon."""
    folder = tmp_path_factory.mktemp("small_models")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for path in (folder / "configs" / "dataset").glob("*.yaml"):
        text = path.read_text()
        for key, value in BOUNDS.items():
            text = re.sub(rf"^{key}: .*", f"{key}: {value}", text, flags=re.MULTILINE)
        path.write_text(text)
    (folder / "weights").mkdir()
    command = [sys.executable, str(SMALL_MODELS / "write_weights.py"), str(folder / "weights")]
    subprocess.run(command, env=os.environ | small_environment(folder), check=True)
    return folder


@pytest.fixture
def reader(tmp_path: Path, small_models: Path) -> Reader:
    """Makes a reader's folder; what the documents keep in /data is in `data`, where vswin looks by default."""
    for name in ("train.py", "evaluate.py", "Makefile", "pyproject.toml", "constraints.txt", "README.md", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "home" / ".config" / "fish" / "completions").mkdir(parents=True)
    (tmp_path / "data" / "motion").mkdir(parents=True)
    places.make_own_videos(tmp_path)
    places.make_exports(tmp_path)
    places.make_ucf101(tmp_path / "data" / "ucf101")
    places.make_kinetics(tmp_path / "data" / "kinetics400")
    places.make_kinetics(tmp_path / "data" / "kinetics600")
    places.make_sthv2(tmp_path / "data" / "sthv2")
    shutil.copy(small_models / "weights" / "swin_tiny_patch244_window877_kinetics400_1k.pth", tmp_path / "weights.pth")
    return Reader(tmp_path, small_models)
