"""The moving average of the weights: a second model that follows the one that is trained.

The averages that Keras optimizers offer (`use_ema`) have a constant decay, replace the weights when `fit` ends, and
have no model of their own that could be validated beside the weights.
"""

from collections.abc import Collection, Sequence

import tensorflow as tf

from vswin.models.video_swin import VideoSwin
from vswin.weights.names import named_weights


class WeightAverage:
    """Holds an exponential moving average of the weights of a model, float32.

    It starts with the weights the model has, in variables of the current strategy's scope.

    Args:
        source: the model that is trained.
        decay: share of the average that a step leaves, in (0, 1), in the long run: see `warmed_decay`.

    Attributes:
        model: a model of the same network whose weights are the average.
    """

    def __init__(self, source: VideoSwin, decay: float) -> None:
        self.source = source
        self.decay = decay
        self.model = VideoSwin.from_config(source.get_config())
        self.model.set_weights(source.get_weights())

    def follow(self, frozen: Collection[str], step: tf.Tensor, gradients: Sequence[tf.Tensor] = ()) -> None:
        """Moves the average towards the weights that a step has left, on every replica alike.

        Called in a replica context.

        Args:
            frozen: official names of the weights that never move.
            step: optimizer steps before this one; Keras counts those that loss scaling skips, too.
            gradients: this replica's, under loss scaling. If any is not finite the step was skipped, and the average
                stays as it is.
        """
        weights, averages = named_weights(self.source), named_weights(self.model)

        def move(average: tf.Variable, weight: tf.Tensor, rate: tf.Tensor) -> None:
            average.assign_add((weight - average) * rate)

        def move_all(strategy: tf.distribute.Strategy, rate: tf.Tensor) -> None:
            for name, average in averages.items():
                if name not in frozen:
                    strategy.extended.update(average, move, args=(weights[name], rate), group=False)

        rate = 1.0 - warmed_decay(self.decay, step)
        context = tf.distribute.get_replica_context()
        if gradients:
            is_spoilt = tf.reduce_any([tf.reduce_any(~tf.math.is_finite(gradient)) for gradient in gradients])
            num_spoilt = context.all_reduce("SUM", tf.cast(is_spoilt, tf.float32))
            rate = tf.where(num_spoilt > 0, 0.0, rate)
        context.merge_call(move_all, args=(rate,))


def warmed_decay(decay: float, step: tf.Tensor | int) -> tf.Tensor:
    """Computes the decay of a step, float32: min(decay, (1 + step) / (10 + step)).

    So the initial weights, of which a new head is random, are soon forgotten, and nothing needs to be debiased.

    Args:
        decay: its value in the long run.
        step: optimizer steps before this one.
    Source: tf.train.ExponentialMovingAverage, num_updates.
    """
    step = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1.0 + step) / (10.0 + step))
