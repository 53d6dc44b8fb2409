from pathlib import Path

import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, official_shapes
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.dialects import IMAGE_2D, OFFICIAL
from vswin.weights.load import LoadReport, adapt, assign_weights
from vswin.weights.names import official_tensors
from vswin.weights.resize_bias import resize_bias_table

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))
NETWORK = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))
TABLE = "backbone.layers.1.blocks.1.attn.relative_position_bias_table"


@pytest.fixture
def model():
    return vswin.build_model(SIZE, num_classes=5)


@pytest.fixture
def tensors(model):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=t.shape).astype("f4") for name, t in official_tensors(model).items()}


def assert_unchanged(model, before):
    for name, tensor in official_tensors(model).items():
        np.testing.assert_array_equal(tensor, before[name])


def test_everything_is_assigned(model, tensors):
    assert assign_weights(model, tensors, reset_head=False) == ((), "")
    assert_unchanged(model, tensors)


def test_a_fitting_head_is_loaded_even_where_it_may_be_reset(model, tensors):
    assert assign_weights(model, tensors, reset_head=True) == ((), "")
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


def test_a_long_list_shows_five_and_the_count(model, tensors):
    count = len(tensors)
    with pytest.raises(InputError, match=f"is missing and {count - 5} more") as caught:
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


def make(size: ModelSize, num_classes: int | None = 5, dialect: str = OFFICIAL, metadata=None) -> Checkpoint:
    rng = np.random.default_rng(0)
    shapes = official_shapes(size, num_classes)
    tensors = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    return Checkpoint(Path("a.pth"), dialect, tensors, metadata=metadata or {})


def make_image(window: int) -> Checkpoint:
    """Makes weights of an image network of the same size: patches of one frame, flat windows."""
    checkpoint = make(ModelSize(8, (1, 2), (1, 2), (1, window, window), (1, 4, 4)), None, IMAGE_2D)
    patches = "backbone.patch_embed.proj.weight"
    checkpoint.tensors[patches] = checkpoint.tensors[patches][:, :, 0]
    return checkpoint


def test_weights_that_fit_stay_as_they_are():
    checkpoint = make(NETWORK)
    adapted = adapt(checkpoint, NETWORK, resize_bias=False)
    assert adapted.tensors is checkpoint.tensors
    assert (adapted.inflated, adapted.resized, adapted.note) == ((), (), "")


def test_another_window_is_an_error_unless_asked_for():
    wider = ModelSize(8, (1, 2), (1, 2), window_size=(4, 3, 5))
    checkpoint = make(NETWORK, metadata={"size": {"window_size": [2, 3, 3]}})
    with pytest.raises(InputError, match=r"window \[2,3,3\].*model has \[4,3,5\].*model\.resize_bias=true"):
        adapt(checkpoint, wider, resize_bias=False)
    adapted = adapt(checkpoint, wider, resize_bias=True)
    assert len(adapted.resized) == 3
    assert adapted.note == "window [2,3,3] to [4,3,5]"
    expected = resize_bias_table(checkpoint.tensors[TABLE], (2, 3, 3), (4, 3, 5))
    np.testing.assert_array_equal(adapted.tensors[TABLE], expected)
    assert adapted.tensors["cls_head.fc_cls.bias"] is checkpoint.tensors["cls_head.fc_cls.bias"]


def test_a_window_that_nobody_knows_is_an_error_with_the_candidates():
    checkpoint = make(ModelSize(8, (1, 2), (1, 2), window_size=(3, 2, 2)))
    with pytest.raises(InputError, match=r"do not say which.*\(3, 2, 2\)"):
        adapt(checkpoint, NETWORK, resize_bias=True)


def test_another_network_is_an_error_that_names_shapes_and_the_model_it_fits():
    with pytest.raises(InputError) as caught:
        adapt(make(SIZES["swin_micro"]), NETWORK, resize_bias=True)
    text = str(caught.value)
    assert "backbone.patch_embed.proj.weight is (24, 3, 2, 4, 4) and should be (8, 3, 2, 4, 4)" in text
    assert text.endswith("They fit model=swin_micro")
    with pytest.raises(InputError, match=r"They fit model\.embed_dim=8 model\.depths=\[1,2\] model\.num_heads=\[1,2\]"):
        adapt(make(NETWORK), SIZES["swin_micro"], resize_bias=False)
    other_window = ModelSize(24, (1, 2, 2, 1), (1, 2, 4, 8), window_size=(8, 7, 7))
    with pytest.raises(InputError, match=r"They fit model=swin_micro with model\.window_size=.*\[8,7,7\]"):
        adapt(make(other_window), NETWORK, resize_bias=False)


@pytest.mark.parametrize("window", [3, 5])
def test_an_image_network_is_inflated_without_being_asked(window):
    adapted = adapt(make_image(window), NETWORK, resize_bias=False)
    shapes = {name: tensor.shape for name, tensor in adapted.tensors.items()}
    assert shapes == official_shapes(NETWORK, None)
    assert len(adapted.inflated) == 4
    assert adapted.note == ("from an image network" if window == 3 else "from an image network, 3 bias tables resized")


def test_an_image_network_of_another_size_is_an_error():
    with pytest.raises(InputError, match="the image network is another one"):
        adapt(make_image(3), ModelSize(8, (1, 1), (1, 2), window_size=(2, 3, 3)), resize_bias=False)
