"""Fixtures shared by several folders: models whose weights follow the formula of the golden values."""

import vswin  # first, since it decides which Keras other libraries get from TensorFlow

# isort: split

import copy
import dataclasses
import itertools
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hypothesis import HealthCheck, settings

from vswin.config.compose import compose_config
from vswin.config.load import CONFIG_DIR, from_run, load_config
from vswin.config.schema import AugmentConfig, EvaluateConfig, TrainConfig
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize
from vswin.weights.build import assign_weights
from vswin.weights.names import official_tensors

PARITY = Path(__file__).parent / "parity"

# The second device is for `runtime.strategy=mirrored`; everything else uses only the first.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


# No test measures time, and Hypothesis calls an input slow after one second without the processor.
settings.register_profile("loaded machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded machine")

# A shell that starts the tests in the background makes them, and the runs they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _restore_precision():
    """Resets the precision policy for the next test."""
    yield
    keras.mixed_precision.set_global_policy("float32")


_collective_key_bases = itertools.count(100, 100)


@pytest.fixture(autouse=True)
def _forget_collectives(monkeypatch):
    """Lets models of other sizes use several devices: TensorFlow remembers the sizes of collectives by their keys."""
    monkeypatch.setattr(tf.distribute.MirroredStrategy, "_collective_key_base", next(_collective_key_bases))


@pytest.fixture
def compose_train() -> Callable[..., TrainConfig]:
    """Composes the configuration of `python train.py OVERRIDE ...`."""

    def composed(*overrides: str) -> TrainConfig:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return load_config(compose("train", list(overrides)), TrainConfig)

    ConfigStore.instance().store("train_schema", TrainConfig)
    return composed


@pytest.fixture
def compose_evaluate() -> Callable[..., EvaluateConfig]:
    """Composes the configuration of `python evaluate.py OVERRIDE ...`."""

    def composed(*overrides: str) -> EvaluateConfig:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return load_config(from_run(compose("evaluate", list(overrides)), overrides), EvaluateConfig)

    ConfigStore.instance().store("evaluate_schema", EvaluateConfig)
    return composed


@cache
def _composed() -> TrainConfig:
    return compose_config("train", ["dataset=folder", "augment=none"], TrainConfig)


def make_group(group: str, **changes: object) -> Any:
    """Copies a group of `train.py dataset=folder augment=none` with changes, e.g. `make_group("clip", crop=32)`."""
    return dataclasses.replace(copy.deepcopy(getattr(_composed(), group)), **changes)


def spread(ranked: np.ndarray, values: np.ndarray, num_classes: int) -> np.ndarray:
    """Makes probabilities of all classes, float32 [N, K], from the best ones; a best class of -1 gives NaN."""
    probabilities = np.zeros((len(ranked), num_classes), np.float32)
    np.put_along_axis(probabilities, np.maximum(ranked, 0), np.asarray(values, np.float32), axis=1)
    probabilities[ranked[:, 0] < 0] = np.nan
    return probabilities


@pytest.fixture(scope="session")
def make_augment() -> Callable[..., AugmentConfig]:
    """Makes an augmentation that only does what it is given, e.g. `make_augment(flip=0.5)`."""
    return partial(make_group, "augment")


@pytest.fixture
def small_videos(tmp_path: Path) -> Path:
    """Makes real files in two folders, `bright` and `dark`: 6 videos each, 12 frames of 48 x 40."""
    root = tmp_path / "videos"
    for label, level in (("bright", 200), ("dark", 40)):
        (root / label).mkdir(parents=True)
        for i in range(6):
            writer = cv2.VideoWriter(str(root / label / f"{i}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(12):
                writer.write(np.full((40, 48, 3), level + 4 * i + t, np.uint8))
            writer.release()
    return root


@pytest.fixture(scope="session")
def golden_cases() -> list[dict]:
    """Reads the network, seeds and input shape of each golden forward pass."""
    return json.loads((PARITY / "model.json").read_text())


@pytest.fixture(scope="session")
def golden_model(golden_cases: list[dict]) -> Callable[[str], VideoSwin]:
    """Builds a new model with the golden weights: `golden_model("tiny_w433")`."""

    def build(name: str) -> VideoSwin:
        case = next(case for case in golden_cases if case["model"] == name)
        size = ModelSize.from_fields(
            {key: case[key] for key in ("embed_dim", "depths", "num_heads", "patch_size", "window_size")}
        )
        model = vswin.build_model(size, num_classes=case["classes"])
        assign_weights(model, formula_weights(model, case["weights_seed"]), reset_head=False)
        return model

    return build


def formula_weights(model: VideoSwin, seed: int) -> dict[str, np.ndarray]:
    """Draws weights under official names and in official layout, in sorted order, as for the golden values."""
    rng = np.random.RandomState(seed)
    tensors = {}
    for name, tensor in sorted(official_tensors(model).items()):
        values = rng.standard_normal(tensor.shape)
        if name.endswith("norm.weight") or ".norm1.weight" in name or ".norm2.weight" in name:
            values = 1 + 0.1 * values
        elif name.endswith("bias"):
            values = 0.1 * values
        elif "bias_table" in name:
            values = 0.5 * values
        else:
            values = values / np.sqrt(np.prod(tensor.shape[1:]))
        tensors[name] = values.astype(np.float32)
    return tensors


@dataclass(frozen=True)
class WandbSession:
    """Holds the protocol messages that an offline wandb session would upload, in order."""

    records: list[Any]

    def of(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    @property
    def run(self) -> Any:
        (run,) = {run.run_id: run for run in self.of("run")}.values()
        return run

    @property
    def config(self) -> dict[str, Any]:
        return _values(item for config in (self.run.config, *self.of("config")) for item in config.update)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [_values(row.item) for row in self.of("history")]

    @property
    def summary(self) -> dict[str, Any]:
        return _values(item for summary in self.of("summary") for item in summary.update)

    @property
    def artifacts(self) -> list[Any]:
        """Returns the artifacts passed to `log_artifact`, without the tables that wandb stores as its own artifacts."""
        artifacts = [request.log_artifact.artifact for request in self.of("request")]
        return [artifact for artifact in (*self.of("artifact"), *artifacts) if artifact.type == "model"]

    @property
    def exit_code(self) -> int:
        (end,) = self.of("exit")
        return end.exit_code


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture
def wandb_offline(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], list[WandbSession]]]:
    """Hides the user's wandb account; the yielded function ends wandb and reads a run's sessions in order of time."""
    import wandb

    # wandb replaces these functions and never restores them.
    for name in ("exit", "excepthook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    if find_spec("git") is not None:
        # wandb for TensorFlow 2.15 asks for the commit through GitPython, which leaves open pipes to the garbage
        # collector; any later test would get the warning. This variable avoids that.
        monkeypatch.setenv("WANDB_GIT_COMMIT", "0" * 40)
    for name, value in {"HOME": home, "NETRC": home / "netrc", "WANDB_CONFIG_DIR": home / "wandb"}.items():
        monkeypatch.setenv(name, str(value))
    wandb.teardown()

    def read(folder: Path) -> list[WandbSession]:
        # wandb's process writes the last records while it ends.
        wandb.teardown()
        files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
        return [WandbSession(list(_read_records(path))) for path in files]

    yield read
    wandb.teardown()


def _read_records(path: Path) -> Iterator[Any]:
    """Yields the records of a file in LevelDB's log format; a killed session may have cut off the last one."""
    from wandb.proto.wandb_internal_pb2 import Record

    block_bytes, header_bytes, full, last = 32 * 1024, 7, 1, 4
    contents = path.read_bytes()
    assert contents[:4] == b":W&B"
    position, parts = header_bytes, b""
    while position + header_bytes <= len(contents):
        left = block_bytes - position % block_bytes
        if left < header_bytes:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", contents, position)
        position += header_bytes
        if position + size > len(contents):
            return
        parts += contents[position : position + size]
        position += size
        if kind in (full, last):
            yield Record.FromString(parts)
            parts = b""
