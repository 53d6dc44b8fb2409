"""keras-cv's VideoSwinT with a head, as a graph, as a graph with oneDNN, or compiled by XLA; see `protocol.py`.

The clips are normalised before the measurement.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from protocol import Case, serve

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
if json.loads(sys.argv[1])["variant"] == "onednn":
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"

import keras  # noqa: TID251 (another program's Keras)
import keras_cv
import tensorflow as tf

NUM_CLASSES = 400


def build(case: Case) -> Callable[[], object]:
    """Makes a forward pass or a training step."""
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if case.precision == "bfloat16" else "float32")
    shape = (case.num_frames, case.size, case.size, 3)
    # The defaults are those of Swin-T; the class VideoSwinTBackbone needs a preset that does not exist.
    backbone = keras_cv.models.VideoSwinBackbone(include_rescaling=False, input_shape=shape)
    pooled = keras.layers.GlobalAveragePooling3D()(backbone.output)
    logits = keras.layers.Dense(NUM_CLASSES, dtype="float32")(pooled)
    model = keras.Model(backbone.input, logits)
    clips, labels = tf.random.normal([case.batch_size, *shape]), tf.zeros([case.batch_size], tf.int32)
    optimizer = keras.optimizers.AdamW(1e-3)
    optimizer.build(model.trainable_variables)

    def forward() -> tf.Tensor:
        return model(clips, training=False)

    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(clips, training=True))
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    run = tf.function(step if case.task == "step" else forward, jit_compile=case.variant == "xla")
    return lambda: run().numpy()


if __name__ == "__main__":
    serve(build, ["keras-cv", "keras", "tensorflow"])
