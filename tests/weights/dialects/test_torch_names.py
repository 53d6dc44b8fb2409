import pytest

from vswin.weights.dialects.torch_names import from_mmaction2, from_official, from_torchvision, is_buffer, is_image_head


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("features.6.1.mlp.0.weight", "backbone.layers.3.blocks.1.mlp.fc1.weight"),
        ("features.6.10.mlp.3.bias", "backbone.layers.3.blocks.10.mlp.fc2.bias"),
        ("features.5.norm.bias", "backbone.layers.2.downsample.norm.bias"),
        ("head.bias", "cls_head.fc_cls.bias"),
        ("norm.bias", "backbone.norm.bias"),
        ("features.weight", None),
        ("features.2.norm", None),
        ("layers.0.blocks.0.norm1.weight", None),
        ("avgpool", None),
    ],
)
def test_torchvision_keys(key, name):
    assert from_torchvision(key) == name


def test_backbone_is_added_and_norm3_renamed():
    assert from_official("norm.weight") == "backbone.norm.weight"
    assert from_official("cls_head.fc_cls.bias") == "cls_head.fc_cls.bias"
    assert from_mmaction2("backbone.norm3.weight") == from_mmaction2("norm3.weight") == "backbone.norm.weight"
    assert from_mmaction2("backbone.layers.0.blocks.0.norm2.bias") == "backbone.layers.0.blocks.0.norm2.bias"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("backbone.layers.0.blocks.0.attn.relative_position_index", True),
        ("layers.0.blocks.1.attn_mask", True),
        ("attn_mask", True),
        ("data_preprocessor.std", True),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", False),
        ("backbone.data_preprocessor.std", False),
        ("relative_position_index.weight", False),
    ],
)
def test_buffers(key, expected):
    assert is_buffer(key) is expected


def test_heads_of_image_networks():
    assert is_image_head("head.weight")
    assert is_image_head("head.bias")
    assert not is_image_head("norm.weight")
