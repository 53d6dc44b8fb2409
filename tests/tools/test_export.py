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
from vswin.tools.export import Facts, export_saved_model, run_export
from vswin.weights.files import save_checkpoint
from vswin.weights.names import named_weights, official_tensors

# 40 pixels make grids of 10 and 5 tokens a side, which windows of 3 x 4 tokens do not divide.
SMALL = ModelSize(8, (2, 1), (1, 2), window_size=(2, 3, 4), drop_path_rate=0.5, init_std=0.3)
NAMES = ["wave", "jump rope", "Größe", "sit", "stand"]
NUM_FRAMES, SIZE = 6, 40
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
    assert export_saved_model(model, target, Facts(NAMES, NUM_FRAMES, SIZE, source_weights="outputs/run")) == target
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


@pytest.mark.slow
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


class LoadedLayer(keras.layers.Layer):
    """Behaves like hub.KerasLayer: holds the loaded variables and passes on `training`."""

    def __init__(self, folder: Path):
        super().__init__()
        self.loaded = tf.saved_model.load(str(folder))
        self.own = list(self.loaded.trainable_variables)

    def call(self, x, training=False):
        return self.loaded(x, training=training)


@pytest.mark.slow
def test_a_loaded_export_is_fine_tuned_as_a_layer(folder, arrays):
    keras.utils.set_random_seed(0)
    layer = LoadedLayer(folder)
    inputs = keras.Input(arrays["x"].shape[1:])
    features = layer(inputs)
    assert features.shape.as_list() == [None, 16, 3, 5, 5]
    pooled = tf.reduce_mean(features, axis=[2, 3, 4])
    classifier = keras.Model(inputs, keras.layers.Dense(3)(pooled))
    classifier.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [variable.numpy() for variable in layer.own]
    history = classifier.fit(arrays["x"], np.arange(3), epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert len(layer.trainable_weights) == len(before)
    for variable, old in zip(layer.own, before, strict=True):
        assert np.abs(variable.numpy() - old).max() > 0


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


def test_another_clip_than_the_exported_is_refused_by_the_callable(folder):
    loaded = tf.saved_model.load(str(folder))
    with pytest.raises(ValueError, match="Could not find matching concrete function"):
        loaded(np.zeros((1, 3, NUM_FRAMES, SIZE + 8, SIZE), np.float32))


def test_assets_name_the_classes_and_say_what_the_model_is(folder):
    loaded = tf.saved_model.load(str(folder))
    for asset, name in ((loaded.classes, "classes.txt"), (loaded.vswin, "vswin.json")):
        assert Path(asset.asset_path.numpy().decode()) == folder / "assets" / name
    assert (folder / "assets" / "classes.txt").read_text(encoding="utf-8").splitlines() == NAMES
    described = json.loads((folder / "assets" / "vswin.json").read_text(encoding="utf-8"))
    assert ModelSize.from_fields(described["size"]) == SMALL
    assert (described["class_names"], described["source_weights"]) == (NAMES, "outputs/run")


def test_an_export_holds_the_weights_once_and_no_place_of_this_machine(folder, model):
    held = sum(variable.numpy().nbytes for variable in model.variables)
    assert (folder / "variables" / "variables.data-00000-of-00001").stat().st_size < held + 30_000
    assert str(Path(vswin.__file__).parents[1]).encode() not in (folder / "saved_model.pb").read_bytes()


def test_an_export_is_read_back_as_weights(folder, model):
    tensors = vswin.read_checkpoint(folder)
    expected = official_tensors(model)
    assert sorted(tensors) == sorted(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor)


def test_nothing_is_left_beside_the_export(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["saved_model"]


@pytest.mark.parametrize("content", ["file", "folder"])
def test_what_exists_is_not_overwritten(model, tmp_path, content):
    target = tmp_path / "taken"
    if content == "folder":
        target.mkdir()
    kept = target / "notes.txt" if content == "folder" else target
    kept.write_text("mine")
    with pytest.raises(InputError, match="taken exists and is not an empty folder; name another"):
        export_saved_model(model, target)
    assert kept.read_text() == "mine"


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    model = vswin.build_model(SMALLEST, num_classes=5)
    target = tmp_path / "saved_model"
    target.mkdir()

    def fail(exported, folder, signatures):
        (Path(folder) / "variables").mkdir(parents=True)
        raise OSError("no space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(model, target, Facts(NAMES, NUM_FRAMES, SIZE))
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


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_that_exists_is_not_overwritten(tmp_path, format):
    path = tmp_path / "taken"
    path.write_text("mine")
    with pytest.raises(InputError, match="taken exists; name another file"):
        run_export("weights that are not even looked for", path, format)
    assert path.read_text() == "mine"


def test_an_unknown_format_names_those_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"'saved_model': did you mean 'savedmodel'.* tflite, onnx"):
        run_export("weights", tmp_path / "new", "saved_model")


@pytest.mark.slow
def test_swin_tiny_has_the_interface_of_the_collection(tmp_path):
    model = vswin.build_model("swin_tiny", num_classes=400)
    loaded = tf.saved_model.load(str(export_saved_model(model, tmp_path / "swin_tiny")))
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 224, 224)).astype(np.float32)
    features = loaded(x)
    assert features.shape == (1, 768, 16, 7, 7)
    assert_close(features, channels_first_features(model, x))
    assert (len(loaded.variables), len(loaded.trainable_variables)) == (173 - 2, 173 - 2)
    assert not (tmp_path / "swin_tiny" / "assets" / "classes.txt").exists()
    assert (tmp_path / "swin_tiny" / "saved_model.pb").stat().st_size < 5e6
    assert json.loads((tmp_path / "swin_tiny" / "assets" / "vswin.json").read_text())["model"] == "swin_tiny"
