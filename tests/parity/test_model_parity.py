"""Forward passes against numbers computed with the official PyTorch implementation."""

from pathlib import Path

import numpy as np
import pytest

GOLDEN = np.load(Path(__file__).with_name("model.npz"))
CASES = sorted({key.rsplit("/", 1)[0] for key in GOLDEN})


def largest_difference(ours, reference):
    return np.abs(ours - reference).max() / max(1, np.abs(reference).max())


@pytest.mark.parametrize("key", CASES)
def test_features_and_logits_equal_the_official_ones(key, golden_cases, golden_model):
    name, number = key.split("/")
    case = next(c for c in golden_cases if c["model"] == name and c["case"] == int(number))
    model = golden_model(name)
    clips = np.random.RandomState(case["input_seed"]).standard_normal(case["input_shape_NCTHW"])
    features = model.backbone(clips.astype("f4").transpose(0, 2, 3, 4, 1))
    logits = model.head(features)
    reference = GOLDEN[f"{key}/features"].transpose(0, 2, 3, 4, 1)
    assert features.shape == reference.shape
    assert largest_difference(features.numpy(), reference) <= 2e-5
    assert largest_difference(logits.numpy(), GOLDEN[f"{key}/logits"]) <= 2e-5


def test_every_golden_case_is_covered(golden_cases):
    assert sorted(f"{case['model']}/{case['case']}" for case in golden_cases) == CASES
