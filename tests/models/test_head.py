import numpy as np
import tensorflow as tf

from vswin.models.head import ClassificationHead


def test_initial_weights_follow_the_official_distribution():
    head = ClassificationHead(50)
    head(tf.zeros([2, 1, 1, 1, 100]))
    np.testing.assert_allclose(np.std(head.linear.kernel), 0.01, rtol=0.05)
    assert not np.any(head.linear.bias)


def test_head_averages_then_drops_only_in_training():
    head = ClassificationHead(3)
    features = tf.random.normal([2, 2, 3, 4, 5])
    dropout = tf.constant([[0.0] * 5, [2.0] * 5])
    pooled = tf.reduce_mean(features, axis=[1, 2, 3]).numpy()
    plain = head(features, training=False, dropout=dropout)
    np.testing.assert_allclose(plain, pooled @ head.linear.kernel.numpy(), atol=1e-6)
    dropped = head(features, training=True, dropout=dropout)
    np.testing.assert_allclose(dropped[0], np.zeros(3), atol=1e-7)
    np.testing.assert_allclose(dropped[1], 2 * plain[1], atol=1e-6)


def test_logits_are_float32_under_every_policy():
    head = ClassificationHead(3, dtype="mixed_float16")
    assert head(tf.ones([2, 1, 2, 3, 5], tf.float16)).dtype == tf.float32
    assert head.linear.compute_dtype == "float32"
