from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.inflate import inflate

FILES = Path(__file__).parent / "files"
PATCHES = "backbone.patch_embed.proj.weight"


def image_network(name):
    with np.load(FILES / f"{name}.npz") as file:
        return {f"backbone.{key}": file[key] for key in file}


@pytest.mark.parametrize(("name", "num_resized"), [("image2d_w7", 0), ("image2d_w12", 8)])
def test_inflation_equals_the_official_one(name, num_resized):
    tensors = image_network(name)
    inflated = inflate(tensors, patch_size=(2, 4, 4), window_size=(8, 7, 7))
    assert len(inflated.resized) == num_resized
    assert inflated.tensors.keys() == tensors.keys()
    with np.load(FILES / f"{name}_inflated_w877.npz") as official:
        assert len(official.files) == 10
        for key in official:
            tensor = inflated.tensors[f"backbone.{key}"]
            assert tensor.dtype == np.float32
            np.testing.assert_allclose(tensor, official[key], rtol=0, atol=1e-6)


def test_all_else_stays_as_it_is():
    tensors = image_network("image2d_w7")
    name = "backbone.layers.0.blocks.0.norm1.weight"
    assert inflate(tensors, (2, 4, 4), (8, 7, 7)).tensors[name] is tensors[name]


def test_a_still_clip_is_embedded_as_the_image_was():
    tensors = image_network("image2d_w7")
    patches = inflate(tensors, patch_size=(4, 4, 4), window_size=(8, 7, 7)).tensors[PATCHES]
    assert patches.shape == (8, 3, 4, 4, 4)
    np.testing.assert_allclose(patches.sum(axis=2), tensors[PATCHES], rtol=1e-6)


def test_bias_tables_are_the_same_at_every_distance_in_time():
    table = "backbone.layers.1.blocks.0.attn.relative_position_bias_table"
    inflated = inflate(image_network("image2d_w12"), (2, 4, 4), (3, 12, 7))
    assert table in inflated.resized
    by_time = inflated.tensors[table].reshape(5, 23 * 13, 2)
    for distance in range(5):
        np.testing.assert_array_equal(by_time[distance], by_time[0])


def test_a_video_network_is_refused():
    tensors = image_network("image2d_w7") | {PATCHES: np.zeros((8, 3, 2, 4, 4), np.float32)}
    with pytest.raises(InputError, match=r"\(8, 3, 2, 4, 4\): the weights are those of a video network"):
        inflate(tensors, (2, 4, 4), (8, 7, 7))


def test_other_patches_and_tables_are_refused():
    tensors = image_network("image2d_w7")
    with pytest.raises(InputError, match=r"patches of \(4, 4\) pixels, the video network of \(8, 8\); give patch_size"):
        inflate(tensors, (2, 8, 8), (8, 7, 7))
    table = "backbone.layers.0.blocks.0.attn.relative_position_bias_table"
    with pytest.raises(InputError, match=r"0\.attn\.relative_position_bias_table has 168 rows, which no square window"):
        inflate(tensors | {table: np.zeros((168, 1), np.float32)}, (2, 4, 4), (8, 7, 7))
    with pytest.raises(InputError, match=r"proj\.weight is missing: these are no weights of an image"):
        inflate({}, (2, 4, 4), (8, 7, 7))
