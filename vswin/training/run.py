"""A training run from configuration to best checkpoint; called by train.py."""

import dataclasses
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tf_keras as keras

from vswin.build import build_model, check_weights, load_weights
from vswin.checks import check_divides
from vswin.config import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.frames import FrameLoader, open_frames
from vswin.data.pipeline import Order, Share, batch_records, count_steps, make_train_dataset, make_val_dataset
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.runtime import logger, make_strategy, set_precision, start_log
from vswin.training.checkpoints import Checkpoints
from vswin.training.finite import FiniteGuard
from vswin.training.interruptions import SignalStop, full_disk_explained, resume_command
from vswin.training.loggers import open_loggers
from vswin.training.optimizer import build_optimizer, describe_groups
from vswin.training.progress import BadVideoGuard, EpochReport
from vswin.training.run_folder import open_run_folder
from vswin.training.schedule import WarmupCosine
from vswin.training.summary import describe_run
from vswin.training.trainer import Trainer
from vswin.weights.checkpoint import open_weights
from vswin.weights.names import named_weights
from vswin.zoo import configured_size


def run_training(config: TrainConfig, command: Sequence[str] = ()) -> dict[str, list[float]]:
    """Trains a model as configured.

    Args:
        config: the run, checked.
        command: the command line behind it, as in `sys.orig_argv`, from which that to continue is made.

    Returns:
        Key (`loss`, `val_top1`, ...) -> its value after each epoch of this session.

    Raises:
        InputError: if data, weights or the output folder do not allow the run, or it meets numbers that are not
            finite or a full disk.
        SystemExit: if a signal ends it.
    """
    start_log(None)
    set_precision(config.runtime.precision)
    keras.utils.set_random_seed(config.seed)
    strategy = make_strategy(config.runtime.strategy)
    check_divides(config.batch_size, strategy.num_replicas_in_sync, config.runtime.micro_batches)
    catalog = _find_inputs(config)
    frames = open_frames(config.dataset, config.clip.resize, [video.path for video in catalog.train + catalog.val])
    with strategy.scope():
        model, weights = _load_model(config, catalog)
        folder = open_run_folder(config)
        start_log(folder / "train.log")
        steps = count_steps(len(catalog.train), config.batch_size)
        trainer = _build_trainer(config, model, steps)
        checkpoints = Checkpoints(folder, trainer, steps, _metadata(config, catalog), config.patience)
    first_epoch = checkpoints.restore()
    trainer.first_step = checkpoints.steps_saved
    groups = describe_groups(named_weights(model), config.optimizer)
    size = configured_size(config.model)
    logger.info(describe_run(config, size, catalog, groups, weights, strategy))
    logger.info(f"{'output:':<16}{folder}" + (f", resumed after {checkpoints.place}" if checkpoints.place else ""))

    if checkpoints.is_stalled or first_epoch == config.epochs:
        logger.info("the run is complete" + (", stopped early" if first_epoch < config.epochs else ""))
        checkpoints.say_best()
        return {}

    history = _fit(trainer, config, catalog, frames, checkpoints, folder, resume_command(command, folder))
    if config.dataset.decoder == "auto" and (num_videos := frames.count_videos()["pyav"]):
        logger.info(f"PyAV read {num_videos:,} videos that OpenCV cannot")
    program = "python evaluate.py" if Path("evaluate.py").exists() else "vswin evaluate"
    logger.info(f"test it on several views of every video: {program} {shlex.quote(f'run={folder}')}")
    return history


def _fit(
    trainer: Trainer,
    config: TrainConfig,
    catalog: Catalog,
    frames: FrameLoader,
    checkpoints: Checkpoints,
    folder: Path,
    go_on: str,
) -> dict[str, list[float]]:
    """Trains the epochs that are left, ends cleanly whatever happens, and returns the history."""
    bad = BadVideos()
    num_videos = len(catalog.train) + len(catalog.val)
    steps = count_steps(len(catalog.train), config.batch_size)
    first_epoch = checkpoints.epochs_saved
    strategy = trainer.distribute_strategy
    share = Share(num_replicas=strategy.num_replicas_in_sync)
    order = Order(config.seed, config.batch_size, config.epochs, first_epoch, trainer.first_step, share)
    train = strategy.distribute_datasets_from_function(
        lambda _: make_train_dataset(
            catalog.train, config.clip, config.augment, config.dataset.allow_flip, order, bad, frames
        )
    )
    val = strategy.distribute_datasets_from_function(
        lambda _: make_val_dataset(catalog.val, config.clip, config.batch_size, bad, share, frames)
    )
    find_records = partial(batch_records, catalog.train, order)
    finite = FiniteGuard(trainer.model, steps, find_records, folder / "non_finite_step.json")
    bad_guard = BadVideoGuard(bad, folder / "bad_videos.csv", num_videos, config.dataset.max_bad_share)
    with (
        full_disk_explained(checkpoints, folder, go_on),
        SignalStop(checkpoints, finite, go_on) as signals,
        open_loggers(config, folder, first_epoch) as loggers,
        EpochReport(steps, len(catalog.train), config.epochs) as report,
    ):
        history = trainer.fit(
            train,
            validation_data=val,
            validation_steps=count_steps(len(catalog.val), config.batch_size),
            initial_epoch=first_epoch,
            epochs=config.epochs,
            steps_per_epoch=steps,
            callbacks=[report, finite, *loggers, checkpoints, bad_guard, signals],
            verbose=0,
        )
    return history.history


def _find_inputs(config: TrainConfig) -> Catalog:
    """Finds the videos, and checks what the weights are called; the user hears of both at once."""
    problems = []
    try:
        if config.init_from is not None:
            check_weights(config.init_from)
    except InputError as error:
        problems.append(str(error))
    try:
        catalog = load_catalog(config.dataset)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError("\n\n".join(problems))
    if not catalog.train:
        raise InputError("there is nothing to train on: dataset.train_list is null; give the training list")
    return catalog


def _load_model(config: TrainConfig, catalog: Catalog) -> tuple[VideoSwin, str]:
    """Builds the model and fills it; returns it with a line on what was loaded."""
    size, num_classes = configured_size(config.model), len(catalog.class_names)
    checkpoint = None if config.init_from is None else open_weights(config.init_from, config.source)
    model = build_model(size, num_classes, dropout=config.model.dropout, remat=config.runtime.remat)
    if checkpoint is None:
        return model, "none: every weight is random (init_from=null)"
    return model, str(load_weights(model, checkpoint, reset_head=True, resize_bias=config.model.resize_bias))


def _build_trainer(config: TrainConfig, model: VideoSwin, steps: int) -> Trainer:
    runtime = config.runtime
    trainer = Trainer(model, config.batch_size, config.seed, config.augment.label_smoothing, runtime.micro_batches)
    # Under float16 Keras wraps the optimizer for dynamic loss scaling.
    trainer.compile(optimizer=_build_optimizer(config, model, steps))
    trainer.optimizer.build(model.trainable_variables)
    return trainer


def _build_optimizer(config: TrainConfig, model: VideoSwin, steps: int) -> keras.optimizers.Optimizer:
    schedule = WarmupCosine(
        config.optimizer.learning_rate,
        steps,
        config.epochs,
        config.optimizer.warmup_epochs,
        config.optimizer.warmup_ratio,
        is_staircase=config.optimizer.schedule == "cosine_per_epoch",
    )
    return build_optimizer(config.optimizer, named_weights(model), schedule)


def _metadata(config: TrainConfig, catalog: Catalog) -> dict[str, Any]:
    return {
        "size": dataclasses.asdict(configured_size(config.model)),
        "model": config.model.name,
        "dataset": config.dataset.name,
        "num_classes": len(catalog.class_names),
        "class_names": list(catalog.class_names),
        "init_from": config.init_from,
    }
