from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.dialects.translate import saved_model_to_official
from vswin.weights.shapes import official_shapes
from vswin.zoo import ModelSize

LISTING = Path(__file__).parents[1] / "files" / "tfhub_saved_model.txt"


@pytest.fixture
def variables():
    """Gives the variables of a SavedModel of the TF-Hub collection, each filled with the number of its place."""
    found = []
    for place, line in enumerate(LISTING.read_text().splitlines()):
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
    names = [name for name, _ in variables]

    def swapped(one, other):
        order = list(variables)
        i, j = (next(k for k, name in enumerate(names) if name.endswith(part)) for part in (one, other))
        order[i], order[j] = order[j], order[i]
        return order

    with pytest.raises(
        InputError, match=r"variable 3 .*embed_norm/beta.*should be backbone\.patch_embed\.norm\.weight"
    ):
        saved_model_to_official(swapped("embed_norm/gamma:0", "embed_norm/beta:0"))
    with pytest.raises(
        InputError, match=r"dense_1/bias:0 \(8,\), stands after one of swin_transformer_block3d_1; it has"
    ):
        saved_model_to_official(swapped("/dense_1/kernel:0", "/dense_5/kernel:0"))
    with pytest.raises(InputError, match=r"dense_3/bias:0 .* stands after one of dense_7; it has another order"):
        saved_model_to_official(swapped("dense_3/kernel:0", "dense_7/kernel:0"))
    with pytest.raises(InputError, match=r"stands after one of swin_transformer_block3d_1"):
        saved_model_to_official(
            swapped("window_attention3d/relative_position_bias_table:0", "3d_1/relative_position_bias_table:0")
        )
    with pytest.raises(InputError, match=r"should be .*attn\.qkv\.weight: a kernel \(8, 24\)"):
        saved_model_to_official(swapped("/dense/kernel:0", "/dense_1/kernel:0"))


@pytest.mark.parametrize("place", [0, 1, 6, 40, 126])
def test_a_hub_saved_model_with_a_variable_too_few_or_too_many_is_refused(variables, place):
    with pytest.raises(InputError, match=r"SavedModel"):
        saved_model_to_official(variables[:place] + variables[place + 1 :])
    with pytest.raises(InputError, match=r"SavedModel"):
        saved_model_to_official([*variables[:place], variables[place], *variables[place:]])


def test_an_empty_saved_model_is_refused():
    with pytest.raises(InputError, match=r"ends after 0 variables, before backbone\.patch_embed\.proj\.weight"):
        saved_model_to_official([])
