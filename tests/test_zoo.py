import json
import subprocess
import sys
from pathlib import Path

import pytest

from vswin.config import ModelConfig
from vswin.errors import InputError
from vswin.zoo import (
    SIZES,
    ModelSize,
    configured_size,
    count_macs,
    count_parameters,
    find_published,
    find_size,
    published_models,
)

COUNTS = json.loads((Path(__file__).parent / "parity" / "param_counts.json").read_text())


def test_the_zoo_does_not_import_tensorflow():
    code = "import sys, vswin.zoo; vswin.zoo.published_models(); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_published_models_have_the_official_parameter_counts():
    assert {model.name: model.parameters for model in published_models()} == {
        name: count["total"] for name, count in COUNTS.items()
    }


def test_published_table_holds_the_official_values():
    table = {(m.size, m.dataset, m.pretrained_on): (m.top1, m.top5, m.test_views) for m in published_models()}
    assert table == {
        ("swin_tiny", "kinetics400", "imagenet_1k"): (78.8, 93.6, "4x3"),
        ("swin_small", "kinetics400", "imagenet_1k"): (80.6, 94.5, "4x3"),
        ("swin_base", "kinetics400", "imagenet_1k"): (80.6, 94.6, "4x3"),
        ("swin_base", "kinetics400", "imagenet_22k"): (82.7, 95.5, "4x3"),
        ("swin_base", "kinetics600", "imagenet_22k"): (84.0, 96.5, "4x3"),
        ("swin_base_w16", "sthv2", "kinetics400"): (69.6, 92.7, "1x3"),
    }


def test_the_page_of_the_collection_is_kept_where_it_differs():
    pages = {model.name: model.hub_page for model in published_models()}
    assert [name for name, page in pages.items() if page.name != name] == [
        "swin_base_patch244_window877_kinetics600_22k"
    ]
    assert pages["swin_base_patch244_window877_kinetics400_1k"].top5 == 96.6
    assert pages["swin_base_patch244_window877_kinetics400_22k"].pretrained_on == "ImageNet-12K"


def test_sources_keep_what_their_owners_say():
    sources = {s.name: s for s in find_published("swin_tiny_patch244_window877_kinetics400_1k").sources}
    assert list(sources) == ["official", "innat", "tfhub", "torchvision", "mmaction2"]
    assert sources["official"].address.endswith("v1.0.4/swin_tiny_patch244_window877_kinetics400_1k.pth")
    assert sources["official"].has_head
    assert not sources["tfhub"].has_head
    assert sources["tfhub"].address.startswith("https://tfhub.dev/")
    assert (sources["torchvision"].sha256_prefix, sources["torchvision"].top1) == ("7615ae03", 77.715)


def test_a_model_is_found_by_the_name_of_its_page_too():
    official = find_published("swin_base_patch244_window877_kinetics600_22k")
    assert find_published("swin_base_patch244_window877_kinetics600_1k") is official


def test_wrong_names_bring_the_nearest():
    with pytest.raises(InputError, match=r"'swin_tinny'.*swin_tiny.*swin_large"):
        find_size("swin_tinny")
    with pytest.raises(InputError, match="swin_small_patch244_window877_kinetics400_1k"):
        find_published("swin_small_patch244_window877_kinetics400")


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


def test_micro_has_less_than_a_million_parameters():
    assert count_parameters(SIZES["swin_micro"], 400) < 1_000_000


def test_fields_survive_json():
    fields = json.loads(json.dumps(vars(SIZES["swin_base_w16"])))
    assert ModelSize.from_fields(fields) == SIZES["swin_base_w16"]


def test_a_configuration_overrides_fields_of_its_size():
    assert configured_size(ModelConfig(name="swin_tiny")) == SIZES["swin_tiny"]
    size = configured_size(ModelConfig(name="swin_tiny", depths=[1, 1, 2, 1], drop_path_rate=0.0))
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
