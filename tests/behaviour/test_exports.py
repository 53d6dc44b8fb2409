"""Exports of every format return what the model returns, in the shape of the run's clips."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.cli import main
from vswin.config.compose import compose_config
from vswin.config.load import save_config
from vswin.config.schema import TrainConfig
from vswin.models.zoo import ModelSize
from vswin.tools.export import Metadata, export_onnx, export_saved_model, export_tflite
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

INTERPRETER_MOVES = r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
TINY = ModelSize(8, (1, 1), (1, 2), window_size=(2, 2, 3))
# The width of swin_tiny; a window that moves in the first stage alone.
WIDE = ModelSize(96, (2, 1, 1, 1), (3, 6, 12, 24))
pytestmark = pytest.mark.filterwarnings(INTERPRETER_MOVES)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """Makes the folder of a run on clips of 4 x 32 x 32."""
    network = ("embed_dim=8", "depths=[1,1]", "num_heads=[1,2]", "window_size=[2,2,3]")
    clip = ("num_frames=4", "frame_stride=2", "resize=36", "crop=32")
    settings = (*(f"model.{setting}" for setting in network), *(f"clip.{setting}" for setting in clip))
    config = compose_config("train", [*settings, "dataset=folder", "dataset.root=nowhere"], TrainConfig)
    folder = tmp_path_factory.mktemp("runs") / "run"
    metadata = {"size": vars(TINY), "class_names": ["bright", "dark"], "clip": vars(config.clip)}
    save_checkpoint(folder / "checkpoints" / "best.safetensors", official_tensors(vswin.build_model(TINY, 2)), metadata)
    save_config(config, folder / "config.yaml")
    return folder


@pytest.fixture
def call(monkeypatch) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
        main()

    return run


def build(size: str | ModelSize) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = vswin.build_model(size, num_classes=7)
    # A new head gives all classes nearly the same probability.
    model.head.linear.kernel.assign(30 * model.head.linear.kernel)
    return model


def assert_classifies_as(model: keras.Model, path: Path, num_frames: int, size: int) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (1, num_frames, size, size, 3), np.uint8)
    expected = tf.nn.softmax(model(clips)).numpy()
    assert expected.max() < 0.9999
    if path.suffix == ".tflite":
        classify = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
        actual = classify(clips=clips)["probabilities"]
    elif path.suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs vswin[onnx] and onnxruntime")
        (actual,) = onnxruntime.InferenceSession(str(path)).run(["probabilities"], {"clips": clips})
    else:
        actual = tf.saved_model.load(str(path)).signatures["probabilities"](clips=tf.constant(clips))["probabilities"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


# Attention takes so many windows in chunks.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("export", "size", "name", "num_frames"),
    [
        (export_saved_model, "swin_micro", "m", 16),
        (export_tflite, "swin_tiny", "m.tflite", 32),
        (export_onnx, WIDE, "m.onnx", 16),
    ],
)
def test_every_format_at_the_sizes_of_published_models(tmp_path, export, size, name, num_frames):
    if export is export_onnx:
        pytest.importorskip("tf2onnx", reason="needs vswin[onnx]")
    model = build(size)
    export(model, tmp_path / name, Metadata(num_frames=num_frames))
    assert_classifies_as(model, tmp_path / name, num_frames, 224)


@pytest.mark.parametrize(
    ("name", "flags", "shape"),
    [
        ("m.tflite", [], (4, 32)),
        ("m.tflite", ["--frames", "6", "--size", "40"], (6, 40)),
        ("m.onnx", [], (4, 32)),
    ],
)
def test_an_export_of_a_run_has_the_shape_of_its_clips(tmp_path, run_folder, call, capsys, name, flags, shape):
    num_frames, size = shape
    if name == "m.onnx":
        pytest.importorskip("tf2onnx", reason="needs vswin[onnx]")
    call("export", run_folder, tmp_path / name, *flags)
    assert (
        f"clips have {num_frames} frames of {size} x {size} pixels (protocol of the run in" in capsys.readouterr().out
    )
    assert_classifies_as(vswin.build_model(TINY, 2, run_folder), tmp_path / name, num_frames, size)


def test_convert_takes_the_copy_that_source_names(tmp_path, monkeypatch, call):
    """The copies differ, and the converted weights and classes are those of the second copy."""
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path))
    name = "swin_tiny_patch244_window877_kinetics400_1k"
    files = {"official": f"{name}.pth", "innat": "videoswin_tiny_kinetics400_classifier.weights.h5"}
    for number, file in enumerate(files.values()):
        model = vswin.build_model(TINY, num_classes=400)
        model.head.linear.bias.assign(tf.fill([400], float(number)))
        save_checkpoint(tmp_path / file, official_tensors(model), {"size": vars(TINY)})
    call("convert", name, tmp_path / "converted", "--source", "innat")
    assert vswin.read_checkpoint(tmp_path / "converted")["cls_head.fc_cls.bias"].max() == 1
    assert len((tmp_path / "converted" / "assets" / "classes.txt").read_text().splitlines()) == 400
