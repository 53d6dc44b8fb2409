import pytest

import vswin
from vswin.schema import OptimizerConfig
from vswin.training.groups import describe_groups, find_frozen
from vswin.weights.names import named_weights
from vswin.zoo import count_parameters, find_size


@pytest.fixture(scope="module")
def weights():
    return named_weights(vswin.build_model("swin_micro", num_classes=5))


@pytest.fixture
def make_config(compose_train):
    def make(*overrides: str) -> OptimizerConfig:
        return compose_train("model=swin_tiny", *overrides).optimizer

    return make


def rows(lines: list[str]) -> list[list[str]]:
    return [line.split("  ") and [cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]


def test_every_group_is_a_row(weights, make_config):
    table = rows(describe_groups(weights, make_config(), 5e-4))
    assert [row[:4] for row in table] == [
        ["group", "rate now", "full rate", "decay"],
        ["backbone", "5e-05", "0.0001", "0.02"],
        ["bias tables", "0.0005", "0.001", "0"],
        ["head", "0.0005", "0.001", "0.02"],
    ]
    sizes = [int(row[4].replace(",", "")) for row in table[1:]]
    assert sum(sizes) == count_parameters(find_size("swin_micro"), 5)
    assert sizes[2] == 5 * 192 + 5


def test_mmaction2_has_a_row_for_layer_norms(weights, make_config):
    table = rows(describe_groups(weights, make_config("optimizer.groups=mmaction2"), 1e-3))
    assert [row[0] for row in table[1:]] == ["backbone", "layer norms", "bias tables", "head"]


def test_layers_with_their_own_rates_share_a_row(weights, make_config):
    table = rows(describe_groups(weights, make_config("optimizer.layer_decay=0.5"), 1e-3))
    assert [row[:3] for row in table[1:]] == [
        ["backbone", "7.81e-07 to 0.0001", "7.81e-07 to 0.0001"],
        ["bias tables", "1.56e-05 to 0.0005", "1.56e-05 to 0.0005"],
        ["head", "0.001", "0.001"],
    ]


def test_frozen_weights_are_counted(weights, make_config):
    table = describe_groups(weights, make_config(), 1e-3, find_frozen(weights, 0, ["backbone.*"]))
    total = count_parameters(find_size("swin_micro"), 5)
    assert [row[0] for row in rows(table)[1:3]] == ["head", "frozen"]
    assert rows(table)[2][1] == f"{total - 965:,}"
    assert table[3] == f"{100 * 965 / total:.3g} % of {total:,} parameters are trained"
