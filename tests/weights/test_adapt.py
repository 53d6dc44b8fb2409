from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.adapt import adapt
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.dialects.translate import IMAGE_2D, OFFICIAL
from vswin.weights.resize_bias import resize_bias_table
from vswin.weights.shapes import official_shapes
from vswin.zoo import SIZES, ModelSize

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))
TABLE = "backbone.layers.1.blocks.1.attn.relative_position_bias_table"


def make(size: ModelSize, num_classes: int | None = 5, dialect: str = OFFICIAL, metadata=None) -> Checkpoint:
    rng = np.random.default_rng(0)
    shapes = official_shapes(size, num_classes)
    tensors = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    return Checkpoint(Path("a.pth"), dialect, tensors, metadata=metadata or {})


def make_image(window: int) -> Checkpoint:
    """Makes the weights of an image network of the same size: one frame per patch, a flat window."""
    checkpoint = make(ModelSize(8, (1, 2), (1, 2), (1, window, window), (1, 4, 4)), None, IMAGE_2D)
    patches = "backbone.patch_embed.proj.weight"
    checkpoint.tensors[patches] = checkpoint.tensors[patches][:, :, 0]
    return checkpoint


def test_weights_that_fit_stay_as_they_are():
    checkpoint = make(SIZE)
    adapted = adapt(checkpoint, SIZE, resize_bias=False)
    assert adapted.tensors is checkpoint.tensors
    assert (adapted.inflated, adapted.resized, adapted.note) == ((), (), "")


def test_another_window_is_an_error_unless_asked_for():
    wider = ModelSize(8, (1, 2), (1, 2), window_size=(4, 3, 5))
    checkpoint = make(SIZE, metadata={"size": {"window_size": [2, 3, 3]}})
    with pytest.raises(InputError, match=r"window \[2,3,3\].*model has \[4,3,5\].*model\.resize_bias=true"):
        adapt(checkpoint, wider, resize_bias=False)
    adapted = adapt(checkpoint, wider, resize_bias=True)
    assert len(adapted.resized) == 3
    assert adapted.note == "window [2,3,3] to [4,3,5]"
    expected = resize_bias_table(checkpoint.tensors[TABLE], (2, 3, 3), (4, 3, 5))
    np.testing.assert_array_equal(adapted.tensors[TABLE], expected)
    assert adapted.tensors["cls_head.fc_cls.bias"] is checkpoint.tensors["cls_head.fc_cls.bias"]


def test_a_window_that_nobody_knows_is_an_error_with_the_candidates():
    checkpoint = make(ModelSize(8, (1, 2), (1, 2), window_size=(3, 2, 2)))
    with pytest.raises(InputError, match=r"do not say which.*\(3, 2, 2\)"):
        adapt(checkpoint, SIZE, resize_bias=True)


def test_another_network_is_an_error_that_names_shapes_and_the_model_it_fits():
    with pytest.raises(InputError) as caught:
        adapt(make(SIZES["swin_micro"]), SIZE, resize_bias=True)
    text = str(caught.value)
    assert "backbone.patch_embed.proj.weight is (24, 3, 2, 4, 4) and should be (8, 3, 2, 4, 4)" in text
    assert text.endswith("They fit model=swin_micro")
    with pytest.raises(InputError, match=r"They fit model\.embed_dim=8 model\.depths=\[1,2\] model\.num_heads=\[1,2\]"):
        adapt(make(SIZE), SIZES["swin_micro"], resize_bias=False)
    other_window = ModelSize(24, (1, 2, 2, 1), (1, 2, 4, 8), window_size=(8, 7, 7))
    with pytest.raises(InputError, match=r"They fit model=swin_micro with model\.window_size=.*\[8,7,7\]"):
        adapt(make(other_window), SIZE, resize_bias=False)


@pytest.mark.parametrize("window", [3, 5])
def test_an_image_network_is_inflated_without_being_asked(window):
    adapted = adapt(make_image(window), SIZE, resize_bias=False)
    shapes = {name: tensor.shape for name, tensor in adapted.tensors.items()}
    assert shapes == official_shapes(SIZE, None)
    assert len(adapted.inflated) == 4
    assert adapted.note == ("from an image network" if window == 3 else "from an image network, 3 bias tables resized")


def test_an_image_network_of_another_size_is_an_error():
    with pytest.raises(InputError, match="the image network is another one"):
        adapt(make_image(3), ModelSize(8, (1, 1), (1, 2), window_size=(2, 3, 3)), resize_bias=False)
