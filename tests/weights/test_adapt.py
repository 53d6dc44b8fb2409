"""Weights of image networks and of other windows: inflated and resized as the official code and PyTorch do."""

from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, official_shapes
from vswin.weights.adapt import adapt, inflate, resize_bias_table
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.dialects import IMAGE_2D, OFFICIAL
from vswin.weights.names import PATCHES

FILES = Path(__file__).parent / "files"
NETWORK = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))
TABLE = "backbone.layers.1.blocks.0.attn.relative_position_bias_table"


def make(size: ModelSize, num_classes: int | None = 5, dialect: str = OFFICIAL, metadata=None) -> Checkpoint:
    rng = np.random.default_rng(0)
    shapes = official_shapes(size, num_classes)
    tensors = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    return Checkpoint(Path("a.pth"), dialect, tensors, metadata=metadata or {})


def make_image(window: int) -> Checkpoint:
    """Makes weights of an image network of the same size: patches of one frame, flat windows."""
    checkpoint = make(ModelSize(8, (1, 2), (1, 2), (1, window, window), (1, 4, 4)), None, IMAGE_2D)
    checkpoint.tensors[PATCHES] = checkpoint.tensors[PATCHES][:, :, 0]
    return checkpoint


def test_weights_that_fit_stay_as_they_are():
    checkpoint = make(NETWORK)
    adapted = adapt(checkpoint, NETWORK, resize_bias=False)
    assert adapted.tensors is checkpoint.tensors
    assert (adapted.inflated, adapted.resized, adapted.note) == ((), (), "")


def test_another_window_is_an_error_unless_asked_for():
    wider = ModelSize(8, (1, 2), (1, 2), window_size=(4, 3, 5))
    checkpoint = make(NETWORK, metadata={"size": {"window_size": [2, 3, 3]}})
    with pytest.raises(InputError, match=r"window \[2,3,3\].*model has \[4,3,5\].*model\.resize_bias=true"):
        adapt(checkpoint, wider, resize_bias=False)
    adapted = adapt(checkpoint, wider, resize_bias=True)
    assert len(adapted.resized) == 3
    assert adapted.note == "window [2,3,3] to [4,3,5]"
    expected = resize_bias_table(checkpoint.tensors[TABLE], (2, 3, 3), (4, 3, 5))
    np.testing.assert_array_equal(adapted.tensors[TABLE], expected)
    assert adapted.tensors["cls_head.fc_cls.bias"] is checkpoint.tensors["cls_head.fc_cls.bias"]
    unknown = make(ModelSize(8, (1, 2), (1, 2), window_size=(3, 2, 2)))
    with pytest.raises(InputError, match=r"do not say which.*\(3, 2, 2\)"):
        adapt(unknown, NETWORK, resize_bias=True)


OTHER_WINDOW = ModelSize(24, (1, 2, 2, 1), (1, 2, 4, 8), window_size=(8, 7, 7))


@pytest.mark.parametrize(
    ("checkpoint", "size", "words"),
    [
        (make(SIZES["swin_micro"]), NETWORK, r"is \(24, 3, 2, 4, 4\) and should be \(8.*They fit model=swin_micro$"),
        (make(NETWORK), SIZES["swin_micro"], r"fit model\.embed_dim=8 model\.depths=\[1,2\] model\.num_heads=\[1,2\]"),
        (make(OTHER_WINDOW), NETWORK, r"They fit model=swin_micro with model\.window_size=.*\[8,7,7\]"),
        (make_image(3), ModelSize(8, (1, 1), (1, 2), window_size=(2, 3, 3)), "the image network is another one"),
        (make_image(3), ModelSize(8, (1, 2), (1, 2), (2, 3, 3), (2, 8, 8)), r"of \(4, 4\) pixels.*give patch_size=\(2"),
    ],
)
def test_another_network_is_an_error_that_names_shapes_and_the_model_it_fits(checkpoint, size, words):
    with pytest.raises(InputError, match=words):
        adapt(checkpoint, size, resize_bias=True)


@pytest.mark.parametrize("window", [3, 5])
def test_an_image_network_is_inflated_without_being_asked(window):
    adapted = adapt(make_image(window), NETWORK, resize_bias=False)
    shapes = {name: tensor.shape for name, tensor in adapted.tensors.items()}
    assert shapes == official_shapes(NETWORK, None)
    assert len(adapted.inflated) == 4
    assert adapted.note == ("from an image network" if window == 3 else "from an image network, 3 bias tables resized")


def image_network(name):
    with np.load(FILES / f"{name}.npz") as file:
        return {f"backbone.{key}": file[key] for key in file}


@pytest.mark.parametrize(("name", "num_resized"), [("image2d_w7", 0), ("image2d_w12", 8)])
def test_inflation_equals_the_official_one(name, num_resized):
    tensors = image_network(name)
    inflated, resized = inflate(tensors, patch_size=(2, 4, 4), window_size=(8, 7, 7))
    assert len(resized) == num_resized
    assert inflated.keys() == tensors.keys()
    norm = "backbone.layers.0.blocks.0.norm1.weight"
    assert inflated[norm] is tensors[norm]
    with np.load(FILES / f"{name}_inflated_w877.npz") as official:
        assert len(official.files) == 10
        for key in official:
            tensor = inflated[f"backbone.{key}"]
            assert tensor.dtype == np.float32
            np.testing.assert_allclose(tensor, official[key], rtol=0, atol=1e-6)


def test_a_still_clip_is_embedded_as_the_image_was_and_biases_do_not_depend_on_time():
    tensors = image_network("image2d_w12")
    inflated, resized = inflate(tensors, (4, 4, 4), (3, 12, 7))
    assert inflated[PATCHES].shape == (8, 3, 4, 4, 4)
    np.testing.assert_allclose(inflated[PATCHES].sum(axis=2), tensors[PATCHES], rtol=1e-6)
    assert TABLE in resized
    by_time = inflated[TABLE].reshape(5, 23 * 13, 2)
    np.testing.assert_array_equal(by_time, np.broadcast_to(by_time[0], by_time.shape))
    with pytest.raises(InputError, match=r"attn\.relative_position_bias_table has 168 rows, which no square window"):
        inflate(tensors | {TABLE: np.zeros((168, 1), np.float32)}, (2, 4, 4), (8, 7, 7))


# From torch.nn.functional.interpolate (2.x, float32, align_corners=False) on 0, 1, 4, 9, 16.
SQUARES = np.array([[0.0], [1.0], [4.0], [9.0], [16.0]], np.float32)
BICUBIC_TO_9 = [-0.1008, 0.1481, 0.7106, 2.0041, 4.0, 6.3388, 9.9726, 14.0741, 16.7058]
BICUBIC_TO_3 = [0.1481, 4.0, 14.0741]
LINEAR_TO_9 = [0.0, 1 / 3, 8 / 9, 7 / 3, 4.0, 61 / 9, 88 / 9, 41 / 3, 16.0]
LINEAR_TO_3 = [1 / 3, 4.0, 41 / 3]


@pytest.mark.parametrize(
    ("extent", "bicubic", "linear"), [(5, BICUBIC_TO_9, LINEAR_TO_9), (2, BICUBIC_TO_3, LINEAR_TO_3)]
)
def test_space_is_bicubic_and_time_linear_as_in_torch(extent, bicubic, linear):
    for old, new in (((1, 1, 3), (1, 1, extent)), ((1, 3, 1), (1, extent, 1))):
        np.testing.assert_allclose(resize_bias_table(SQUARES, old, new)[:, 0], bicubic, atol=6e-5)
    np.testing.assert_allclose(resize_bias_table(SQUARES, (3, 1, 1), (extent, 1, 1))[:, 0], linear, atol=1e-6)


def test_three_axes_equal_torch():
    # sin(0 .. 149) as a table of two heads for windows of (3, 2, 3), resized by torch in space and then in time.
    table = np.sin(np.arange(150, dtype=np.float32)).reshape(75, 2)
    resized = resize_bias_table(table, (3, 2, 3), (5, 4, 2))
    assert resized.shape == (9 * 7 * 3, 2)
    assert resized.dtype == np.float32
    expected = {
        0: (0.4887344, 0.8185235),
        1: (-0.9478455, -1.1348583),
        94: (-0.9851463, -0.3877816),
        97: (-0.4637054, -0.426383),
        188: (0.2369791, -0.5328624),
    }
    np.testing.assert_allclose(resized[list(expected)], list(expected.values()), atol=1e-6)


@pytest.mark.parametrize("new", [(16, 7, 7), (4, 7, 7), (8, 12, 5), (1, 3, 9)])
def test_the_bias_of_a_token_to_itself_stays_and_constants_stay_constant(new):
    table = np.random.default_rng(0).normal(size=(2535, 3)).astype(np.float32)
    assert resize_bias_table(table, (8, 7, 7), (8, 7, 7)) is table
    resized = resize_bias_table(table, (8, 7, 7), new)
    np.testing.assert_allclose(resized[len(resized) // 2], table[len(table) // 2], atol=1e-6)
    constant = resize_bias_table(np.full((2535, 3), 0.3, np.float32), (8, 7, 7), new)
    np.testing.assert_allclose(constant, 0.3, atol=1e-6)


def test_a_table_of_another_window_is_refused():
    with pytest.raises(InputError, match=r"104 rows is not that of the window \(2, 3, 4\), 105 rows"):
        resize_bias_table(np.zeros((104, 2), np.float32), (2, 3, 4), (2, 3, 3))
