"""From a video file to averaged probabilities, against numbers computed with the official implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.evaluation.views import average_views, view_logits

CLIPS = Path(__file__).parents[1] / "clips"
GOLDEN = json.loads(Path(__file__).with_name("end_to_end_12views.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_of_all_views_and_mean_probabilities(name, golden_model):
    model = golden_model("tiny_w433")
    views = tf.constant(vswin.load_views(CLIPS / name))[tf.newaxis]  # [B, V, T, H, W, 3]

    step = tf.function(model)
    logits = []

    def model_fn(clips):
        logits.append(step(clips))
        return logits[-1]

    probabilities = average_views(view_logits(model_fn, views, 4), "prob")
    np.testing.assert_allclose(tf.concat(logits, axis=0), GOLDEN[name]["view_logits"], atol=1e-4)
    np.testing.assert_allclose(probabilities[0], GOLDEN[name]["mean_prob"], atol=1e-4)
