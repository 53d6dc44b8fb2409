import subprocess
import sys

import pytest

from tests.conftest import make_group
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, configured_size, count_macs, find_size


def test_the_zoo_does_not_import_tensorflow():
    code = "import sys, vswin.models.zoo; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_names_bring_the_nearest():
    with pytest.raises(InputError, match=r"'swin_tinny'.*swin_tiny.*swin_large"):
        find_size("swin_tinny")


@pytest.mark.parametrize(
    ("size", "extents", "giga"),
    [
        ("swin_tiny", (32, 224, 224), 88),
        ("swin_small", (32, 224, 224), 166),
        ("swin_base", (32, 224, 224), 282),
        ("swin_base_w16", (32, 224, 224), 321),
        ("swin_tiny", (16, 224, 224), 43.88),
    ],
)
def test_multiply_adds_are_the_published_ones(size, extents, giga):
    assert count_macs(SIZES[size], *extents) / 1e9 == pytest.approx(giga, rel=0.005)


def test_multiply_adds_count_the_padding_of_windows():
    size = ModelSize(2, (1,), (1,), window_size=(2, 4, 3), patch_size=(1, 1, 1), mlp_ratio=1.0)
    # 2x5x4 tokens in windows of 2x4x3: embedding, then attention on 2x8x6 tokens, then the MLP on 2x5x4.
    assert count_macs(size, 2, 5, 4) == 40 * 2 * 3 + 96 * (4 * 4 + 2 * 2 * 24) + 40 * 2 * 4


def test_a_configuration_overrides_fields_of_its_size():
    assert configured_size(make_group("model", name="swin_tiny")) == SIZES["swin_tiny"]
    size = configured_size(make_group("model", name="swin_tiny", depths=[1, 1, 2, 1], drop_path_rate=0.0))
    assert size.depths == (1, 1, 2, 1)
    assert size.drop_path_rate == 0.0
    assert size.num_heads == SIZES["swin_tiny"].num_heads


@pytest.mark.parametrize(
    "fields",
    [
        {"num_heads": (3,)},
        {"num_heads": (5, 8)},
        {"num_heads": (0, 1)},
        {"depths": (), "num_heads": ()},
        {"depths": (1, 0)},
        {"window_size": (8, 7)},
        {"window_size": (0, 7, 7)},
        {"patch_size": (2, 4, -1)},
        {"mlp_ratio": 0},
        {"drop_path_rate": 1.0},
        {"drop_path_rate": -0.1},
        {"embed_dim": 0},
    ],
)
def test_numbers_that_describe_no_network_are_refused(fields):
    good = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 4)}
    assert ModelSize(**good).num_features == 32
    with pytest.raises(InputError, match=next(iter(fields))):
        ModelSize(**(good | fields))
