"""A training run from configuration to best checkpoint; called by train.py."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import tf_keras as keras

from vswin.build import build_model, check_weights, load_weights
from vswin.config import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.pipeline import Order, count_steps, make_train_dataset, make_val_dataset
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.runtime import describe_devices, logger, set_precision, start_log
from vswin.training.checkpoints import Checkpoints
from vswin.training.optimizer import build_optimizer, describe_groups
from vswin.training.progress import BadVideoGuard, EpochReport
from vswin.training.run_folder import open_run_folder
from vswin.training.schedule import WarmupCosine
from vswin.training.summary import describe_run
from vswin.training.trainer import Trainer
from vswin.weights.names import named_weights
from vswin.zoo import configured_size


def run_training(config: TrainConfig) -> dict[str, list[float]]:
    """Trains a model as configured.

    Args:
        config: the run, checked.

    Returns:
        Key (`loss`, `val_top1`, ...) -> its value after each epoch of this session.

    Raises:
        InputError: if data, weights or the output folder do not allow the run.
    """
    start_log(None)
    set_precision(config.runtime.precision)
    keras.utils.set_random_seed(config.seed)
    catalog = _find_inputs(config)
    model, weights = _load_model(config, catalog)
    folder = open_run_folder(config)
    start_log(folder / "train.log")

    steps = count_steps(len(catalog.train), config.batch_size)
    trainer = Trainer(model, config.batch_size, config.seed, config.augment.label_smoothing)
    # Under float16 Keras wraps the optimizer for dynamic loss scaling.
    trainer.compile(optimizer=_build_optimizer(config, model, steps))
    trainer.optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(folder, model, trainer.optimizer, _metadata(config, catalog))
    first_epoch = checkpoints.restore()
    groups = describe_groups(named_weights(model), config.optimizer)
    size = configured_size(config.model)
    logger.info(describe_run(config, size, catalog, groups, weights, describe_devices()))
    logger.info(f"{'output:':<16}{folder}" + (f", resumed after epoch {first_epoch}" if first_epoch else ""))

    bad = BadVideos()
    order = Order(config.seed, config.batch_size, config.epochs, first_epoch)
    train = make_train_dataset(catalog.train, config.clip, config.augment, config.dataset.allow_flip, order, bad)
    history = trainer.fit(
        train,
        validation_data=make_val_dataset(catalog.val, config.clip, config.batch_size, bad),
        initial_epoch=first_epoch,
        epochs=config.epochs,
        steps_per_epoch=steps,
        callbacks=[
            EpochReport(steps, len(catalog.train), config.epochs),
            *_file_loggers(config, folder, first_epoch),
            checkpoints,
            BadVideoGuard(
                bad,
                folder / "bad_videos.csv",
                len(catalog.train) + len(catalog.val),
                config.dataset.max_bad_share,
            ),
        ],
        verbose=0,
    )
    logger.info(f"test it on several views of every video: python evaluate.py run={folder}")
    return history.history


def _find_inputs(config: TrainConfig) -> Catalog:
    """Finds the videos and the weights; where both are missing, the user hears of both at once."""
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
    model = build_model(configured_size(config.model), len(catalog.class_names), dropout=config.model.dropout)
    if config.init_from is None:
        return model, "none: every weight is random (init_from=null)"
    return model, str(load_weights(model, config.init_from, reset_head=True))


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


def _file_loggers(config: TrainConfig, folder: Path, first_epoch: int) -> list[keras.callbacks.Callback]:
    loggers = []
    if config.logger.csv:
        path = folder / "history.csv"
        _trim_history(path, first_epoch)
        loggers.append(keras.callbacks.CSVLogger(str(path), append=path.exists()))
    if config.logger.tensorboard:
        loggers.append(keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False, update_freq="epoch"))
    return loggers


def _trim_history(path: Path, num_epochs: int) -> None:
    """Drops the rows of epochs that a killed run had logged but not saved: they will come again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if int(row[0]) < num_epochs)])
