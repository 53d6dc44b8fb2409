"""Sets up training (inputs, model, trainer, batches), for runs and for commands that only try steps."""

import dataclasses

import tensorflow as tf
import tf_keras as keras

from vswin.config.checks import check_divides
from vswin.config.schema import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.frames import FrameLoader
from vswin.data.order import Order, Shard
from vswin.data.pipeline import make_train_dataset
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.runtime import logger
from vswin.training.groups import find_frozen
from vswin.training.mixing import Mixing
from vswin.training.optimizer import WarmupCosine, build_optimizer
from vswin.training.trainer import Trainer
from vswin.weights.build import build_model, check_weights
from vswin.weights.checkpoint import open_weights
from vswin.weights.load import load_weights
from vswin.weights.names import named_weights, official_names


def check_batch(config: TrainConfig, num_replicas: int) -> None:
    """Raises an InputError if devices, micro-batches, mixed pairs and clips per video do not divide the batch size."""
    augment = config.augment
    in_pairs = augment.mixup > 0 or augment.cutmix > 0
    check_divides(config.batch_size, num_replicas, config.runtime.micro_batches, in_pairs, augment.repeats)


def find_inputs(config: TrainConfig, goes_on: bool = False) -> Catalog:
    """Finds the videos of a run, which must include training videos, and checks the names of its weights.

    Raises:
        InputError: with all problems, if videos or weights are missing or `model.freeze` names no part of the model.
            If the run `goes_on`, its state holds all weights, and `init_from` is not checked.
    """
    problems, size = [], configured_size(config.model)
    try:
        names = official_names(size.depths, has_head=True)
        find_frozen(names, config.model.freeze_stages, config.model.freeze)
    except InputError as error:
        problems.append(str(error))
    try:
        if config.init_from is not None and not goes_on:
            check_weights(config.init_from)
    except InputError as error:
        problems.append(str(error))
    try:
        catalog = load_catalog(config.dataset)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError("\n  ".join(problems))
    if not catalog.train:
        raise InputError("there is nothing to train on: no training list is named or found; set dataset.train_list")
    return catalog


def make_model(config: TrainConfig, catalog: Catalog, goes_on: bool = False) -> tuple[VideoSwin, str]:
    """Builds the model in the current strategy's scope, loads its weights, and describes what was loaded.

    Raises an InputError if the weights do not fit. If the run `goes_on`, its state is loaded into the model later.
    """
    size, num_classes = configured_size(config.model), len(catalog.class_names)
    checkpoint = None if config.init_from is None or goes_on else open_weights(config.init_from, config.source)
    model = build_model(size, num_classes, dropout=config.model.dropout, remat=config.runtime.remat)
    if goes_on:
        return model, "those of the state that the run goes on from; init_from is not read again"
    if checkpoint is None:
        if config.model.init_from is not None:
            logger.warning(
                f"RANDOM WEIGHTS: init_from=null, but the recipe of {config.model.name} is one for fine-tuning. From "
                "random weights users of the official code reached 55 % where 78.8 % are published"
            )
        if config.model.freeze_stages or config.model.freeze:
            logger.warning("RANDOM WEIGHTS are frozen: init_from=null, so what is not trained stays random")
        return model, "none: every weight is random (init_from=null)"
    report = load_weights(model, checkpoint, True, config.model.resize_bias, catalog.class_names)
    frozen = find_frozen(named_weights(model), config.model.freeze_stages, config.model.freeze)
    if frozen.intersection(report.reinitialised):
        logger.warning(
            f"RANDOM WEIGHTS are frozen: the head is new ({report.head}), and model.freeze keeps it from being trained"
        )
    return model, str(report)


def build_trainer(
    config: TrainConfig,
    model: VideoSwin,
    steps: int,
    schedule: keras.optimizers.schedules.LearningRateSchedule | None = None,
) -> Trainer:
    """Builds a model's optimizer, schedule and train step; call it in the scope of the model's strategy.

    Without a `schedule` it uses the run's own, with `steps` per epoch.
    """
    weights = named_weights(model)
    trainer = Trainer(
        model,
        config.batch_size,
        config.seed,
        config.augment.label_smoothing,
        config.runtime.micro_batches,
        config.augment.erasing,
        Mixing(config.augment.mixup, config.augment.cutmix),
        find_frozen(weights, config.model.freeze_stages, config.model.freeze),
        config.optimizer.ema_decay,
        config.runtime.jit,
    )
    # Under float16 Keras wraps the optimizer for dynamic loss scaling.
    schedule = schedule or build_schedule(config, steps)
    trainer.compile(optimizer=build_optimizer(config.optimizer, weights, schedule, trainer.frozen))
    trainer.optimizer.build(trainer.trained_variables)
    return trainer


def build_schedule(config: TrainConfig, steps: int) -> WarmupCosine:
    """Builds the learning rate schedule of a run with `steps` per epoch."""
    optimizer = config.optimizer
    is_staircase = optimizer.schedule == "cosine_per_epoch"
    warmup = (optimizer.warmup_epochs, optimizer.warmup_ratio)
    return WarmupCosine(optimizer.learning_rate, steps, config.epochs, *warmup, is_staircase)


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
        )
    )
