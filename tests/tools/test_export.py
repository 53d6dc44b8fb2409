import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize
from vswin.runtime import start_log
from vswin.tools.export import (
    Metadata,
    convert,
    export_onnx,
    export_saved_model,
    export_tflite,
    float32_copy,
    run_export,
)
from vswin.weights.build import build_from
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint
from vswin.weights.names import named_weights, official_tensors

# 40 pixels make grids of 10 and 5 tokens a side, which windows of 3 x 4 tokens do not divide.
SMALL = ModelSize(8, (2, 1), (1, 2), window_size=(2, 3, 4), drop_path_rate=0.5, init_std=0.3)
NAMES = ["wave", "jump rope", "Größe", "sit", "stand"]
NUM_FRAMES, SIZE = 6, 40
METADATA = Metadata(NAMES, NUM_FRAMES, SIZE, source_weights="outputs/run")
# TensorFlow's interpreter will move to the package ai_edge_litert; until then this one is available.
INTERPRETER_MOVES = r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
SMALLEST = ModelSize(4, (1,), (1,), window_size=(1, 1, 1))

# How others use the folder: only TensorFlow, in a separate process.
STRANGER = """
import json, sys
import numpy as np
import tensorflow as tf

folder, data = sys.argv[1:]
arrays = np.load(data)
loaded = tf.saved_model.load(folder)
results = {"called": loaded(arrays["x"]), "training": loaded(arrays["x"], training=True)}
results["served"] = loaded.signatures["serving_default"](input_1=tf.constant(arrays["x"]))["output_1"]
for key in ("clips", "long_clips"):
    clips = tf.constant(arrays[key])
    for name in ("features", "probabilities"):
        results[f"{name} of {key}"] = loaded.signatures[name](clips=clips)[name]
with tf.GradientTape() as tape:
    loss = tf.reduce_sum(loaded(arrays["x"]) ** 2)
for i, gradient in enumerate(tape.gradient(loss, loaded.trainable_variables)):
    results[f"gradient {i}"] = gradient
np.savez(data + ".out.npz", **{key: np.asarray(value) for key, value in results.items()})
ours = {name for name in sys.modules if name.split(".")[0] in ("vswin", "tf_keras")}
assert not ours, ours
"""


@pytest.fixture(scope="module")
def model() -> VideoSwin:
    keras.utils.set_random_seed(0)
    model = vswin.build_model(SMALL, num_classes=len(NAMES))
    # A new head gives all classes nearly the same probability.
    model.head.linear.kernel.assign(100 * model.head.linear.kernel)
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("export") / "new" / "saved_model"
    export_saved_model(model, target, METADATA)
    return target


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((3, 3, NUM_FRAMES, SIZE, SIZE)).astype(np.float32),
        "clips": rng.integers(0, 256, (2, 4, 24, 36, 3), np.uint8),
        "long_clips": rng.integers(0, 256, (1, 7, 44, 20, 3), np.uint8),
    }


@pytest.fixture(scope="module")
def stranger(folder, arrays, tmp_path_factory) -> dict[str, np.ndarray]:
    data = tmp_path_factory.mktemp("stranger") / "data.npz"
    np.savez(data, **arrays)
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", STRANGER, str(folder), str(data)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=data.parent, env=environment)
    assert result.returncode == 0, result.stderr
    return dict(np.load(f"{data}.out.npz"))


def channels_first_features(model: VideoSwin, x: np.ndarray) -> tf.Tensor:
    return tf.transpose(model.backbone(np.moveaxis(x, 1, -1)), [0, 4, 1, 2, 3])


def assert_close(actual, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


def test_called_without_vswin_it_computes_the_features_of_the_model(stranger, model, arrays):
    expected = channels_first_features(model, arrays["x"])
    assert expected.shape == (3, 16, 3, 5, 5)
    for name in ("called", "served"):
        assert stranger[name].dtype == np.float32
        assert_close(stranger[name], expected)


def test_the_call_with_training_drops_paths(stranger):
    assert stranger["training"].shape == stranger["called"].shape
    assert np.abs(stranger["training"] - stranger["called"]).max() > 0.1


@pytest.mark.parametrize("key", ["clips", "long_clips"])
def test_signatures_take_bytes_of_any_length_and_size(stranger, model, arrays, key):
    assert_close(stranger[f"features of {key}"], model.features(arrays[key]))
    probabilities = stranger[f"probabilities of {key}"]
    assert_close(probabilities, tf.nn.softmax(model(arrays[key])))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_gradients_without_vswin_are_those_of_the_model(stranger, model, arrays):
    backbone = [variable for name, variable in named_weights(model).items() if name.startswith("backbone.")]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(channels_first_features(model, arrays["x"]) ** 2)
    for i, gradient in enumerate(tape.gradient(loss, backbone)):
        assert_close(stranger[f"gradient {i}"], gradient, tolerance=1e-4)


def test_the_loaded_object_has_what_a_hub_layer_reads(folder, model):
    loaded = tf.saved_model.load(str(folder))
    backbone = [variable for name, variable in named_weights(model).items() if name.startswith("backbone.")]
    for variables in (loaded.variables, loaded.trainable_variables):
        assert len(variables) == len(backbone) == 48
        for variable, expected in zip(variables, backbone, strict=True):
            assert variable.trainable
            np.testing.assert_array_equal(variable, expected)
    assert list(loaded.regularization_losses) == []
    assert list(loaded.weights) == list(named_weights(model))
    np.testing.assert_array_equal(loaded.weights["cls_head.fc_cls.weight"], model.head.linear.kernel)


def test_signatures_state_their_shapes(folder):
    signatures = tf.saved_model.load(str(folder)).signatures
    assert sorted(signatures) == ["features", "probabilities", "serving_default"]
    served = signatures["serving_default"]
    assert served.structured_input_signature[1]["input_1"].shape.as_list() == [None, 3, NUM_FRAMES, SIZE, SIZE]
    assert served.structured_outputs["output_1"].shape.as_list() == [None, 16, 3, 5, 5]
    for name, shape in (("features", [None, None, None, None, 16]), ("probabilities", [None, len(NAMES)])):
        clips = signatures[name].structured_input_signature[1]["clips"]
        assert (clips.dtype, clips.shape.as_list()) == (tf.uint8, [None, None, None, None, 3])
        assert signatures[name].structured_outputs[name].shape.as_list() == shape


def test_assets_name_the_classes_and_say_what_the_model_is(folder):
    loaded = tf.saved_model.load(str(folder))
    for asset, name in ((loaded.classes, "classes.txt"), (loaded.vswin, "vswin.json")):
        assert Path(asset.asset_path.numpy().decode()) == folder / "assets" / name
    assert (folder / "assets" / "classes.txt").read_text(encoding="utf-8").splitlines() == NAMES
    described = json.loads((folder / "assets" / "vswin.json").read_text(encoding="utf-8"))
    assert ModelSize.from_fields(described.pop("size")) == SMALL
    assert described == {
        **{"vswin_version": vswin.__version__, "model": None, "num_classes": 5, "class_names": NAMES},
        **{"source_weights": "outputs/run", "num_frames": NUM_FRAMES, "crop": SIZE, "clip": None},
        **{"task": "single_label", "thresholds": None},
        **{"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
    }


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (Metadata([]), "0 class names for a model of 5 classes"),
        (Metadata(NAMES[:4]), "4 class names for a model of 5 classes"),
        (Metadata(NAMES, 0, 224), "num_frames=0, size=224: a clip has at least"),
        (Metadata(NAMES, 32, 0), "num_frames=32, size=0: a clip has at least"),
    ],
)
def test_metadata_that_do_not_fit_the_model_are_refused(model, metadata, words):
    with pytest.raises(InputError, match=words):
        metadata.describe(model)


def test_an_export_holds_the_weights_once_and_no_path_of_this_machine(folder, model):
    held = sum(variable.numpy().nbytes for variable in model.variables)
    assert (folder / "variables" / "variables.data-00000-of-00001").stat().st_size < held + 30_000
    assert str(Path(vswin.__file__).parents[1]).encode() not in (folder / "saved_model.pb").read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == ["saved_model"]


@pytest.mark.parametrize(
    ("output", "taken", "words"),
    [
        ("a", "a", "a exists and is not an empty folder; name another"),
        ("a", "a/notes.txt", "a exists and is not an empty folder; name another"),
        ("a.onnx", "a.onnx", "a.onnx exists; name another file"),
        ("a.tflite", "a.tflite", "a.tflite exists; name another file"),
    ],
)
def test_outputs_that_exist_are_refused_before_the_weights_are_looked_for(tmp_path, output, taken, words):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match=words):
        run_export("weights", tmp_path / output)
    with pytest.raises(InputError, match=r"'saved_model': did you mean 'savedmodel'.* tflite, onnx"):
        run_export("weights", tmp_path / "new", "saved_model")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    model = vswin.build_model(SMALLEST, num_classes=5)
    target = tmp_path / "saved_model"
    target.mkdir()

    def fail(exported, folder, signatures):
        (Path(folder) / "variables").mkdir(parents=True)
        raise OSError("no space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(model, target, METADATA)
    assert list(tmp_path.rglob("*")) == [target]


@pytest.fixture
def run_folder(tmp_path) -> Path:
    model = vswin.build_model(SMALLEST, num_classes=5)
    metadata = {"size": dataclasses.asdict(SMALLEST), "num_classes": 5, "class_names": NAMES}
    save_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors", official_tensors(model), metadata)
    return tmp_path / "run"


def test_a_run_is_exported_in_float32_whatever_the_policy(run_folder, tmp_path, capsys):
    expected = vswin.build_model(SMALLEST, num_classes=5, weights=run_folder)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    start_log(None)
    run_export(str(run_folder), tmp_path / "new", "savedmodel", None, 4, 16)
    assert f"wrote {tmp_path / 'new'}, 0." in capsys.readouterr().out
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 16, 16)).astype(np.float32)
    assert_close(loaded(x), channels_first_features(expected, x))
    assert {variable.dtype for variable in loaded.weights.values()} == {tf.float32}
    described = json.loads((tmp_path / "new" / "assets" / "vswin.json").read_text(encoding="utf-8"))
    assert (described["class_names"], described["source_weights"]) == (NAMES, str(run_folder))


def test_without_tf2onnx_the_error_names_the_extra(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(InputError, match=r"needs the package tf2onnx: pip install 'vswin\[onnx\]'"):
        run_export(str(run_folder), tmp_path / "model.onnx", "onnx")


def make_clips(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, NUM_FRAMES, SIZE, SIZE, 3), np.uint8)


def assert_equal_probabilities(actual: np.ndarray, model: VideoSwin, clips: np.ndarray) -> None:
    expected = tf.nn.softmax(model(clips)).numpy()
    assert expected.max() > 0.4
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_of_another_precision_is_copied_in_float32(policy):
    clips = make_clips(2)
    keras.mixed_precision.set_global_policy(policy)
    half = vswin.build_model(SMALL, num_classes=5, remat=True)
    copy = float32_copy(half)
    assert {layer.compute_dtype for layer in copy.submodules if isinstance(layer, keras.layers.Layer)} == {"float32"}
    assert half.compute_dtype == policy.removeprefix("mixed_")
    assert not copy.backbone.remat
    logits = copy(clips)
    keras.mixed_precision.set_global_policy("float32")
    twin = vswin.build_model(SMALL, num_classes=5)
    for variable, source in zip(twin.variables, half.variables, strict=True):
        variable.assign(source)
    np.testing.assert_array_equal(logits, twin(clips))


@pytest.mark.filterwarnings(INTERPRETER_MOVES)
def test_a_tflite_file_needs_builtin_operators_alone(model, tmp_path):
    path = tmp_path / "new" / "model.tflite"
    export_tflite(model, path, METADATA)
    assert b"Flex" not in path.read_bytes()
    clips = make_clips(1)
    classify = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    assert_equal_probabilities(classify(clips=clips)["probabilities"], model, clips)
    described = json.loads((tmp_path / "new" / "model.tflite.json").read_text(encoding="utf-8"))
    assert (described["class_names"], described["source_weights"]) == (NAMES, "outputs/run")
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.tflite", "model.tflite.json"]


@pytest.mark.slow
def test_an_onnx_file_takes_any_batch(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs vswin[onnx] and onnxruntime")
    pytest.importorskip("tf2onnx", reason="needs vswin[onnx]")
    path = tmp_path / "new" / "model.onnx"
    export_onnx(model, path, METADATA)
    session = onnxruntime.InferenceSession(str(path))
    clips = make_clips(3)
    for batch in (clips, clips[:1]):
        (probabilities,) = session.run(["probabilities"], {"clips": batch})
        assert_equal_probabilities(probabilities, model, batch)
    described = json.loads(session.get_modelmeta().custom_metadata_map["vswin"])
    assert (described["class_names"], described["num_frames"]) == (NAMES, NUM_FRAMES)


def test_the_description_beside_a_tflite_file_is_not_overwritten(model, tmp_path):
    (tmp_path / "model.tflite.json").write_text("mine")
    with pytest.raises(InputError, match=r"model\.tflite\.json exists; name another file"):
        export_tflite(model, tmp_path / "model.tflite", METADATA)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.tflite.json", "mine")]


CONVERTED = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))


@pytest.fixture
def checkpoint(tmp_path) -> VideoSwin:
    """Writes a.h5, with classes and a note; returns its model."""
    model = vswin.build_model(CONVERTED, num_classes=5)
    metadata = {"size": dataclasses.asdict(CONVERTED), "class_names": NAMES, "val_top1": 0.5}
    save_checkpoint(tmp_path / "a.h5", official_tensors(model), metadata)
    return model


@pytest.mark.parametrize("outputs", [("b.safetensors", "c.h5"), ("b", "c.h5"), ("b.h5", "c")])
def test_weights_classes_and_network_survive_two_conversions(tmp_path, checkpoint, outputs):
    first, second = (tmp_path / name for name in outputs)
    convert(str(tmp_path / "a.h5"), first)
    convert(str(first), second)
    twin, class_names = build_from(second)
    assert (twin.size, class_names) == (CONVERTED, NAMES)
    for name, tensor in official_tensors(checkpoint).items():
        np.testing.assert_array_equal(official_tensors(twin)[name], tensor)
    if first.suffix == ".safetensors":
        assert open_checkpoint(first).metadata["val_top1"] == 0.5


def test_conversions_that_cannot_be_are_refused_before_anything_is_written(tmp_path, checkpoint):
    with pytest.raises(InputError, match=r"b\.onnx: the ending says the format"):
        convert(str(tmp_path / "a.h5"), tmp_path / "b.onnx")
    (tmp_path / "b.h5").write_text("precious")
    with pytest.raises(InputError, match=r"b\.h5 exists"):
        convert(str(tmp_path / "a.h5"), tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]
