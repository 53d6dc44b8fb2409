"""The training loss: cross entropy with soft targets, on request with weights of classes and focal.

With several labels per sample it is the binary cross entropy of each class, on request focal or asymmetric.

Source: effective: Y. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019; focal: T.-Y. Lin et
    al., Focal Loss for Dense Object Detection, 2017, with a factor for each class of a soft target; asymmetric: T.
    Ridnik et al., Asymmetric Loss For Multi-Label Classification, 2021.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from vswin.config.schema import TrainConfig
from vswin.console import count_of
from vswin.data.catalog import Catalog
from vswin.data.samples import multi_hot
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


@dataclass(frozen=True)
class BinaryLoss:
    """The loss of clips that each have several labels or none; arguments and result of a call are those of `Loss`.

    Attributes:
        class_weights: A weight for the positives of each of the K classes; None stands for 1.
        focal_gamma, negative_gamma: Exponents of the focal factors of positives and negatives; 0 for none.
        negative_margin: Is taken off the probabilities of negatives, so that easy ones cost nothing.
    """

    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 0.0
    negative_gamma: float = 0.0
    negative_margin: float = 0.0

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Computes the losses, float32 [B], means over the classes."""
        positives, negatives = tf.nn.softplus(-logits), tf.nn.softplus(logits)  # -log p and -log(1 - p), each [B, K]
        if self.focal_gamma > 0:
            positives *= tf.exp(-self.focal_gamma * tf.nn.softplus(logits))
        probabilities = tf.sigmoid(logits)  # [B, K]
        if self.negative_margin > 0:
            probabilities = tf.maximum(probabilities - self.negative_margin, 0.0)
            negatives = -tf.math.log1p(-probabilities)
        if self.negative_gamma > 0:
            negatives *= tf.maximum(probabilities, _SMALLEST_REST) ** self.negative_gamma
        if self.class_weights is not None:
            positives *= tf.constant(self.class_weights)
        return tf.reduce_mean(targets * positives + (1 - targets) * negatives, axis=1)


def make_loss(config: TrainConfig, class_weights: tuple[float, ...] | None) -> Loss | BinaryLoss:
    """Makes the loss that fits the task."""
    loss = config.loss
    if not config.dataset.is_multi_label:
        return Loss(class_weights, loss.focal_gamma)
    negative_gamma = loss.focal_gamma if loss.negative_gamma is None else loss.negative_gamma
    return BinaryLoss(class_weights, loss.focal_gamma, negative_gamma, loss.negative_margin)


def count_samples(catalog: Catalog) -> np.ndarray:
    """Counts the training samples of each class, int64 [K]."""
    labels = [label for sample in catalog.train for label in sample.labels]
    return np.bincount(labels, minlength=len(catalog.class_names))


def weigh_classes(config: TrainConfig, catalog: Catalog) -> tuple[float, ...] | None:
    """Computes the weights of `loss.class_weights`, of mean 1 over the training samples of an epoch; None for none.

    With `augment.balance`, an epoch has equally many samples of each class. A class without samples gets 1. With
    several labels per sample, the weights are those of positives against negatives, and not scaled.

    Raises:
        InputError: if a weight is given for a class that the data set does not have.
    """
    counts, names, given = count_samples(catalog), catalog.class_names, config.loss.class_weights
    has_samples, several, num_samples = counts > 0, config.dataset.is_multi_label, len(catalog.train)
    if config.augment.balance and several:
        # How often each sample comes in an epoch, and so each class.
        marks = multi_hot(catalog.train, len(names))
        has_none = marks.sum(axis=1) == 0
        turns = marks @ (1 / np.maximum(counts, 1)) + has_none / max(has_none.sum(), 1)
        counts = turns * num_samples / turns.sum() @ marks
    elif config.augment.balance:
        counts = np.where(has_samples, counts.sum() / has_samples.sum(), 0)
    weights = np.ones(len(names))
    if isinstance(given, dict):
        for name, weight in given.items():
            if str(name) not in names:
                some = f"the data set has {count_of(len(names), 'class')}, e.g. {', '.join(names[:3])}"
                raise InputError(f"loss.class_weights: there is no class {name!r}; {nearest(str(name), names, some)}")
            weights[names.index(str(name))] = weight
    elif given == "none":
        return None
    else:
        beta = config.loss.effective_beta
        sizes, others = np.maximum(counts, 1), np.maximum(num_samples - counts, 1)
        if given == "effective":
            sizes, others = ((1 - beta**number) / (1 - beta) for number in (sizes, others))
        weights = others / sizes if several else 1 / sizes
    if not several:
        weights *= counts.sum() / (counts @ weights)
    return tuple(np.where(has_samples, weights, 1.0).tolist())
