from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, official_shapes
from vswin.weights.dialects import saved_model_to_official, to_official
from vswin.weights.names import recognise

FILES = Path(__file__).parent / "files"
SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4))
STAGE = "layers/video_swin_basic_layer_3"
PATCHES = "backbone.patch_embed.proj.weight"


def fingerprints(shapes):
    """Fills each tensor with its index, without using memory."""
    return {name: np.broadcast_to(np.float32(i), shape) for i, (name, shape) in enumerate(shapes.items())}


def listing(file):
    """Reads names and shapes: `name [1, 2]`."""
    lines = [line.split(maxsplit=1) for line in (FILES / file).read_text().splitlines()]
    return {name: tuple(map(int, shape.strip("[]").split(","))) for name, shape in lines}


@pytest.fixture
def official():
    return fingerprints(official_shapes(SIZE, 5))


def image_network(side=7):
    """Makes an image network in the Microsoft layout."""
    shapes = official_shapes(ModelSize(8, (1, 2), (1, 2), window_size=(1, side, side), patch_size=(1, 4, 4)), None)
    shapes[PATCHES] = (8, 3, 4, 4)
    shapes |= {"layers.0.blocks.0.attn.relative_position_index": (49, 49), "layers.1.blocks.1.attn_mask": (4, 49, 49)}
    shapes |= {"head.weight": (1000, 16), "head.bias": (1000,)}
    return fingerprints({name.removeprefix("backbone."): shape for name, shape in shapes.items()})


def test_official_names_stay_and_nothing_is_copied(official):
    translation = to_official(official)
    assert translation.dialect == "official"
    assert translation.ignored == ()
    assert translation.tensors.keys() == official.keys()
    assert all(translation.tensors[name] is official[name] for name in official)


def test_a_backbone_alone_is_official_too(official):
    backbone = {name: tensor for name, tensor in official.items() if name.startswith("backbone.")}
    assert to_official(backbone).tensors.keys() == backbone.keys()
    bare = {name.removeprefix("backbone."): tensor for name, tensor in backbone.items()}
    assert to_official(bare).dialect == "official"
    assert to_official(bare).tensors.keys() == backbone.keys()


def test_buffers_are_passed_over_and_listed(official):
    index = np.zeros((24, 24), np.int64)
    buffers = {
        "backbone.layers.0.blocks.0.attn.relative_position_index": index,
        "backbone.layers.1.blocks.1.attn_mask": index,
        "data_preprocessor.mean": np.zeros((1, 3, 1, 1, 1)),
    }
    translation = to_official(official | buffers)
    assert translation.tensors.keys() == official.keys()
    assert translation.ignored == tuple(buffers)
    assert translation.position_index is index
    assert to_official(official).position_index is None


def test_mmaction2_calls_the_last_norm_norm3(official):
    renamed = {name.replace("backbone.norm.", "backbone.norm3."): tensor for name, tensor in official.items()}
    translation = to_official(renamed)
    assert translation.dialect == "mmaction2"
    assert translation.tensors["backbone.norm.bias"] is official["backbone.norm.bias"]
    assert translation.tensors.keys() == official.keys()


def test_torchvision_is_translated():
    tensors = fingerprints(listing("torchvision_swin3d_t.txt"))
    translation = to_official(tensors)
    assert translation.dialect == "torchvision"
    assert {name: t.shape for name, t in translation.tensors.items()} == official_shapes(SIZES["swin_tiny"], 400)
    assert len(translation.ignored) == 12
    assert translation.position_index.shape == (392, 392)
    table = "attn.relative_position_bias_table"
    for official_name, name in {
        "backbone.patch_embed.norm.bias": "patch_embed.norm.bias",
        "backbone.layers.0.blocks.1.norm2.bias": "features.0.1.norm2.bias",
        f"backbone.layers.0.blocks.1.{table}": f"features.0.1.{table}",
        "backbone.layers.2.blocks.5.mlp.fc1.bias": "features.4.5.mlp.0.bias",
        "backbone.layers.2.blocks.5.mlp.fc2.weight": "features.4.5.mlp.3.weight",
        "backbone.layers.3.blocks.0.attn.proj.weight": "features.6.0.attn.proj.weight",
        "backbone.layers.1.downsample.reduction.weight": "features.3.reduction.weight",
        "backbone.layers.0.downsample.norm.weight": "features.1.norm.weight",
        "backbone.norm.weight": "norm.weight",
        "cls_head.fc_cls.weight": "head.weight",
    }.items():
        assert translation.tensors[official_name] is tensors[name]


@pytest.mark.parametrize("prefix", ["layers/video_swin_backbone/", "backbone/", ""])
def test_innat_is_translated_with_and_without_a_head(prefix):
    shapes = listing("innat_videoswin_tiny.txt")
    if not prefix:
        shapes = {path: shape for path, shape in shapes.items() if not path.startswith("layers/dense/")}
    tensors = fingerprints(
        {path.replace("layers/video_swin_backbone/", prefix, 1): shape for path, shape in shapes.items()}
    )
    conv = f"{prefix}layers/video_swin_patching_and_embedding/layers/conv3d/vars/0"
    tensors[conv] = np.arange(2 * 4 * 4 * 3 * 96, dtype=np.float32).reshape(2, 4, 4, 3, 96)
    translation = to_official(tensors | {"optimizer/vars/0": np.zeros(1)})
    assert translation.tensors[PATCHES][7, 2, 1, 3, 0] == tensors[conv][1, 3, 0, 2, 7]
    assert np.shares_memory(translation.tensors[PATCHES], tensors[conv])
    assert translation.dialect == "innat_h5"
    assert translation.ignored == ("optimizer/vars/0",)
    wanted = official_shapes(SIZES["swin_tiny"], 400 if prefix else None)
    assert {name: tensor.shape for name, tensor in translation.tensors.items()} == wanted
    block = f"{prefix}layers/video_swin_basic_layer_2/blocks/video_swin_transformer_block_5"
    for name, path in {
        "layers.2.blocks.5.norm1.weight": f"{block}/layers/layer_normalization/vars/0",
        "layers.2.blocks.5.norm2.bias": f"{block}/layers/layer_normalization_1/vars/1",
        "layers.2.blocks.5.attn.qkv.weight": f"{block}/attn/layers/dense/vars/0",
        "layers.2.blocks.5.attn.proj.bias": f"{block}/attn/layers/dense_1/vars/1",
        "layers.2.blocks.5.attn.relative_position_bias_table": f"{block}/attn/vars/0",
        "layers.2.blocks.5.mlp.fc2.weight": f"{block}/layers/mlp/fc2/vars/0",
        "layers.0.downsample.reduction.weight": f"{prefix}layers/video_swin_basic_layer/downsample/reduction/vars/0",
        "norm.bias": f"{prefix}layers/layer_normalization/vars/1",
    }.items():
        assert translation.tensors[f"backbone.{name}"].max() == tensors[path].max()


def test_our_own_saved_model_is_translated_by_name(official):
    kernels = {
        name: np.moveaxis(t, (0, 1), (-1, -2)) if name.endswith(".weight") and t.ndim > 1 else t
        for name, t in official.items()
    }
    translation = saved_model_to_official(list(kernels.items()))
    assert translation.dialect == "vswin_saved_model"
    assert {name: t.shape for name, t in translation.tensors.items()} == official_shapes(SIZE, 5)
    with pytest.raises(InputError, match=r"backbone\.norm\.bias is missing$"):
        saved_model_to_official([pair for pair in kernels.items() if pair[0] != "backbone.norm.bias"])


def test_an_image_network_keeps_two_dimensions_and_loses_its_head():
    translation = to_official(image_network())
    assert translation.dialect == "image_2d"
    assert translation.tensors[PATCHES].shape == (8, 3, 4, 4)
    assert translation.ignored[-2:] == ("head.weight", "head.bias")
    assert len(translation.ignored) == 4
    assert recognise(translation.tensors).is_2d


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("backbone.layers.1.blocks.0.", "backbone.layers.1.blocks.0.norm1.weight is missing; .* and 8 more$"),
        ("backbone.layers.0.", r"no weights backbone\.layers\.0\.blocks"),
        ("backbone.layers.1.", "backbone.layers.0.downsample.reduction.weight is unknown"),
        ("backbone.patch_embed.", "backbone.patch_embed.proj.weight is missing"),
        ("backbone.norm.", "backbone.norm.weight is missing; backbone.norm.bias is missing"),
        ("cls_head.fc_cls.bias", "cls_head.fc_cls.bias is missing"),
    ],
)
def test_parts_of_a_network_are_refused(official, gone, message):
    with pytest.raises(InputError, match=message):
        to_official({name: tensor for name, tensor in official.items() if not name.startswith(gone)})


def test_tensors_of_two_dialects_are_refused(official):
    torchvision = fingerprints(listing("torchvision_swin3d_t.txt"))
    with pytest.raises(InputError, match=r"as in torchvision and official at once; the first are backbone\.patch"):
        to_official(official | torchvision)
    bare = {name.removeprefix("backbone."): tensor for name, tensor in official.items()}
    with pytest.raises(InputError, match=r"and patch_embed\.proj\.weight are both backbone\.patch_embed\.proj\.weight"):
        to_official(official | bare)
    both_norms = official | {"backbone.norm3.weight": official["backbone.norm.weight"]}
    with pytest.raises(InputError, match=r"backbone\.norm\.weight and backbone\.norm3\.weight are both"):
        to_official(both_norms)


@pytest.mark.parametrize(
    ("tensors", "first"),
    [({}, "none"), ({"encoder.layer.0.weight": np.zeros(1), "b": np.zeros(1)}, r"encoder\.layer\.0\.weight, b")],
)
def test_unknown_names_are_refused_with_what_was_tried(tensors, first):
    tried = "official, mmaction2, torchvision, image_2d, innat_h5"
    with pytest.raises(InputError, match=rf"none of {tried}; the first of {len(tensors)} are {first}"):
        to_official(tensors)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (PATCHES, (8, 3)),
        (PATCHES, ()),
        (PATCHES, (8, 4, 2, 4, 4)),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", (105,)),
        ("backbone.layers.1.blocks.1.attn.relative_position_bias_table", (104, 2)),
        ("backbone.layers.0.blocks.0.mlp.fc1.weight", (8, 32)),
        ("backbone.layers.1.blocks.0.attn.qkv.weight", (48, 16, 1)),
        ("backbone.norm.weight", (8,)),
        ("cls_head.fc_cls.weight", (5, 8)),
        ("cls_head.fc_cls.weight", ()),
    ],
)
def test_wrong_ranks_and_shapes_are_refused(official, name, shape):
    official[name] = np.zeros(shape, np.float32)
    with pytest.raises(InputError, match=r"network|backbone"):
        to_official(official)


@pytest.fixture
def variables():
    """Makes the variables of a SavedModel of the TF-Hub collection, each filled with its index."""
    found = []
    for place, line in enumerate((FILES / "tfhub_saved_model.txt").read_text().splitlines()):
        name, dtype, shape = line.split(maxsplit=2)
        extents = tuple(map(int, shape.strip("[]").split(",")))
        found.append((name, np.broadcast_to(np.dtype(dtype).type(place), extents)))
    return found


def test_a_hub_saved_model_is_translated_by_order(variables):
    translation = saved_model_to_official(variables)
    size = ModelSize(8, (2, 2, 2, 2), (1, 2, 4, 8))
    assert translation.dialect == "tfhub_saved_model"
    assert {name: tensor.shape for name, tensor in translation.tensors.items()} == official_shapes(size, None)
    assert len(translation.ignored) == 8
    assert translation.position_index.shape == (392, 392)
    places = {name: place for place, (name, _) in enumerate(variables)}
    stage = "swin_transformer3d/basic_layer_1"
    block = f"{stage}/swin_transformer_block3d_3"
    for official_name, name in {
        "layers.1.blocks.1.norm2.weight": f"{block}/layer_normalization_8/gamma:0",
        "layers.1.blocks.1.attn.qkv.bias": f"{block}/window_attention3d_3/dense_13/bias:0",
        "layers.1.blocks.1.mlp.fc1.weight": "dense_15/kernel:0",
        "layers.1.downsample.norm.bias": f"{stage}/patch_merging_1/layer_normalization_9/beta:0",
        "norm.weight": "swin_transformer3d/layer_normalization_19/gamma:0",
    }.items():
        assert translation.tensors[f"backbone.{official_name}"].max() == places[name]


def test_hub_variables_in_another_order_are_refused(variables):
    table = "relative_position_bias_table:0"
    for one, other, words in (
        ("embed_norm/gamma:0", "embed_norm/beta:0", r"variable 3, .*beta.*should be backbone\.patch_embed\.norm"),
        ("/dense_1/kernel:0", "/dense_5/kernel:0", r"dense_1/bias:0 .* after one of swin_transformer_block3d_1$"),
        ("dense_3/kernel:0", "dense_7/kernel:0", r"dense_3/bias:0 .* stands after one of dense_7$"),
        (f"window_attention3d/{table}", f"3d_1/{table}", r"stands after one of swin_transformer_block3d_1"),
        ("/dense/kernel:0", "/dense_1/kernel:0", r"dense/bias:0 .* stands after one of dense_1"),
    ):
        order = list(variables)
        i, j = (next(k for k, (name, _) in enumerate(order) if name.endswith(part)) for part in (one, other))
        order[i], order[j] = order[j], order[i]
        with pytest.raises(InputError, match=words):
            saved_model_to_official(order)
    with pytest.raises(InputError, match=r"ends after 0 variables, before backbone\.patch_embed\.proj\.weight"):
        saved_model_to_official([])


@pytest.mark.parametrize("place", [0, 1, 6, 40, 126])
def test_a_hub_saved_model_with_a_variable_too_few_or_too_many_is_refused(variables, place):
    with pytest.raises(InputError, match=r"SavedModel"):
        saved_model_to_official(variables[:place] + variables[place + 1 :])
    with pytest.raises(InputError, match=r"SavedModel"):
        saved_model_to_official([*variables[:place], variables[place], *variables[place:]])


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("torchvision_swin3d_t.txt", "features.2.norm"),
        ("torchvision_swin3d_t.txt", "avgpool"),
        ("innat_videoswin_tiny.txt", f"layers/video_swin_backbone/{STAGE}/downsample/norm/vars/2"),
        ("innat_videoswin_tiny.txt", f"layers/video_swin_backbone/{STAGE}/blocks/video_swin_transformer_block/vars/0"),
        ("innat_videoswin_tiny.txt", "layers/dense_1/vars/0"),
    ],
)
def test_a_tensor_that_is_no_weight_is_named_as_in_the_file(file, key):
    with pytest.raises(InputError, match=f": {key} is unknown$"):
        to_official(fingerprints(listing(file)) | {key: np.zeros(2)})
