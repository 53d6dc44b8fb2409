"""The training loss: cross entropy with soft targets, on request with weights of classes and focal.

Source: effective: Y. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019; focal: T.-Y. Lin et
    al., Focal Loss for Dense Object Detection, 2017, with a factor for each class of a soft target.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from vswin.config.schema import TrainConfig
from vswin.console import count_of
from vswin.data.catalog import Catalog
from vswin.errors import InputError, nearest

# (1 - p)^gamma has no finite derivative at p = 1 for gamma < 1.
_SMALLEST_REST = 1e-7


@dataclass(frozen=True)
class Loss:
    """The loss of clips that each have one label, which smoothing and mixing may spread over several classes.

    Attributes:
        class_weights: A weight for each of the K classes; None stands for 1.
        focal_gamma: Exponent of the focal factor; 0 for none.
    """

    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 0.0

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Computes the losses, float32 [B], from targets and logits, both float32 [B, K]."""
        if self.class_weights is None and self.focal_gamma == 0:
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        log_probabilities = tf.nn.log_softmax(logits)  # [B, K]
        losses = -targets * log_probabilities
        if self.focal_gamma > 0:
            losses *= tf.maximum(-tf.math.expm1(log_probabilities), _SMALLEST_REST) ** self.focal_gamma
        if self.class_weights is not None:
            losses *= tf.constant(self.class_weights)
        return tf.reduce_sum(losses, axis=1)


PLAIN = Loss()


def count_samples(catalog: Catalog) -> np.ndarray:
    """Counts the training samples of each class, int64 [K]."""
    return np.bincount([sample.label for sample in catalog.train], minlength=len(catalog.class_names))


def weigh_classes(config: TrainConfig, catalog: Catalog) -> tuple[float, ...] | None:
    """Computes the weights of `loss.class_weights`, of mean 1 over the training samples of an epoch; None for none.

    With `augment.balance`, an epoch has equally many samples of each class. A class without samples gets 1.

    Raises:
        InputError: if a weight is given for a class that the data set does not have.
    """
    counts, names, given = count_samples(catalog), catalog.class_names, config.loss.class_weights
    has_samples = counts > 0
    if config.augment.balance:
        counts = np.where(has_samples, counts.sum() / has_samples.sum(), 0)
    weights = np.ones(len(names))
    if isinstance(given, dict):
        for name, weight in given.items():
            if str(name) not in names:
                some = f"the data set has {count_of(len(names), 'class')}, e.g. {', '.join(names[:3])}"
                raise InputError(f"loss.class_weights: there is no class {name!r}; {nearest(str(name), names, some)}")
            weights[names.index(str(name))] = weight
    elif given == "balanced":
        weights = 1 / np.maximum(counts, 1)
    elif given == "effective":
        beta = config.loss.effective_beta
        weights = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
    else:
        return None
    weights *= counts.sum() / (counts @ weights)
    return tuple(np.where(has_samples, weights, 1.0).tolist())
