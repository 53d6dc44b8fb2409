"""The classifier on top of the backbone's features. Called by `video_swin`."""

from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.saving.register_keras_serializable("vswin")
class ClassificationHead(keras.layers.Layer):
    """Averages features over time and space and maps them to logits, in float32 under every policy.

    Args:
        num_classes: classes K.
    Source: Video-Swin-Transformer mmaction/models/heads/i3d_head.py, I3DHead.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        self.linear = keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32", name="linear")

    def call(self, features: tf.Tensor, training: bool = False, dropout: tf.Tensor | None = None) -> tf.Tensor:
        """Classifies features.

        Args:
            features: [B, T', H', W', 8C].
            training: whether `dropout` applies.
            dropout: multipliers of the averaged features, float32 [B, 8C]; None drops nothing.

        Returns:
            Logits, float32 [B, K].
        """
        pooled = tf.reduce_mean(tf.cast(features, tf.float32), axis=[1, 2, 3])  # [B, 8C]
        if training and dropout is not None:
            pooled *= dropout
        return self.linear(pooled)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}
