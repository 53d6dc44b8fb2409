"""The random numbers of a training step: drop-path and dropout multipliers.

They depend only on (seed, step, position in the global batch). They are drawn outside any rematerialised or compiled
function and passed in. So a run with another number of replicas, or resumed after a kill, draws the same numbers.
Called by `VideoSwin.make_draws`.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vswin.models.zoo import ModelSize

# One stream of random numbers per purpose; `vswin.training` draws those of the clips.
DROP_PATH_STREAM, DROPOUT_STREAM, ERASING_STREAM, MIXING_STREAM = range(4)


class Draws(NamedTuple):
    """Holds the multipliers of one batch, each 0 or 1 / (1 - rate).

    Args:
        drop_path: for both branches of every block, float32 [B, blocks, 2].
        dropout: for every feature before the head, float32 [B, 8C].
    """

    drop_path: tf.Tensor
    dropout: tf.Tensor


def make_draws(
    seed: tf.Tensor | int,
    step: tf.Tensor | int,
    positions: tf.Tensor,
    global_batch_size: tf.Tensor | int,
    size: ModelSize,
    dropout: float,
) -> Draws:
    """Draws the multipliers of the samples at `positions`, int32 [B], of a global batch.

    The whole batch is drawn and the positions are picked from it: the numbers are few, and picking makes them the same
    for any number of replicas. The drop-path rate rises linearly from 0 to that of `size` over all blocks; `dropout` is
    the rate before the head.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, SwinTransformer3D (rates); timm,
        drop_path (scaling).
    """
    rates = np.linspace(0, size.drop_path_rate, size.num_blocks, dtype=np.float32)[:, None]  # [blocks, 1]
    paths_seed, features_seed = (stream_seed(seed, step, stream) for stream in (DROP_PATH_STREAM, DROPOUT_STREAM))
    drop_path = _multipliers(paths_seed, [global_batch_size, size.num_blocks, 2], rates)
    features = _multipliers(features_seed, [global_batch_size, size.num_features], np.float32(dropout))
    return Draws(tf.gather(drop_path, positions), tf.gather(features, positions))  # [B, blocks, 2], [B, 8C]


def stream_seed(seed: tf.Tensor | int, step: tf.Tensor | int, stream: int) -> tf.Tensor:
    """Makes the seed of one of the streams above for one step, int64 [2], for stateless functions of `tf.random`."""
    return tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)]), stream)


def _multipliers(seed: tf.Tensor, shape: list, rates: np.ndarray | np.float32) -> tf.Tensor:
    # Philox is named, since the automatic choice differs between devices.
    uniform = tf.random.stateless_uniform(shape, seed, alg="philox")
    return tf.where(uniform < rates, 0.0, 1 / (1 - rates))
