import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import vswin
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize
from vswin.tools.export import Facts, describe_export, export_onnx, export_tflite, float32_copy

# 40 pixels make grids of 10 and 5 tokens a side, which windows of 3 x 4 tokens do not divide.
SMALL = ModelSize(8, (2, 1), (1, 2), window_size=(2, 3, 4), init_std=0.3)
NAMES = ["wave", "jump rope", "Größe", "sit", "stand"]
NUM_FRAMES, SIZE = 6, 40
# TensorFlow's interpreter will move to the package ai_edge_litert; until then this one is available.
INTERPRETER_MOVES = r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"


@pytest.fixture(scope="module")
def model() -> VideoSwin:
    keras.utils.set_random_seed(0)
    model = vswin.build_model(SMALL, num_classes=len(NAMES))
    # A new head gives all classes nearly the same probability.
    model.head.linear.kernel.assign(100 * model.head.linear.kernel)
    return model


def make_clips(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, NUM_FRAMES, SIZE, SIZE, 3), np.uint8)


def assert_equal_probabilities(actual: np.ndarray, model: VideoSwin, clips: np.ndarray) -> None:
    expected = tf.nn.softmax(model(clips)).numpy()
    assert expected.max() > 0.4
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_a_description_says_what_a_stranger_must_know(model):
    described = json.loads(json.dumps(describe_export(model, Facts(NAMES, NUM_FRAMES, SIZE, "outputs/run"))))
    assert ModelSize.from_fields(described.pop("size")) == SMALL
    assert described == {
        "vswin_version": vswin.__version__,
        "model": None,
        "num_classes": 5,
        "class_names": NAMES,
        "source_weights": "outputs/run",
        "num_frames": NUM_FRAMES,
        "crop": SIZE,
        "clip": None,
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
    }


def test_a_description_names_a_known_size():
    described = describe_export(vswin.build_model("swin_micro", num_classes=3), Facts())
    assert (described["model"], described["class_names"], described["source_weights"]) == ("swin_micro", None, None)


@pytest.mark.parametrize("class_names", [[], NAMES[:4]])
def test_class_names_must_be_as_many_as_classes(model, class_names):
    with pytest.raises(InputError, match=f"{len(class_names)} class names for a model of 5 classes"):
        describe_export(model, Facts(class_names))


@pytest.mark.parametrize(("num_frames", "size"), [(0, 224), (32, 0)])
def test_a_clip_must_not_be_empty(model, num_frames, size):
    with pytest.raises(InputError, match=f"num_frames={num_frames}, size={size}: a clip has at least"):
        describe_export(model, Facts(NAMES, num_frames, size))


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
    facts = Facts(NAMES, NUM_FRAMES, SIZE, source_weights="outputs/run")
    path = export_tflite(model, tmp_path / "new" / "model.tflite", facts)
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
    path = export_onnx(model, tmp_path / "new" / "model.onnx", Facts(NAMES, NUM_FRAMES, SIZE))
    session = onnxruntime.InferenceSession(str(path))
    clips = make_clips(3)
    for batch in (clips, clips[:1]):
        (probabilities,) = session.run(["probabilities"], {"clips": batch})
        assert_equal_probabilities(probabilities, model, batch)
    described = json.loads(session.get_modelmeta().custom_metadata_map["vswin"])
    assert (described["class_names"], described["num_frames"]) == (NAMES, NUM_FRAMES)


@pytest.mark.parametrize("name", ["model.tflite", "model.tflite.json"])
def test_neither_of_the_two_files_is_overwritten(model, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} exists; name another file"):
        export_tflite(model, tmp_path / "model.tflite", Facts(NAMES, NUM_FRAMES, SIZE))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
