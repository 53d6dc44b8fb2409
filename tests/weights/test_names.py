import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.errors import InputError
from vswin.models.windows import expand_bias
from vswin.models.zoo import SIZES, ModelSize, count_parameters, official_shapes
from vswin.weights.names import (
    find_window,
    fits,
    from_official,
    named_weights,
    official_names,
    official_tensors,
    read_depths,
    recognise,
    to_official,
)

PARITY = Path(__file__).parents[1] / "parity"


def test_names_and_counts_are_the_official_ones_of_swin_tiny():
    groups = json.loads((PARITY / "param_groups_swin_tiny.json").read_text())["params"]
    model = vswin.build_model("swin_tiny")
    assert set(named_weights(model)) == set(groups)
    counts = json.loads((PARITY / "param_counts.json").read_text())
    count = counts["swin_tiny_patch244_window877_kinetics400_1k"]
    # The official state dict also holds one buffer per block, relative_position_index.
    assert len(named_weights(model)) == count["state_dict_keys"] - model.size.num_blocks


def test_each_variable_has_exactly_one_name():
    model = vswin.build_model("swin_micro", num_classes=5)
    named = [id(variable) for variable in named_weights(model).values()]
    assert len(set(named)) == len(named)
    assert set(named) == {id(variable) for variable in model.trainable_variables}


@pytest.mark.parametrize(
    ("name", "ours", "official"),
    [
        ("backbone.layers.0.blocks.0.mlp.fc1.weight", (2, 3), (3, 2)),
        ("backbone.patch_embed.proj.weight", (2, 4, 5, 3, 8), (8, 3, 2, 4, 5)),
        ("backbone.norm.weight", (4,), (4,)),
        ("cls_head.fc_cls.bias", (4,), (4,)),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", (6, 2), (6, 2)),
    ],
)
def test_layouts_are_inverse_to_each_other(name, ours, official):
    values = np.arange(np.prod(ours)).reshape(ours)
    assert to_official(name, values).shape == official
    np.testing.assert_array_equal(from_official(name, to_official(name, values)), values)


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


TABLE = "attn.relative_position_bias_table"


def weights(size, num_classes=None):
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in official_shapes(size, num_classes).items()}


@pytest.mark.parametrize("name", SIZES)
def test_every_size_is_recognised(name):
    size = SIZES[name]
    found = recognise(weights(size, 174))
    assert found.size_name == name
    assert name in found.sizes_but_window
    assert (found.embed_dim, found.depths, found.num_heads) == (size.embed_dim, size.depths, size.num_heads)
    assert (found.patch_size, found.window_size, found.mlp_ratio) == (size.patch_size, size.window_size, 4.0)
    assert found.num_classes == 174
    assert found.num_parameters == count_parameters(size, 174)
    assert not found.is_2d


def test_a_known_network_with_another_window_says_so():
    base = SIZES["swin_base"]
    found = recognise(weights(ModelSize(base.embed_dim, base.depths, base.num_heads, window_size=(4, 8, 8))))
    assert (found.size_name, found.window_size) == (None, None)
    assert found.window_candidates == ((88, 2, 2), (32, 3, 3), (4, 8, 8))
    assert found.sizes_but_window == ("swin_base", "swin_base_w16")


def test_another_network_is_described_without_a_name():
    found = recognise(weights(ModelSize(12, (1, 3), (2, 3), (2, 7, 7), (1, 4, 8), mlp_ratio=2.0)))
    assert (found.embed_dim, found.depths, found.num_heads, found.mlp_ratio) == (12, (1, 3), (2, 3), 2.0)
    assert found.patch_size == (1, 4, 8)
    assert (found.size_name, found.sizes_but_window) == (None, ())


def test_an_image_network_is_recognised():
    tiny = SIZES["swin_tiny"]
    tensors = weights(ModelSize(tiny.embed_dim, tiny.depths, tiny.num_heads, window_size=(1, 7, 7)))
    tensors["backbone.patch_embed.proj.weight"] = np.zeros((96, 3, 4, 4), np.float32)
    found = recognise(tensors)
    assert found.is_2d
    assert (found.patch_size, found.window_size) == ((1, 4, 4), (1, 7, 7))
    assert (found.size_name, found.sizes_but_window) == (None, ("swin_tiny",))


def test_what_is_no_network_is_refused_with_the_first_five_problems():
    tensors = weights(SIZES["swin_micro"], 5)
    for name in list(tensors):
        if name.startswith("backbone.layers.1.blocks.0"):
            del tensors[name]
    with pytest.raises(InputError, match=rf"layers\.1\.blocks\.0\.{TABLE} is missing: the network cannot"):
        recognise(tensors)
    tensors = weights(SIZES["swin_micro"], 5)
    for name in list(tensors):
        if name.startswith("backbone.layers.1.blocks.1"):
            tensors[name] = np.zeros(1)
    with pytest.raises(InputError, match=r"no whole network: .*norm1\.weight is \(1,\) and should be .* and 8 more"):
        recognise(tensors)
    with pytest.raises(InputError, match="no weights"):
        recognise({})


def test_another_window_differs_in_the_tables_alone():
    differences = fits(weights(SIZES["swin_base_w16"], 174), SIZES["swin_base"])
    assert len(differences) == 24
    assert all(difference.name.endswith(TABLE) for difference in differences)
    assert str(differences[0]) == f"backbone.layers.0.blocks.0.{TABLE} is (5239, 4) and should be (2535, 4)"


def position_index(window):
    rows = tf.range(math.prod(2 * extent - 1 for extent in window))
    return np.asarray(expand_bias(rows[:, None], window, math.prod(window))[0])


def test_rows_decide_the_windows_of_known_sizes_or_leave_candidates():
    for rows, window in ((2535, (8, 7, 7)), (5239, (16, 7, 7)), (343, (4, 4, 4))):
        assert find_window(rows, is_2d=False, index=None)[1] == window
    one_token = find_window(63, is_2d=False, index=position_index((5, 1, 4)))
    assert one_token == (((1, 5, 4), (5, 1, 4), (5, 4, 1)), None)
    # 7 * 15 * 15: (4, 8, 8), or 63 * 5 * 5 or 175 * 3 * 3.
    assert find_window(1575, is_2d=False, index=None) == (((88, 2, 2), (32, 3, 3), (4, 8, 8)), None)
    assert find_window(507, is_2d=False, index=None) == (((2, 7, 7),), None)
    assert find_window(105, is_2d=False, index=None) == ((), None)


@pytest.mark.parametrize("window", [(8, 7, 7), (2, 3, 4), (3, 4, 2), (4, 8, 8), (1, 1, 1)])
def test_a_position_index_decides(window):
    rows = math.prod(2 * extent - 1 for extent in window)
    assert find_window(rows, is_2d=False, index=position_index(window)) == ((window,), window)


@pytest.mark.parametrize("index", [np.zeros((392, 392), np.int64), np.arange(49), np.zeros((0, 0)), np.zeros((7, 7))])
def test_an_index_that_fits_no_window_is_passed_over(index):
    assert find_window(2535, is_2d=False, index=index) == (((8, 7, 7),), (8, 7, 7))


def test_windows_of_images_are_square():
    assert find_window(169, is_2d=True, index=None) == (((1, 7, 7),), (1, 7, 7))
    assert find_window(529, is_2d=True, index=None)[1] == (1, 12, 12)
    assert find_window(2535, is_2d=True, index=None) == ((), None)
    index = position_index((1, 7, 7))
    assert find_window(169, is_2d=True, index=index)[1] == (1, 7, 7)
