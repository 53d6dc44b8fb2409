import json
from pathlib import Path

import numpy as np
import pytest

import vswin
from vswin.weights.names import from_official, named_weights, official_tensors, to_official

PARITY = Path(__file__).parents[1] / "parity"


def test_names_and_counts_are_the_official_ones_of_swin_tiny():
    groups = json.loads((PARITY / "param_groups_swin_tiny.json").read_text())["params"]
    model = vswin.build_model("swin_tiny")
    assert set(named_weights(model)) == set(groups)
    counts = json.loads((PARITY / "param_counts.json").read_text())
    count = counts["swin_tiny_patch244_window877_kinetics400_1k"]
    # The official state dict also holds one buffer, relative_position_index, per block.
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
