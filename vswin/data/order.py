"""Assign clips to positions in global batches, for any number of workers and replicas.

Each epoch is a stateless permutation of the samples, divided into global batches; a balanced epoch has as many samples,
equally many of each class. Each worker takes its shard of every batch before anything is decoded. Used by
`vswin.data.pipeline`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from vswin.data.samples import Sample

_NO_LABEL = 2**31 - 1  # stands for the class of samples without labels


@dataclass(frozen=True)
class Shard:
    """The shard of every global batch that this worker loads, and the number of replicas.

    Attributes:
        num_workers: Processes that load data.
        worker: Index of this process, 0 .. num_workers - 1.
        num_replicas: Devices of all workers together. Each dataset element is the batch of one replica; the batches
            of a worker's replicas are consecutive, as `tf.distribute` expects.
    """

    num_workers: int = 1
    worker: int = 0
    num_replicas: int = 1

    @classmethod
    def of(cls, context: tf.distribute.InputContext) -> Shard:
        """Returns the shard of the worker for which a strategy requests data."""
        return cls(context.num_input_pipelines, context.input_pipeline_id, context.num_replicas_in_sync)


ONE_WORKER = Shard()


@dataclass(frozen=True)
class Order:
    """The order of the clips in training.

    Attributes:
        seed: Seed of the shuffling and of all draws, >= 0.
        batch_size: Clips per global batch.
        epochs: Epoch to stop before.
        first_epoch: Epoch to start with.
        first_step: Step of `first_epoch` to start with.
        shard: The shard of this worker.
        repeats: Clips per video in an epoch, all in one global batch.
        balance: Whether the classes come equally often, see `order_samples`.
    """

    seed: int
    batch_size: int
    epochs: int
    first_epoch: int = 0
    first_step: int = 0
    shard: Shard = ONE_WORKER
    repeats: int = 1
    balance: bool = False


def count_steps(num_samples: int, batch_size: int, repeats: int = 1) -> int:
    """Counts the global batches of an epoch; the last one may be padded."""
    return -(-num_samples * repeats // batch_size)


def clip_generator(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """Makes the generator for all draws of one training clip.

    `index` is the video's index in the samples; `repeat` is the clip's number among the video's clips, from 0.
    """
    return np.random.default_rng([seed, epoch, index, repeat] if repeat else [seed, epoch, index])


def batch_samples(samples: Sequence[Sample], order: Order, epoch: int, step: int) -> list[Sample]:
    """Returns the videos of a global training batch in order; a padded last batch has fewer."""
    return [samples[index] for index in batch_indices(samples, order, epoch, step) if index >= 0]


def batch_indices(samples: Sequence[Sample], order: Order, epoch: int, step: int) -> list[int]:
    """Returns the record index in each slot of a global training batch, -1 for padding.

    `epoch` and the `step` within it count from 0. Copy k of the batch's videos fills the k-th part of the slots.
    """
    indices = order_samples(samples, order, tf.constant(epoch, tf.int64))
    return _lay_out(indices, order.batch_size, order.repeats)[step].numpy().tolist()


def order_samples(samples: Sequence[Sample], order: Order, epoch: tf.Tensor) -> tf.Tensor:
    """Draws the record indices of an epoch in their order, int32 [N]; `epoch` is int64, from 0.

    With `order.balance`, an epoch still has N samples. The classes take turns, so their counts differ by one at most,
    over any number of epochs. A class uses each of its samples once before any sample comes again. A sample with
    several labels belongs to each of these classes; those without labels form a class of their own.
    """
    indices = tf.range(len(samples))
    if order.balance:
        seed, members = order.seed, defaultdict[int, list[int]](list)
        for index, sample in enumerate(samples):
            for label in sample.labels or (_NO_LABEL,):
                members[label].append(index)
        classes = {label: np.array(members[label]) for label in sorted(members)}
        balance = partial(_balance, classes, len(samples), seed)
        indices = tf.numpy_function(balance, [epoch], tf.int32, stateful=False)
        indices.set_shape([len(samples)])
    both = tf.stack([tf.constant(order.seed, tf.int64), epoch])  # [2]
    return tf.random.experimental.stateless_shuffle(indices, both)


def _balance(classes: Mapping[int, np.ndarray], num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Gives N record indices for an epoch, int32 [N], from the indices of the samples of each class."""
    turns = int(epoch) * num_samples + np.arange(num_samples)
    chosen = np.empty(num_samples, np.int32)
    for rank, (label, of_class) in enumerate(classes.items()):
        is_turn = turns % len(classes) == rank
        rounds, positions = np.divmod(turns[is_turn] // len(classes), len(of_class))
        # Each round is another permutation of the samples of the class.
        drawn = [np.random.default_rng([seed, label, number]).permutation(of_class) for number in np.unique(rounds)]
        chosen[is_turn] = np.array(drawn, np.int32).reshape(-1, len(of_class))[rounds - rounds[0], positions]
    return chosen


def _lay_out(indices: tf.Tensor, batch_size: int, repeats: int) -> tf.Tensor:
    """Divides one epoch's record indices into global batches, int32 [steps, B], -1 for padding."""
    # A batch contains each video once before any repeats, so that neighbours, which mixing pairs, differ if possible.
    videos_per_step = batch_size // repeats
    num_steps = count_steps(indices.shape[0], batch_size, repeats)
    padding = num_steps * videos_per_step - indices.shape[0]
    indices = tf.pad(indices, [[0, padding]], constant_values=-1)  # [steps*B/repeats]
    indices = tf.reshape(indices, [num_steps, videos_per_step])  # [steps, B/repeats]
    return tf.tile(indices, [1, repeats])  # [steps, B]


def make_slots(
    indices: tf.Tensor, epoch: tf.Tensor, batch_size: int, shard: Shard, repeats: int = 1
) -> tf.data.Dataset:
    """Divides one epoch's record indices, int32 [N], into global batches and takes this worker's shard of each.

    Each element is a slot: record index or -1, position in the global batch, epoch, and the clip's number among the
    video's clips in the epoch.
    """
    local_size = batch_size // shard.num_workers
    mine = slice(shard.worker * local_size, (shard.worker + 1) * local_size)
    indices = _lay_out(indices, batch_size, repeats)  # [steps, B]
    columns = (indices, tf.broadcast_to(tf.range(batch_size), indices.shape), _number_clips(indices))
    slots = tf.data.Dataset.from_tensor_slices(tuple(column[:, mine] for column in columns)).unbatch()
    return slots.map(lambda index, position, number: (index, position, epoch, number))


def _number_clips(indices: tf.Tensor) -> tf.Tensor:
    """Counts for each slot of an epoch how many earlier slots have its record index, int32 [steps, B]."""
    flat = tf.reshape(indices, [-1])
    by_index = tf.argsort(flat, stable=True)
    ordered = tf.gather(flat, by_index)
    numbers = tf.range(flat.shape[0]) - tf.searchsorted(ordered, ordered)
    return tf.reshape(tf.scatter_nd(by_index[:, tf.newaxis], numbers, flat.shape), indices.shape)
