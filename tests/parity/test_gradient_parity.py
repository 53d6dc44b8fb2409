"""Gradients against numbers computed with the official PyTorch implementation."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from vswin.weights.names import named_weights

GOLDEN = json.loads(Path(__file__).with_name("train_steps.json").read_text())


def test_loss_and_gradient_norms_equal_the_official_ones(golden_model):
    model = golden_model("tiny_w433")
    clips = np.random.RandomState(11).standard_normal((2, 3, 8, 48, 48)).astype("f4")
    weights = named_weights(model)
    with tf.GradientTape() as tape:
        features = model.backbone(clips.transpose(0, 2, 3, 4, 1), training=True)
        logits = model.head(features, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 2], logits))
    norms = {name: tf.norm(g).numpy() for name, g in tape.gradient(loss, weights).items()}

    np.testing.assert_allclose(loss, GOLDEN["losses"][0], rtol=1e-5)
    assert norms.keys() == GOLDEN["grad_norms_step0"].keys()
    for name, norm in GOLDEN["grad_norms_step0"].items():
        np.testing.assert_allclose(norms[name], norm, rtol=1e-4, err_msg=name)
