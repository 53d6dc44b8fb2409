import json
from pathlib import Path

import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, official_shapes
from vswin.weights.names import from_official, named_weights, official_names, official_tensors, read_depths, to_official

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


def test_names_do_not_depend_on_scopes():
    with_scope = vswin.build_model("swin_micro", num_classes=5)
    again = vswin.build_model("swin_micro", num_classes=5)
    assert list(named_weights(with_scope)) == list(named_weights(again))


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


def test_kernels_are_transposed():
    kernel = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(to_official("cls_head.fc_cls.weight", kernel), kernel.T)
    kernel = np.arange(2 * 4 * 5 * 3 * 8).reshape(2, 4, 5, 3, 8)
    assert to_official("backbone.patch_embed.proj.weight", kernel)[7, 2, 1, 3, 4] == kernel[1, 3, 4, 2, 7]


def test_official_tensors_are_copies():
    model = vswin.build_model("swin_micro", num_classes=5)
    tensors = official_tensors(model)
    assert tensors["cls_head.fc_cls.weight"].shape == (5, 192)
    before = tensors["cls_head.fc_cls.weight"].copy()
    model.head.linear.kernel.assign_add(np.ones((192, 5)))
    np.testing.assert_array_equal(tensors["cls_head.fc_cls.weight"], before)


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
