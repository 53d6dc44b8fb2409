import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, count_parameters
from vswin.weights.build import LoadReport, assign_weights, build_from, check_weights
from vswin.weights.files import save_checkpoint, write_safetensors
from vswin.weights.names import official_tensors

SMALL = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))


@pytest.fixture
def checkpoint(tmp_path):
    model = vswin.build_model(SMALL, num_classes=5)
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    save_checkpoint(path, official_tensors(model), {"num_classes": 5})
    return model, path


@pytest.mark.parametrize("size", [SIZES["swin_micro"], SMALL, ModelSize(8, (2, 1), (1, 2), (4, 3, 3), (1, 2, 4), 2.5)])
def test_parameters_are_the_counted_ones(size):
    assert vswin.build_model(size, num_classes=7).count_params() == count_parameters(size, 7)


def test_weights_from_a_file_and_from_a_run_folder(checkpoint):
    model, path = checkpoint
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 24, 3), np.uint8)
    for weights in (path, str(path), path.parents[1]):
        twin = vswin.build_model(SMALL, num_classes=5, weights=weights)
        np.testing.assert_array_equal(twin(clips), model(clips))


def test_a_published_name_is_taken_from_the_folder_of_weights(tmp_path, monkeypatch):
    """By the name of the official file, the name in the literature and the name on the TF-Hub page."""
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path / "cache"))
    model = vswin.build_model("swin_micro", num_classes=400)
    write_safetensors(tmp_path / "swin_tiny_patch244_window877_kinetics400_1k.pth", official_tensors(model), {})
    classes = build_from("swin_tiny_patch244_window877_kinetics400_1k")[1]
    assert (len(classes), classes[0]) == (400, "abseiling")
    model = vswin.build_model("swin_micro", num_classes=600)
    write_safetensors(tmp_path / "swin_base_patch244_window877_kinetics600_22k.pth", official_tensors(model), {})
    for name in ("swin_base_patch244_window877_kinetics600_22k", "swin_base_patch244_window877_kinetics600_1k"):
        check_weights(name)
        twin, _ = build_from(name)
        assert (twin.size, twin.num_classes) == (SIZES["swin_micro"], 600)
        np.testing.assert_array_equal(twin.head.linear.kernel, model.head.linear.kernel)


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


@pytest.fixture
def model():
    return vswin.build_model(SMALL, num_classes=5)


@pytest.fixture
def tensors(model):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=t.shape).astype("f4") for name, t in official_tensors(model).items()}


def assert_unchanged(model, before):
    for name, tensor in official_tensors(model).items():
        np.testing.assert_array_equal(tensor, before[name])


def test_everything_is_assigned(model, tensors):
    for reset_head in (False, True):
        assert assign_weights(model, tensors, reset_head) == ((), "")
        assert_unchanged(model, tensors)


@pytest.mark.parametrize("change", ["missing", "other size", "weight alone"])
def test_a_head_that_does_not_fit_is_refused_or_left_as_it_was(model, tensors, change):
    before = official_tensors(model)
    if change == "missing":
        del tensors["cls_head.fc_cls.weight"], tensors["cls_head.fc_cls.bias"]
    else:
        tensors["cls_head.fc_cls.weight"] = np.zeros((7, 16), "f4")
    if change == "other size":
        tensors["cls_head.fc_cls.bias"] = np.zeros(7, "f4")
    with pytest.raises(InputError, match=r"cls_head\.fc_cls\.weight.*reset_head=True"):
        assign_weights(model, tensors, reset_head=False)
    assert_unchanged(model, before)

    head = ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")
    reason = "the weights have no head" if change == "missing" else "a head of 7 classes, for 5"
    assert assign_weights(model, tensors, reset_head=True) == (head, reason)
    assert_unchanged(model, tensors | {name: before[name] for name in head})


@pytest.mark.parametrize("reset_head", [False, True])
def test_nothing_is_assigned_unless_everything_fits(model, tensors, reset_head):
    before = official_tensors(model)
    renamed = dict(tensors)
    renamed["backbone.norm3.weight"] = renamed.pop("backbone.norm.weight")
    with pytest.raises(
        InputError, match=r"\.norm\.weight \(16,\) is missing; .*\.norm3\.weight \(16,\) is unknown; .*window_size"
    ):
        assign_weights(model, renamed, reset_head)
    transposed = tensors | {"backbone.layers.0.blocks.0.mlp.fc1.weight": np.zeros((8, 32), "f4")}
    with pytest.raises(InputError, match=r"fc1\.weight is \(8, 32\) and should be \(32, 8\)"):
        assign_weights(model, transposed, reset_head)
    assert_unchanged(model, before)
    with pytest.raises(InputError, match=f"is missing and {len(tensors) - 5} more") as caught:
        assign_weights(model, {}, reset_head=False)
    assert str(caught.value).count("backbone.") == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model, tensors, value):
    before = official_tensors(model)
    tensors["backbone.norm.bias"] = np.full(16, value, "f4")
    with pytest.raises(InputError, match=r"not finite .*: backbone\.norm\.bias;"):
        assign_weights(model, tensors, reset_head=False)
    assert_unchanged(model, before)


def test_a_report_is_a_table_of_what_became_of_the_weights():
    report = LoadReport(
        source="image.pth (image_2d)",
        loaded=("a", "b", "c"),
        inflated=("a",),
        resized=(),
        adapted="from an image network",
        reinitialised=("head.weight", "head.bias"),
        head="the weights have no head",
        ignored=("x", "y", "z"),
    )
    assert str(report).splitlines() == [
        "image.pth (image_2d)",
        "  loaded            3",
        "  inflated          1  from an image network: a",
        "  re-initialised    2  the weights have no head: head.weight, head.bias",
        "  ignored           3  no weights of the model: x, y, ...",
    ]
