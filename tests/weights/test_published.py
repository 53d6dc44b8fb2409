"""Tests of `vswin.weights.published`: the table, and every name under which weights can be fetched."""

import json
from pathlib import Path

import pytest

from vswin.errors import InputError
from vswin.models.zoo import SIZES
from vswin.weights.published import all_published, find_published, find_weights, published_models

COUNTS = json.loads((Path(__file__).parents[1] / "parity" / "param_counts.json").read_text())
LARGE = "swin_large_patch244_window877_kinetics400_22k"


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


def test_wrong_names_bring_the_nearest():
    with pytest.raises(InputError, match="swin_small_patch244_window877_kinetics400_1k"):
        find_published("swin_small_patch244_window877_kinetics400")
    with pytest.raises(InputError, match="did you mean 'swin_tiny_patch4_window7_224'"):
        find_weights("swin_tiny_patch4_window7")


def test_every_name_can_be_looked_up():
    names = [weights.name for weights in all_published()]
    assert len(names) == len(set(names)) == 16
    assert names[:6] == [model.name for model in published_models()]
    assert all(find_weights(weights.name) is weights for weights in all_published())
    assert all(weights.size in SIZES for weights in all_published())


def test_a_model_of_another_owner_has_its_accuracy():
    large = find_published(LARGE)
    assert (large.size, large.top1, large.top5, large.test_views) == ("swin_large", 83.46, 95.91, "4x3")
    with pytest.raises(InputError, match="no published model is called"):
        find_published("swin_base_patch244_window1677_kinetics400_22k")  # the initial weights of a recipe
    assert (large.hub_page, large.names, [source.name for source in large.sources]) == (None, (LARGE,), ["mmaction2"])


def test_image_models_have_the_sizes_and_parameters_of_the_literature():
    images = {weights.name: weights for weights in all_published() if weights.is_image_model}
    # Source: the parameter counts that Swin Transformer's authors publish, and with 21,841 classes.
    assert {
        name: (image.size, image.dataset, image.num_classes, image.parameters) for name, image in images.items()
    } == {
        "swin_tiny_patch4_window7_224": ("swin_tiny", "imagenet_1k", 1000, 28_288_354),
        "swin_small_patch4_window7_224": ("swin_small", "imagenet_1k", 1000, 49_606_258),
        "swin_base_patch4_window7_224": ("swin_base", "imagenet_1k", 1000, 87_768_224),
        "swin_base_patch4_window7_224_22k": ("swin_base", "imagenet_22k", 21841, 109_130_249),
        "swin_base_patch4_window12_384_22k": ("swin_base", "imagenet_22k", 21841, 109_265_609),
        "swin_large_patch4_window7_224_22k": ("swin_large", "imagenet_22k", 21841, 228_565_093),
        "swin_tiny_patch4_window7_224_22k": ("swin_tiny", "imagenet_22k", 21841, 44_315_083),
        "swin_small_patch4_window7_224_22k": ("swin_small", "imagenet_22k", 21841, 65_632_987),
    }


def test_addresses_are_https_and_no_two_files_have_one_name():
    sources = [source for weights in all_published() for source in weights.sources]
    assert {source.url.split("//")[0] for source in sources} == {"https:"}
    assert len({source.file_name for source in sources}) == len({source.url for source in sources}) == len(sources)


def test_copies_say_how_they_differ_from_the_official_one():
    sources = {s.name: s for s in find_weights("swin_tiny_patch244_window877_kinetics400_1k").sources}
    assert [name for name, source in sources.items() if source.is_same_model] == ["official", "innat"]
    assert sources["innat"].describe() == ""
    assert sources["tfhub"].describe() == "without the head"
    assert sources["mmaction2"].describe() == (
        "78.9 % top-1, 93.77 % top-5; retrained by mmaction2, not the official weights"
    )
    assert all(weights.sources[0].is_same_model for weights in all_published())
