import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.weights.load import LoadReport, assign_weights
from vswin.weights.names import official_tensors
from vswin.zoo import ModelSize

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))


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
    with pytest.raises(InputError, match=r"1 missing.*\.norm\.weight.*1 unknown.*\.norm3\.weight.*window_size"):
        assign_weights(model, renamed, reset_head)
    transposed = tensors | {"backbone.layers.0.blocks.0.mlp.fc1.weight": np.zeros((8, 32), "f4")}
    with pytest.raises(InputError, match=r"1 of another shape.*fc1\.weight \(8, 32\) for \(32, 8\)"):
        assign_weights(model, transposed, reset_head)
    assert_unchanged(model, before)


def test_a_long_list_shows_five_and_the_count(model, tensors):
    count = len(tensors)
    with pytest.raises(InputError, match=f"{count} missing") as caught:
        assign_weights(model, {}, reset_head=False)
    assert str(caught.value).count("backbone.") == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model, tensors, value):
    before = official_tensors(model)
    tensors["backbone.norm.bias"] = np.full(16, value, "f4")
    with pytest.raises(InputError, match=r"1 not finite.*backbone\.norm\.bias"):
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
