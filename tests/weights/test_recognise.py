import math

import numpy as np
import pytest
import tensorflow as tf

from vswin.errors import InputError
from vswin.models.windows import expand_bias
from vswin.models.zoo import SIZES, ModelSize, count_parameters, official_shapes
from vswin.weights.recognise import Difference, find_window, fits, recognise

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


def test_a_backbone_has_no_classes():
    assert recognise(weights(SIZES["swin_tiny"])).num_classes is None


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


def test_weights_that_fit_have_no_differences():
    assert fits(weights(SIZES["swin_micro"], 7), SIZES["swin_micro"]) == []
    assert fits(weights(SIZES["swin_micro"]), SIZES["swin_micro"]) == []


def test_the_first_difference_of_a_smaller_network_is_its_first_weight():
    differences = fits(weights(SIZES["swin_tiny"], 400), SIZES["swin_base"])
    assert differences[0] == Difference("backbone.patch_embed.proj.weight", (96, 3, 2, 4, 4), (128, 3, 2, 4, 4))
    assert "cls_head.fc_cls.weight" in [difference.name for difference in differences]


def test_a_deeper_network_differs_in_its_additional_blocks_alone():
    differences = fits(weights(SIZES["swin_small"], 400), SIZES["swin_tiny"])
    assert len(differences) == 12 * 13
    assert all(difference.wanted is None for difference in differences)
    assert differences[0].name == "backbone.layers.2.blocks.6.norm1.weight"


def test_another_window_differs_in_the_tables_alone():
    differences = fits(weights(SIZES["swin_base_w16"], 174), SIZES["swin_base"])
    assert len(differences) == 24
    assert all(difference.name.endswith(TABLE) for difference in differences)
    assert str(differences[0]) == f"backbone.layers.0.blocks.0.{TABLE} is (5239, 4) and should be (2535, 4)"


def test_a_head_that_is_no_matrix_is_a_difference():
    tensors = weights(SIZES["swin_micro"], 5) | {"cls_head.fc_cls.weight": np.zeros(())}
    assert fits(tensors, SIZES["swin_micro"])[0].name == "cls_head.fc_cls.weight"


def position_index(window):
    rows = tf.range(math.prod(2 * extent - 1 for extent in window))
    return np.asarray(expand_bias(rows[:, None], window, math.prod(window))[0])


@pytest.mark.parametrize(("rows", "window"), [(2535, (8, 7, 7)), (5239, (16, 7, 7)), (343, (4, 4, 4))])
def test_windows_of_known_sizes_are_decided_by_the_rows_alone(rows, window):
    candidates, decided = find_window(rows, is_2d=False, index=None)
    assert decided == window
    assert window in candidates


def test_other_rows_leave_candidates():
    # 7 * 15 * 15: (4, 8, 8), or 63 * 5 * 5 or 175 * 3 * 3.
    assert find_window(1575, is_2d=False, index=None) == (((88, 2, 2), (32, 3, 3), (4, 8, 8)), None)
    assert find_window(507, is_2d=False, index=None) == (((2, 7, 7),), None)
    assert find_window(105, is_2d=False, index=None) == ((), None)


@pytest.mark.parametrize("window", [(8, 7, 7), (2, 3, 4), (3, 4, 2), (4, 8, 8), (1, 1, 1)])
def test_a_position_index_decides(window):
    rows = math.prod(2 * extent - 1 for extent in window)
    assert find_window(rows, is_2d=False, index=position_index(window)) == ((window,), window)


def test_a_position_index_with_an_axis_of_one_token_leaves_candidates():
    assert find_window(63, is_2d=False, index=position_index((5, 1, 4))) == (
        ((1, 5, 4), (5, 1, 4), (5, 4, 1)),
        None,
    )


@pytest.mark.parametrize("index", [np.zeros((392, 392), np.int64), np.arange(49), np.zeros((0, 0)), np.zeros((7, 7))])
def test_an_index_that_fits_no_window_is_passed_over(index):
    assert find_window(2535, is_2d=False, index=index) == (((8, 7, 7),), (8, 7, 7))


def test_windows_of_images_are_square():
    assert find_window(169, is_2d=True, index=None) == (((1, 7, 7),), (1, 7, 7))
    assert find_window(529, is_2d=True, index=None)[1] == (1, 12, 12)
    assert find_window(2535, is_2d=True, index=None) == ((), None)
    index = position_index((1, 7, 7))
    assert find_window(169, is_2d=True, index=index)[1] == (1, 7, 7)
