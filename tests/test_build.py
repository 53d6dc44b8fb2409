import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.build import load_weights
from vswin.errors import InputError
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors
from vswin.zoo import SIZES, ModelSize, count_parameters, published_models

SMALL = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))
COUNTS = json.loads((Path(__file__).parent / "parity" / "param_counts.json").read_text())


@pytest.fixture
def checkpoint(tmp_path):
    model = vswin.build_model(SMALL, num_classes=5)
    path = tmp_path / "run" / "checkpoints" / "best.h5"
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
    with pytest.raises(InputError, match=r"best\.h5.*cls_head\.fc_cls\.weight.*num_classes"):
        vswin.build_model(SMALL, num_classes=6, weights=path)
    other = vswin.build_model(SMALL, num_classes=6)
    report = load_weights(other, path, reset_head=True)
    assert "re-initialised: cls_head.fc_cls.weight, cls_head.fc_cls.bias" in str(report)
    clips = np.zeros((2, 4, 16, 24, 3), np.uint8)
    np.testing.assert_array_equal(other.features(clips), model.features(clips))


def test_published_names_say_where_the_weights_are_and_what_to_do():
    with pytest.raises(InputError) as caught:
        vswin.build_model(SMALL, weights="swin_base_patch244_window877_kinetics600_1k")
    text = str(caught.value)
    official = "v1.0.4/swin_base_patch244_window877_kinetics600_22k.pth"
    for part in ("cannot read", "init_from=null", "vswin run", official):
        assert part in text


def test_a_wrong_name_brings_the_nearest():
    with pytest.raises(InputError, match=r"no such file.*window877_kinetics400_1k.*init_from=null"):
        vswin.build_model(SMALL, weights="swin_tiny_patch244_window877_kinetics400")
    with pytest.raises(InputError, match="swin_micro"):
        vswin.build_model("swin_mikro")


def test_building_inside_a_strategy_mirrors_the_variables():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = vswin.build_model(SMALL, num_classes=5)
    assert all(isinstance(weight, tf.distribute.DistributedValues) for weight in model.trainable_variables)
