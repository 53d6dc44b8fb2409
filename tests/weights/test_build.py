import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, count_parameters
from vswin.weights.build import build_from, check_weights
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint, write_safetensors
from vswin.weights.load import load_weights
from vswin.weights.names import official_tensors
from vswin.weights.published import published_models

SMALL = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))
COUNTS = json.loads((Path(__file__).parents[1] / "parity" / "param_counts.json").read_text())


@pytest.fixture
def checkpoint(tmp_path):
    model = vswin.build_model(SMALL, num_classes=5)
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    save_checkpoint(path, official_tensors(model), {"num_classes": 5})
    return model, path


def test_build_by_name():
    model = vswin.build_model("swin_micro", num_classes=5)
    assert model(np.zeros((2, 8, 64, 32, 3), np.uint8)).shape == (2, 5)
    assert (model.size, model.num_classes, model.dropout) == (SIZES["swin_micro"], 5, 0.5)


@pytest.mark.parametrize("size", [SIZES["swin_micro"], SMALL, ModelSize(8, (2, 1), (1, 2), (4, 3, 3), (1, 2, 4), 2.5)])
def test_parameters_are_the_counted_ones(size):
    assert vswin.build_model(size, num_classes=7).count_params() == count_parameters(size, 7)


def test_swin_tiny_has_the_published_number_of_parameters_and_names():
    count = COUNTS["swin_tiny_patch244_window877_kinetics400_1k"]
    model = vswin.build_model("swin_tiny")
    assert model.count_params() == count["total"]
    assert model.backbone.count_params() == count["backbone"]


@pytest.mark.slow
@pytest.mark.parametrize("published", published_models(), ids=lambda model: model.name)
def test_every_published_model_has_its_number_of_parameters(published):
    model = vswin.build_model(published.size, published.num_classes)
    assert model.count_params() == COUNTS[published.name]["total"]
    assert model.backbone.count_params() == COUNTS[published.name]["backbone"]


def test_weights_from_a_file_and_from_a_run_folder(checkpoint):
    model, path = checkpoint
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 24, 3), np.uint8)
    for weights in (path, str(path), path.parents[1]):
        twin = vswin.build_model(SMALL, num_classes=5, weights=weights)
        np.testing.assert_array_equal(twin(clips), model(clips))


def test_head_of_another_size_is_refused_or_reported(checkpoint):
    model, path = checkpoint
    with pytest.raises(InputError, match=r"best\.safetensors.*cls_head\.fc_cls\.weight.*num_classes"):
        vswin.build_model(SMALL, num_classes=6, weights=path)
    other = vswin.build_model(SMALL, num_classes=6)
    report = load_weights(other, open_checkpoint(path), reset_head=True)
    row = "  re-initialised    2  a head of 5 classes, for 6: cls_head.fc_cls.weight, cls_head.fc_cls.bias"
    assert row in str(report).splitlines()
    clips = np.zeros((2, 4, 16, 24, 3), np.uint8)
    np.testing.assert_array_equal(other.features(clips), model.features(clips))


def test_a_published_name_is_taken_from_the_folder_of_weights(tmp_path, monkeypatch):
    """By the name of the official file, the name in the literature and the name on the TF-Hub page."""
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path / "cache"))
    model = vswin.build_model("swin_micro", num_classes=600)
    write_safetensors(tmp_path / "swin_base_patch244_window877_kinetics600_22k.pth", official_tensors(model), {})
    for name in ("swin_base_patch244_window877_kinetics600_22k", "swin_base_patch244_window877_kinetics600_1k"):
        check_weights(name)
        twin, _ = build_from(name)
        assert (twin.size, twin.num_classes) == (SIZES["swin_micro"], 600)
        np.testing.assert_array_equal(twin.head.linear.kernel, model.head.linear.kernel)


def test_a_published_kinetics_model_knows_its_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path))
    model = vswin.build_model("swin_micro", num_classes=400)
    write_safetensors(tmp_path / "swin_tiny_patch244_window877_kinetics400_1k.pth", official_tensors(model), {})
    names = build_from("swin_tiny_patch244_window877_kinetics400_1k")[1]
    assert (len(names), names[0]) == (400, "abseiling")


def test_a_wrong_name_brings_the_nearest():
    with pytest.raises(InputError, match=r"no such file.*window877_kinetics400_1k.*init_from=null"):
        check_weights("swin_tiny_patch244_window877_kinetics400")
    with pytest.raises(InputError, match="swin_micro"):
        vswin.build_model("swin_mikro")


def test_weights_without_a_head_or_a_known_network_build_nothing_by_themselves(tmp_path, checkpoint):
    _, path = checkpoint
    with pytest.raises(InputError, match="they fit no known size"):
        build_from(path)
    assert build_from(path, SMALL)[0].num_classes == 5
    headless = {name: t for name, t in vswin.read_checkpoint(path).items() if not name.startswith("cls_head")}
    write_safetensors(tmp_path / "headless.safetensors", headless, {})
    with pytest.raises(InputError, match="there is no head in them"):
        build_from(tmp_path / "headless.safetensors", SMALL)


def test_building_inside_a_strategy_mirrors_the_variables():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = vswin.build_model(SMALL, num_classes=5)
    assert all(isinstance(weight, tf.distribute.DistributedValues) for weight in model.trainable_variables)
