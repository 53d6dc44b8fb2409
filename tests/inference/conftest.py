"""A run with a tiny model, and videos whose gray levels encode the frame numbers."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tf_keras as keras

import vswin
from vswin.config.compose import compose_config
from vswin.config.load import save_config
from vswin.config.schema import TrainConfig
from vswin.inference.model import LoadedModel, find_protocol, open_model
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.tools.export import run_export
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

NAMES = ["wave", "jump rope", "Größe"]
GRAY_STEP = 6

WriteRamp = Callable[..., str]


@pytest.fixture(scope="session")
def write_ramp() -> WriteRamp:
    """Writes a lossless video whose frame t has gray level 6 t + 3; sizes may be odd."""

    def write(path: Path, num_frames: int, height: int = 48, width: int = 64, rate: float = 10) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=Fraction(rate))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
            for number in range(num_frames):
                image = np.full((height, width, 3), (GRAY_STEP * number + 3) % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return str(path)

    return write


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """Makes the folder of a run: 4 frames, one in 2, of 32 px, tested on 2 x 3 views; three classes."""
    folder = tmp_path_factory.mktemp("runs") / "a run, with = in it"
    config = compose_config(
        "train",
        [
            *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"),
            *("dataset=folder", "dataset.root=nowhere", "clip.num_frames=4", "clip.resize=40", "clip.crop=32"),
            *("clip.num_clips=2", "clip.views_per_step=4"),
        ],
        TrainConfig,
    )
    keras.utils.set_random_seed(1)
    model = vswin.build_model(configured_size(config.model), num_classes=len(NAMES))
    # A new head gives all classes nearly the same probability.
    model.head.linear.kernel.assign(100 * model.head.linear.kernel)
    (folder / "checkpoints").mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    metadata = {"size": vars(configured_size(config.model)), "class_names": NAMES, "clip": vars(config.clip)}
    save_checkpoint(folder / "checkpoints" / "best.safetensors", official_tensors(model), metadata)
    return folder


@pytest.fixture(scope="session")
def exported(run_folder, tmp_path_factory) -> Path:
    """Exports the run, for clips of 8 frames of 48 px."""
    folder = tmp_path_factory.mktemp("exports") / "exported"
    run_export(str(run_folder), folder, num_frames=8, crop=48)
    return folder


@pytest.fixture(scope="session")
def loaded(run_folder) -> LoadedModel:
    """Opens the run as `vswin predict` does."""
    return open_model(str(run_folder), find_protocol(str(run_folder)))


@pytest.fixture(scope="session")
def model(run_folder) -> VideoSwin:
    """Builds the model of the run with the public functions."""
    size = vswin.models.zoo.ModelSize(8, (1, 1), (1, 2), window_size=(2, 2, 3))
    return vswin.build_model(size, num_classes=len(NAMES), weights=run_folder)
