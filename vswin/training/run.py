"""A training run from configuration to best checkpoint; called by train.py."""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.cluster import Workers
from vswin.config.load import saved_values
from vswin.config.schema import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.frames import FrameLoader, open_frames
from vswin.data.order import Order, Shard, batch_samples, count_steps
from vswin.data.pipeline import make_val_dataset
from vswin.errors import InputError
from vswin.evaluation.protocol import note_videos
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.runs.environment import record_session
from vswin.runs.report import report_or_say_why
from vswin.runs.setup import distribute_training, make_model, set_up
from vswin.runtime import describe_devices, format_seconds, logger, program, start_log
from vswin.training.callbacks import BadVideoGuard, EpochReport, FiniteGuard
from vswin.training.checkpoints import Checkpoints
from vswin.training.interruptions import SaveAndStop, faults_explained, resume_command
from vswin.training.loggers import open_loggers, predict_clips
from vswin.training.loss import weigh_classes
from vswin.training.optimizer import build_schedule, find_frozen
from vswin.training.run_folder import has_state, keep_videos, match_videos, only_run, open_run_folder
from vswin.training.summary import describe_groups, describe_run
from vswin.training.trainer import Trainer, build_trainer
from vswin.weights.build import check_weights
from vswin.weights.checkpoint import open_weights
from vswin.weights.names import named_weights, official_names


def run_training(config: TrainConfig, command: Sequence[str] = ()) -> dict[str, list[float]]:
    """Trains a model; returns key (`loss`, `val_top1`, ...) -> its value after each epoch of this session.

    `command` is the command line of this session, as in `sys.orig_argv`; the command to continue is made from it.

    Raises:
        InputError: if data, weights or the output folder do not allow the run, numbers are not finite, or the disk is
            full.
        SystemExit: if a signal ends it.
    """
    start_log(None)
    strategy = set_up(config)
    workers = Workers(strategy)
    with workers.errors_explained(), ExitStack() as held:
        return _train(config, strategy, workers, command, held)


def _train(
    config: TrainConfig, strategy: tf.distribute.Strategy, workers: Workers, command: Sequence[str], held: ExitStack
) -> dict[str, list[float]]:
    resumes = bool(workers.chief_says(lambda: "yes" if has_state(config) else ""))
    catalog = find_inputs(config, resumes)
    class_weights = weigh_classes(config, catalog)
    frames = open_frames(config.dataset, config.clip.resize, catalog.train + catalog.val, catalog.store)

    def claim_folder() -> str:
        folder = open_run_folder(config)
        held.enter_context(only_run(folder))
        keep_videos(folder, catalog)
        return str(folder)

    # The model, the run's folder, and its checkpoints.
    with strategy.scope():
        model, weights = open_network(config, catalog, resumes)
        folder = Path(workers.chief_says(claim_folder))
        start_log(workers.own_file(folder / "train.log"), is_shown=workers.is_chief)
        catalog = match_videos(folder, catalog)
        if resumes:
            config = dataclasses.replace(config, init_from=saved_values(folder)["init_from"])
        steps = count_steps(len(catalog.train), config.batch_size, config.augment.repeats)
        trainer = build_trainer(config, model, steps, class_weights=class_weights, val=catalog.val)
        metadata = _metadata(config, catalog)
        chosen_by = (config.patience, config.keep_states, config.monitor)
        checkpoints = Checkpoints(folder, trainer, steps, metadata, workers, *chosen_by)
    if workers.is_chief:
        # The record is optional; a full disk ends the run later, with an explanation.
        with suppress(OSError):
            record_session(folder, command, describe_devices(strategy))
    first_epoch = checkpoints.restore()
    trainer.first_step = checkpoints.steps_saved

    # The summary.
    rate_now = float(build_schedule(config, steps)(keras.backend.get_value(trainer.optimizer.iterations)))
    groups = describe_groups(named_weights(model), config.optimizer, rate_now, trainer.frozen)
    size = configured_size(config.model)
    logger.info(describe_run(config, size, catalog, groups, weights, strategy, class_weights))
    logger.info(
        f"{'output:':<16}{folder}" + (f", resumed after {checkpoints.position}" if checkpoints.position else "")
    )

    # The remaining epochs.
    if checkpoints.is_stalled(first_epoch) or first_epoch == config.epochs:
        logger.info("the run is complete" + (", stopped early" if first_epoch < config.epochs else ""))
        checkpoints.on_train_end()
        history = {}
    else:
        with closing(frames):
            history = _fit(trainer, config, catalog, frames, checkpoints, resume_command(command, folder))
    if workers.is_chief:
        logger.info(report_or_say_why(folder))
    if not history:
        return history

    workers.wait()
    if workers.count > 1:
        num_decoded, num_videos = sum(frames.count_videos().values()), len(catalog.train) + len(catalog.val)
        logger.info(f"this worker decoded {num_decoded:,} of the {num_videos:,} videos")
    command_line = f"{program('evaluate')} {shlex.quote(f'run={folder}')}"
    logger.info(f"test it on several views of every video: {command_line}")
    return history


def _fit(
    trainer: Trainer,
    config: TrainConfig,
    catalog: Catalog,
    frames: FrameLoader,
    checkpoints: Checkpoints,
    command: str,
) -> dict[str, list[float]]:
    """Trains the remaining epochs, cleans up in every case, and returns the history."""
    folder, workers, strategy = checkpoints.folder, checkpoints.workers, trainer.distribute_strategy
    steps, first_epoch, repeats = checkpoints.steps_per_epoch, checkpoints.epochs_saved, config.augment.repeats
    bad_list = workers.own_file(folder / "bad_videos.csv")
    bad = BadVideos(bad_list)

    order = Order(
        *(config.seed, config.batch_size, config.epochs, first_epoch, trainer.first_step),
        repeats=repeats,
        balance=config.augment.balance,
    )
    train = distribute_training(strategy, config, catalog, order, bad, frames)
    val = strategy.distribute_datasets_from_function(
        lambda context: make_val_dataset(catalog.val, config.clip, config.batch_size, bad, Shard.of(context), frames)
    )

    find_samples = partial(batch_samples, catalog.train, order)
    finite = FiniteGuard(trainer.model, steps, find_samples, folder / "non_finite_step.json")
    num_videos = len(catalog.train) + len(catalog.val)
    bad_guard = BadVideoGuard(bad, bad_list, num_videos, config.dataset.max_bad_share)
    save_and_stop = SaveAndStop(checkpoints, finite, workers, command, config.save_minutes, config.save_steps)
    activate = tf.sigmoid if config.dataset.is_multi_label else tf.nn.softmax
    samples = partial(predict_clips, trainer.model, catalog, config.clip, frames, activate)
    started = time.monotonic()
    with (
        faults_explained(config, checkpoints, folder, command),
        closing(bad_guard),
        checkpoints.finished(),
        save_and_stop.taking_signals(),
        open_loggers(config, folder, first_epoch, checkpoints.best_value, workers.is_chief, samples) as loggers,
        closing(EpochReport(steps, len(catalog.train) * repeats, config.epochs, config.monitor)) as report,
    ):
        history = trainer.fit(
            train,
            validation_data=val,
            validation_steps=count_steps(len(catalog.val), config.batch_size),
            initial_epoch=first_epoch,
            epochs=config.epochs,
            steps_per_epoch=steps,
            callbacks=[report, finite, *loggers, checkpoints, bad_guard, save_and_stop],
            verbose=0,
        )
    logger.info(f"trained for {format_seconds(time.monotonic() - started)}")
    return history.history


def find_inputs(config: TrainConfig, resumes: bool = False) -> Catalog:
    """Finds the videos of a run, which must include training videos, and checks the names of its weights.

    An `InputError` lists all problems: videos or weights that are missing, parts of the model that `model.freeze` does
    not name. If the run `resumes`, its state holds all weights, and `init_from` is not checked.
    """
    problems = []
    try:
        names = official_names(configured_size(config.model).depths, has_head=True)
        find_frozen(names, config.model.freeze_stages, config.model.freeze)
    except InputError as error:
        problems.append(str(error))
    try:
        if config.init_from is not None and not resumes:
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
    for role, samples in (("training", catalog.train), ("validation", catalog.val)):
        if config.dataset.is_multi_label and not any(sample.labels for sample in samples):
            raise InputError(f"no {role} video has a label ({len(samples):,} in all); add some that have")
    return catalog


def open_network(config: TrainConfig, catalog: Catalog, resumes: bool = False) -> tuple[VideoSwin, str]:
    """Makes the model with its first weights, in the current strategy's scope, and describes what was loaded.

    An `InputError` if the weights do not fit. If the run `resumes`, its state is loaded into the model later.
    """
    is_random = config.init_from is None or resumes
    checkpoint = None if is_random else open_weights(str(config.init_from), config.source)
    model, report = make_model(config, len(catalog.class_names), checkpoint, catalog.class_names)
    if resumes:
        return model, "those of the state that the run goes on from; init_from is not read again"
    if checkpoint is None and config.model.init_from is not None:
        logger.warning(
            f"RANDOM WEIGHTS: init_from=null, but the recipe of {config.model.name} is one for fine-tuning. From "
            "random weights users of the official code reached 55 % where 78.8 % are published"
        )
    frozen = find_frozen(named_weights(model), config.model.freeze_stages, config.model.freeze)
    if checkpoint is None and frozen:
        logger.warning("RANDOM WEIGHTS are frozen: init_from=null, so what is not trained stays random")
    if frozen.intersection(report.reinitialised):
        logger.warning(
            f"RANDOM WEIGHTS are frozen: the head is new ({report.head}), and model.freeze keeps it from being trained"
        )
    return model, str(report)


def _metadata(config: TrainConfig, catalog: Catalog) -> dict[str, Any]:
    """Collects the metadata of the best weights: predictions read the clip from it, evaluations know the videos."""
    return {
        "size": dataclasses.asdict(configured_size(config.model)),
        "model": config.model.name,
        "dataset": config.dataset.name,
        "task": config.dataset.task,
        "num_classes": len(catalog.class_names),
        "class_names": list(catalog.class_names),
        "init_from": config.init_from,
        "clip": dataclasses.asdict(config.clip),
        "videos": {
            "train": note_videos(catalog.train, catalog.class_names),
            "val": note_videos(catalog.val, catalog.class_names),
        },
    }
