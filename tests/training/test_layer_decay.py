import pytest

from vswin.training.layer_decay import layer_multiplier
from vswin.training.optimizer import assign_groups
from vswin.weights.names import official_names
from vswin.zoo import SIZES, find_size


def test_multipliers_of_swin_micro_by_hand():
    """Six blocks in stages of 1, 2, 2 and 1: layers 0 to 7, of which the topmost has the whole rate."""
    depths = find_size("swin_micro").depths
    expected = {
        "backbone.patch_embed.": 2**-7,
        "backbone.layers.0.": 2**-6,
        "backbone.layers.1.blocks.0.": 2**-5,
        "backbone.layers.1.": 2**-4,
        "backbone.layers.2.blocks.0.": 2**-3,
        "backbone.layers.2.": 2**-2,
        "backbone.layers.3.": 2**-1,
        "backbone.norm.": 1,
        "cls_head.": 1,
    }
    names = official_names(depths, has_head=True)
    for name in names:
        prefix = next(prefix for prefix in expected if name.startswith(prefix))
        assert layer_multiplier(name, depths, 0.5) == expected[prefix], name
        assert layer_multiplier(name, depths, 1.0) == 1.0


def test_the_layers_of_swin_tiny_are_those_of_the_official_image_recipe():
    """Figures of SimMIM's get_swin_layer for depths 2, 2, 6, 2."""
    depths = SIZES["swin_tiny"].depths
    layers = {
        "backbone.patch_embed.norm.bias": 0,
        "backbone.layers.0.blocks.0.norm1.weight": 1,
        "backbone.layers.0.blocks.1.attn.relative_position_bias_table": 2,
        "backbone.layers.0.downsample.reduction.weight": 2,
        "backbone.layers.2.blocks.5.mlp.fc2.bias": 10,
        "backbone.layers.2.downsample.norm.weight": 10,
        "backbone.layers.3.blocks.1.attn.qkv.weight": 12,
        "backbone.norm.weight": 13,
        "cls_head.fc_cls.bias": 13,
    }
    for name, layer in layers.items():
        assert layer_multiplier(name, depths, 0.75) == pytest.approx(0.75 ** (13 - layer)), name


def test_the_decay_multiplies_what_the_groups_say(compose_train):
    config = compose_train("model=swin_tiny", "optimizer.layer_decay=0.5").optimizer
    groups = assign_groups(official_names((2, 2, 6, 2), has_head=True), config)
    assert groups["backbone.layers.3.blocks.1.attn.qkv.weight"] == ("backbone", 0.1 * 0.5, 0.02)
    assert groups["backbone.layers.3.blocks.0.attn.relative_position_bias_table"] == ("bias tables", 0.25, 0.0)
    assert groups["backbone.norm.weight"] == ("backbone", 0.1, 0.02)
    assert groups["cls_head.fc_cls.weight"] == ("head", 1.0, 0.02)
