"""Make the tf.data datasets of training, validation and evaluation.

Every element is one batch, a dictionary:

- `clips` uint8 [B, T, H, W, 3] RGB (training, validation) or `views` uint8 [B, V, T, H, W, 3] (evaluation);
- `labels` int32 [B]; -1 in validation and evaluation where the video could not be decoded. With several labels per
  sample they are 0 or -1 there, and in training float32 [B, K] of 0 and 1;
- `weights` float32 [B], 0 for padding, and in training for a clip that could not be decoded;
- `positions` int32 [B], the clip's position in the global batch;
- `indices` int32 [B], the index in `samples`, -1 for padding.

The content of a batch slot depends only on the seed, the epoch and the slot's position in the global batch. Runs with
other numbers of workers or replicas, and resumed runs, therefore see the same clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from vswin.cluster import count_cores
from vswin.config.checks import check_divides
from vswin.config.schema import AugmentConfig, ClipConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.decoders import ExitGate, check_opencv
from vswin.data.frames import FrameLoader
from vswin.data.order import ONE_WORKER, Order, Shard, clip_generator, make_slots, order_samples
from vswin.data.samples import Sample, multi_hot
from vswin.data.views import load_protocol_views, load_train_clip
from vswin.errors import DecodeError, InputError

_exit_gate = ExitGate()


def make_train_dataset(
    samples: Sequence[Sample],
    clip: ClipConfig,
    augment: AugmentConfig,
    allow_flip: bool,
    order: Order,
    bad: BadVideos,
    loader: FrameLoader | None = None,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Makes the shuffled and augmented batches of all epochs, `count_steps` per epoch and replica, with `clips`.

    `allow_flip` states whether mirroring keeps the labels; `bad` collects the videos that cannot be decoded. With
    `num_classes`, samples have several labels each, or none.

    Raises:
        InputError: If there are no videos, or the batch does not divide evenly.
    """
    _check(samples, order.batch_size, order.shard, order.repeats)
    samples, frames = list(samples), loader or FrameLoader()

    def load(sample: Sample, index: int, epoch: int, repeat: int) -> np.ndarray:
        rng = clip_generator(order.seed, epoch, index, repeat)
        return load_train_clip(sample.path, clip, augment, allow_flip, rng, frames, sample.part).pixels

    def slots_of(epoch: tf.Tensor) -> tf.data.Dataset:
        indices = order_samples(samples, order, epoch)
        return make_slots(indices, epoch, order.batch_size, order.shard, order.repeats)

    slots = tf.data.Dataset.range(order.first_epoch, order.epochs).flat_map(slots_of)
    slots = slots.skip(order.first_step * order.batch_size // order.shard.num_workers)
    shape = (clip.num_frames, clip.crop, clip.crop, 3)
    size = order.batch_size // order.shard.num_replicas
    return _make_batches(slots, samples, load, bad, "clips", shape, size, counts_bad=False, num_classes=num_classes)


def make_val_dataset(
    samples: Sequence[Sample],
    clip: ClipConfig,
    batch_size: int,
    bad: BadVideos,
    shard: Shard = ONE_WORKER,
    loader: FrameLoader | None = None,
) -> tf.data.Dataset:
    """Makes the batches, with `clips`, for validation during training: each video once, its middle clip, centre crop.

    For arguments and errors see `make_eval_dataset`; the configured numbers of clips and crops are ignored.
    """
    one_view = dataclasses.replace(clip, num_clips=1, num_crops=1)
    dataset = make_eval_dataset(samples, one_view, batch_size, bad, shard, loader)
    return dataset.map(lambda batch: {"clips": tf.squeeze(batch.pop("views"), axis=1), **batch})  # [B, T, H, W, 3]


def make_eval_dataset(
    samples: Sequence[Sample],
    clip: ClipConfig,
    batch_size: int,
    bad: BadVideos,
    shard: Shard = ONE_WORKER,
    loader: FrameLoader | None = None,
) -> tf.data.Dataset:
    """Makes the batches of an evaluation: every video once, in order, with all its `views`.

    A global batch has `batch_size` videos. `bad` collects the videos that cannot be decoded; their views are zero and
    their label is -1. Without a `loader`, a plain `FrameLoader` reads the frames.

    Raises:
        InputError: If there are no videos, or the batch does not divide evenly.
    """
    _check(samples, batch_size, shard)
    samples, frames = list(samples), loader or FrameLoader()

    def load(sample: Sample, index: int, epoch: int, repeat: int) -> np.ndarray:
        return load_protocol_views(sample.path, clip, frames, sample.part)

    slots = make_slots(tf.range(len(samples)), tf.constant(0, tf.int64), batch_size, shard)
    shape = (clip.num_clips * clip.num_crops, clip.num_frames, clip.crop, clip.crop, 3)
    return _make_batches(slots, samples, load, bad, "views", shape, batch_size // shard.num_replicas, counts_bad=True)


def _make_batches(
    slots: tf.data.Dataset,
    samples: Sequence[Sample],
    load: Callable[[Sample, int, int, int], np.ndarray],
    bad: BadVideos,
    key: str,
    shape: tuple[int, ...],
    size: int,
    counts_bad: bool,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Fills slots with the pixels of `load(sample, index, epoch, repeat)` and makes batches of `size` slots.

    With `counts_bad`, a video that cannot be decoded counts, with label -1; otherwise its weight is 0. With
    `num_classes`, the labels mark the classes of a sample.
    """
    empty = np.zeros(shape, np.uint8)
    none = np.zeros([], np.int32) if num_classes is None else np.zeros(num_classes, np.float32)

    def label(sample: Sample) -> np.ndarray:
        if num_classes is not None:
            return np.array(multi_hot([sample], num_classes)[0])
        return np.array(sample.labels[0] if len(sample.labels) == 1 else 0, np.int32)

    def load_slot(index: int, epoch: int, repeat: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        with _exit_gate.passing() as is_open:
            if index < 0 or not is_open:
                return empty, none, np.float32(0)
            sample = samples[index]
            try:
                return load(sample, index, epoch, repeat), label(sample), np.float32(1)
            except DecodeError as error:
                bad.add(sample.name, error.cause, error.detail)
                return empty, np.full_like(none, -1) if counts_bad else label(sample), np.float32(counts_bad)

    def fill(index: tf.Tensor, position: tf.Tensor, epoch: tf.Tensor, repeat: tf.Tensor) -> dict[str, tf.Tensor]:
        # A stateful function could not run in parallel in a fixed order, and could not be checkpointed.
        pixels, labels, weight = tf.numpy_function(
            load_slot, [index, epoch, repeat], (tf.uint8, none.dtype, tf.float32), stateful=False
        )
        pixels.set_shape(shape)
        labels.set_shape(none.shape)
        weight.set_shape([])
        return {key: pixels, "labels": labels, "weights": weight, "positions": position, "indices": index}

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # There is nothing to tune, and the end of a run would wait for the tuner, which may sleep for a minute.
    options.autotune.enabled = False
    dataset = slots.map(fill, num_parallel_calls=count_cores(), deterministic=True)
    # One batch is enough: the parallel map prefetches as many clips as it has threads.
    return dataset.batch(size, drop_remainder=True).prefetch(1).with_options(options)


def _check(samples: Sequence[Sample], batch_size: int, shard: Shard, repeats: int = 1) -> None:
    """Raises errors here that would otherwise occur inside TensorFlow's threads."""
    check_opencv()
    if not samples:
        raise InputError("there are no videos to read: the list of samples is empty")
    check_divides(batch_size, shard.num_replicas, repeats=repeats)
    if shard.num_replicas % shard.num_workers:
        raise InputError(f"{shard.num_replicas} replicas cannot be divided among {shard.num_workers} workers")
