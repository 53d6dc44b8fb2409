"""A network with formula weights, clips whose sides differ, and a run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vswin.config.compose import compose_config
from vswin.config.load import save_config
from vswin.config.schema import TrainConfig
from vswin.models.video_swin import VideoSwin
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

NAMES = ["wave", "jump rope", "Größe", "3", "sit"]


@pytest.fixture(scope="module")
def built(golden_model) -> VideoSwin:
    """Builds four stages of two blocks, windows of 4 x 3 x 3, five classes."""
    return golden_model("tiny_w433")


@pytest.fixture
def model(built) -> Iterator[VideoSwin]:
    """Gives the network, whose head a test may change."""
    head = built.head.get_weights()
    yield built
    built.head.set_weights(head)


@pytest.fixture
def clips() -> np.ndarray:
    """Draws two clips of 9 frames, 76 x 44: in the first stage 5 x 19 x 11 tokens, which fill no whole windows."""
    return np.random.default_rng(0).integers(0, 256, [2, 9, 76, 44, 3], dtype=np.uint8)


@pytest.fixture
def run_folder(model, tmp_path) -> Path:
    """Makes the folder of a run of this network: 4 frames, one in 2, of 64 px, tested on 2 x 3 views."""
    folder = tmp_path / "run"
    size = [f"model.{key}={list(getattr(model.size, key))}" for key in ("depths", "num_heads", "window_size")]
    data = ["dataset=folder", "dataset.root=nowhere", "clip.num_frames=4", "clip.resize=64", "clip.crop=64"]
    config = compose_config("train", [*size, "model.embed_dim=8", *data, "clip.num_clips=2"], TrainConfig)
    (folder / "checkpoints").mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    metadata = {"size": vars(model.size), "class_names": NAMES, "clip": vars(config.clip)}
    save_checkpoint(folder / "checkpoints" / "best.safetensors", official_tensors(model), metadata)
    return folder
