"""The set-up of a run, for training, evaluation, prediction, `vswin tune`, the self-test and benchmarks."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from vswin.cluster import Workers
from vswin.config.checks import check_divides
from vswin.config.schema import EvaluateConfig, TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader
from vswin.data.order import Order, Shard
from vswin.data.pipeline import make_train_dataset
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.runtime import make_strategy, set_precision
from vswin.weights.build import LoadReport, load_weights
from vswin.weights.checkpoint import Checkpoint


def set_up(config: TrainConfig | EvaluateConfig, is_alone: bool = False) -> tf.distribute.Strategy:
    """Gets the devices of a run ready, and sets its precision and seed.

    `is_alone` takes the devices of this machine, even if the process belongs to a job of several workers.

    Raises:
        InputError: if the devices cannot be had, or the batch cannot be divided among them.
    """
    # This comes first: whatever TensorFlow computes before it knows the other workers is computed without them.
    strategy = make_strategy(config.runtime.strategy, is_alone)
    set_precision(config.runtime.precision)
    devices = strategy.num_replicas_in_sync
    with Workers(strategy).errors_explained():
        if isinstance(config, TrainConfig):
            keras.utils.set_random_seed(config.seed)
            augment, parts = config.augment, config.runtime.micro_batches
            check_divides(config.batch_size, devices, parts, augment.in_pairs, augment.repeats)
        elif config.batch_size is not None:
            check_divides(config.batch_size, devices)
    return strategy


def make_model(
    config: TrainConfig | EvaluateConfig,
    num_classes: int,
    checkpoint: Checkpoint | None = None,
    new_classes: Sequence[str] | None = None,
) -> tuple[VideoSwin, LoadReport]:
    """Builds the network of a configuration in the current strategy's scope, and loads weights, if any.

    With `new_classes`, the weights are fine-tuned to these classes, so a head of other classes is not loaded; without
    them it is an `InputError`, as are weights of another network.
    """
    model = VideoSwin(configured_size(config.model), num_classes, config.model.dropout, config.runtime.remat)
    model.build()
    if checkpoint is None:
        return model, LoadReport("none: every weight is random (init_from=null)", loaded=())
    is_new = new_classes is not None
    return model, load_weights(model, checkpoint, is_new, config.model.resize_bias, new_classes)


def distribute_training(
    strategy: tf.distribute.Strategy,
    config: TrainConfig,
    catalog: Catalog,
    order: Order,
    bad: BadVideos,
    frames: FrameLoader,
) -> tf.distribute.DistributedDataset:
    """Makes the training batches of a run and gives each device its part; `bad` collects undecodable videos."""
    return strategy.distribute_datasets_from_function(
        lambda context: make_train_dataset(
            catalog.train,
            config.clip,
            config.augment,
            config.dataset.allow_flip,
            dataclasses.replace(order, shard=Shard.of(context)),
            bad,
            frames,
            len(catalog.class_names) if config.dataset.is_multi_label else None,
        )
    )
