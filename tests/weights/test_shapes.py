import pytest

import vswin
from vswin.errors import InputError
from vswin.weights.names import official_tensors
from vswin.weights.shapes import Difference, compare, official_names, official_shapes, read_depths
from vswin.zoo import SIZES, ModelSize


@pytest.mark.parametrize(
    "size",
    [SIZES["swin_micro"], ModelSize(10, (1,), (2,), (2, 3, 4), (1, 2, 8), mlp_ratio=2.5)],
)
def test_names_and_shapes_are_those_of_the_built_model_in_its_order(size):
    built = {name: tensor.shape for name, tensor in official_tensors(vswin.build_model(size, num_classes=5)).items()}
    assert list(official_shapes(size, 5).items()) == list(built.items())
    assert official_names(size.depths, has_head=True) == list(built)
    assert official_names(size.depths, has_head=False) == list(built)[:-2]
    assert list(official_shapes(size, None)) == list(built)[:-2]


def test_depths_are_read_from_names():
    assert read_depths(official_names((1, 12, 3), has_head=True)) == (1, 12, 3)
    with pytest.raises(InputError, match=r"no weights backbone\.layers\.0\.blocks\.\*"):
        read_depths(["backbone.norm.weight"])
    with pytest.raises(InputError, match=r"no weights backbone\.layers\.1\.blocks\.\*: a stage without blocks"):
        read_depths(["backbone.layers.0.blocks.0.norm1.bias", "backbone.layers.2.blocks.0.norm1.bias"])


def test_differences_come_in_the_order_of_the_network_and_say_what_they_are():
    given = {"odd": (1,), "b": (2, 3), "a": (4,)}
    differences = compare(given, {"a": (4,), "b": (3, 2), "c": ()})
    assert differences == [
        Difference("b", (2, 3), (3, 2)),
        Difference("c", None, ()),
        Difference("odd", (1,), None),
    ]
    assert list(map(str, differences)) == [
        "b is (2, 3) and should be (3, 2)",
        "c () is missing",
        "odd (1,) is unknown",
    ]
    assert compare(given, dict(reversed(given.items()))) == []
