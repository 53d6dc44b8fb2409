"""Sweeps: `--multirun`, processes side by side, and the commands of wandb's agent for docs/sweeps/wandb.yaml."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from vswin.config.load import check_overrides
from vswin.config.schema import TrainConfig

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "docs" / "sweeps" / "wandb.yaml"
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "dataset.root=videos",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=4",
    "epochs=1",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Makes a folder to run in, with eight videos of two classes in `videos`."""
    for label, level in (("bright", 200), ("dark", 40)):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for i in range(4):
            path = str(tmp_path / "videos" / label / f"{i}.avi")
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(8):
                writer.write(np.full((40, 48, 3), level + i + t, np.uint8))
            writer.release()
    return tmp_path


def agent_command(parameters: dict[str, object]) -> list[str]:
    """Makes a run's command with the functions of wandb's agent, from parameters chosen as its server would."""
    sweep = yaml.safe_load(SWEEP.read_text())
    words = create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})
    words |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [str(ROOT / sweep["program"])]}
    command = []
    for word in create_sweep_command(sweep["command"]):
        command.extend(words[word[2:-1]] if word.startswith("${") else [word])
    return command


def ends_of_range(parameter: dict[str, object]) -> tuple[object, object]:
    values = parameter.get("values") or [parameter["min"], parameter["max"]]
    return values[0], values[-1]


@pytest.mark.parametrize("end", [0, 1])
def test_the_agent_of_a_wandb_sweep_makes_commands_that_compose(end, compose_train):
    parameters = yaml.safe_load(SWEEP.read_text())["parameters"]
    chosen = {name: ends_of_range(parameter)[end] for name, parameter in parameters.items()}
    program, *overrides = agent_command(chosen)[2:]
    assert program == str(ROOT / "train.py")
    check_overrides(overrides, TrainConfig)
    config = compose_train(*overrides)
    assert config.logger.wandb
    assert config.model.name == "swin_tiny"
    assert config.optimizer.learning_rate == chosen["optimizer.learning_rate"]
    assert config.model.drop_path_rate == chosen["model.drop_path_rate"]


@pytest.mark.slow
def test_a_command_of_a_wandb_agent_trains_and_its_run_is_that_of_the_agent(folder, wandb_offline):
    command = agent_command({"optimizer.learning_rate": 0.002})
    command = [word for word in command if not word.startswith(("model=", "dataset="))]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "run1"}
    done = subprocess.run(
        [*command, *TINY, "output_dir=run"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "run" / "wandb_run_id.txt").read_text() == "run1"
    (logged,) = (folder / "run" / "wandb").glob("offline-run-*")
    assert logged.name.endswith("-run1")
    metric = yaml.safe_load(SWEEP.read_text())["metric"]["name"]
    (session,) = wandb_offline(folder / "run")
    (row,) = session.history
    assert metric in row


@pytest.mark.slow
def test_multirun_trains_each_combination_in_a_folder_of_its_own(folder):
    """Runs are side by side; tests/docs executes the document's example with the sequential launcher."""
    sweep = ("optimizer.learning_rate=0.001,0.002", "output_dir='runs/rate ${optimizer.learning_rate}'", "resume=true")
    command = [sys.executable, str(ROOT / "train.py"), "--multirun", "hydra/launcher=submitit_local", *TINY, *sweep]
    for _ in range(2):  # the second time all runs are complete
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    runs = {path.name: path for path in (folder / "runs").iterdir()}
    assert set(runs) == {"rate 0.001", "rate 0.002"}
    for name, path in runs.items():
        config = yaml.safe_load((path / "config.yaml").read_text())
        assert f"rate {config['optimizer']['learning_rate']}" == name
        assert (path / "train.log").read_text().count("epoch 1/1") == 1
        assert "the run is complete" in (path / "train.log").read_text()
