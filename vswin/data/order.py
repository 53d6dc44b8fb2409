"""Assign clips to positions in global batches, for any number of workers and replicas.

Each epoch is a stateless permutation of the samples, divided into global batches. Each worker takes its shard of every
batch before anything is decoded. Used by `vswin.data.pipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from vswin.data.samples import Sample


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
    """

    seed: int
    batch_size: int
    epochs: int
    first_epoch: int = 0
    first_step: int = 0
    shard: Shard = ONE_WORKER
    repeats: int = 1


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
    return [samples[index] for index in batch_indices(len(samples), order, epoch, step) if index >= 0]


def batch_indices(num_samples: int, order: Order, epoch: int, step: int) -> list[int]:
    """Returns the record index in each slot of a global training batch, -1 for padding.

    `epoch` and the `step` within it count from 0. Copy k of the batch's videos fills the k-th part of the slots.
    """
    indices = shuffle(num_samples, order.seed, tf.constant(epoch, tf.int64))
    return _lay_out(indices, order.batch_size, order.repeats)[step].numpy().tolist()


def shuffle(num_samples: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Draws the order of the record indices in an epoch, int32 [num_samples]; `epoch` is int64, from 0."""
    both = tf.stack([tf.constant(seed, tf.int64), epoch])  # [2]
    return tf.random.experimental.stateless_shuffle(tf.range(num_samples), both)


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
    video's clips.
    """
    local_size = batch_size // shard.num_workers
    mine = slice(shard.worker * local_size, (shard.worker + 1) * local_size)
    indices = _lay_out(indices, batch_size, repeats)[:, mine]  # [steps, B/workers]
    positions = tf.broadcast_to(tf.range(batch_size)[mine], indices.shape)  # [steps, B/workers]
    videos_per_step = batch_size // repeats
    slots = tf.data.Dataset.from_tensor_slices((indices, positions)).unbatch()
    return slots.map(lambda index, position: (index, position, epoch, position // videos_per_step))
