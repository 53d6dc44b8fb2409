import pytest

from vswin.weights.dialects.keras_names import from_innat, innat_prefix, is_training_state

STAGE = "layers/video_swin_basic_layer_3"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            f"{STAGE}/blocks/video_swin_transformer_block/attn/layers/dense_1/vars/0",
            "layers.3.blocks.0.attn.proj.weight",
        ),
        (f"{STAGE}/blocks/video_swin_transformer_block_12/layers/mlp/fc1/vars/1", "layers.3.blocks.12.mlp.fc1.bias"),
        (f"{STAGE}/downsample/norm/vars/1", "layers.3.downsample.norm.bias"),
        ("layers/video_swin_patching_and_embedding/layers/conv3d/vars/1", "patch_embed.proj.bias"),
        (f"{STAGE}/blocks/video_swin_transformer_block/attn/vars/1", None),
        (f"{STAGE}/blocks/video_swin_transformer_block_0/attn/vars/0", None),
        (f"{STAGE}/blocks/video_swin_transformer_block/layers/layer_normalization_2/vars/0", None),
        (f"{STAGE}/downsample/norm/vars/2", None),
        (f"{STAGE}/downsample/vars/0", None),
        ("layers/video_swin_basic_layer/vars/0", None),
        ("layers/dense_1/vars/0", None),
        ("layers/conv3d/vars/0", None),
    ],
)
def test_innat_paths(path, name):
    expected = None if name is None else f"backbone.{name}"
    assert from_innat(path, "") == expected
    assert from_innat(f"layers/functional/{path}", "layers/functional/") == expected
    assert from_innat(f"layers/other/{path}", "layers/functional/") is None


def test_the_head_stands_outside_the_backbone():
    assert from_innat("layers/dense/vars/1", "backbone/") == "cls_head.fc_cls.bias"
    assert from_innat("layers/dense/vars/1", "") is None


def test_the_prefix_is_what_stands_before_the_layers_of_the_backbone():
    assert (
        innat_prefix(["layers/dense/vars/0", f"layers/video_swin_backbone/{STAGE}/x"]) == "layers/video_swin_backbone/"
    )
    assert innat_prefix([f"{STAGE}/downsample/norm/vars/0"]) == ""
    assert innat_prefix(["layers/dense/vars/0"]) == ""


def test_states_of_training_are_no_weights():
    assert is_training_state("optimizer/vars/12")
    assert is_training_state("layers/video_swin_backbone/layers/dropout/seed_generator/vars/0")
    assert not is_training_state("layers/dense/vars/0")
