"""`vswin tune lr`: a learning-rate range test, in which the rate rises with every step until the loss diverges."""

import csv
import dataclasses
import math
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import tf_keras as keras

from vswin.atomic import replacing
from vswin.config.schema import TrainConfig
from vswin.console import count_of, make_progress_bar, print_table, say
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog
from vswin.data.frames import open_frames
from vswin.data.order import Order, count_steps
from vswin.errors import InputError
from vswin.runs.setup import distribute_training, set_up
from vswin.runtime import (
    console,
    default_output_dir,
    describe_devices,
    logger,
    program,
    start_log,
)
from vswin.tools.tune_curve import Suggestion, draw_curve, smooth, suggest
from vswin.training.run import find_inputs, open_network
from vswin.training.summary import describe_groups
from vswin.training.trainer import Trainer, build_trainer
from vswin.weights.names import named_weights

# The test ends when the running mean of the loss exceeds this multiple of its minimum.
_DIVERGED = 4.0
_MOMENTUM = 0.9
# Extra steps for float16, which skips steps while it searches for the loss scale.
_SKIPPED = 50


@dataclasses.dataclass
class Curve:
    """The measurements of a range test.

    Args:
        rates: base learning rate of each step.
        losses: finite loss of each step's batch, before the step changes the weights.
        has_diverged: whether the test ended because the loss rose too far or was not finite.
        num_bad: number of videos that could not be decoded.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    has_diverged: bool = False
    num_bad: int = 0


def sweep(
    trainer: Trainer,
    config: TrainConfig,
    catalog: Catalog,
    schedule: keras.optimizers.schedules.ExponentialDecay,
    steps: int,
) -> Curve:
    """Trains with the schedule that the trainer is compiled with, on the first batches of the run.

    An `InputError` if none of the training videos can be decoded.
    """
    curve, bad = Curve(), BadVideos()
    mean = weight = 0.0
    best = math.inf
    paths = [video.path for video in catalog.train]
    most = steps + _SKIPPED
    epochs = -(-most // count_steps(len(paths), config.batch_size, config.augment.repeats))
    order = Order(config.seed, config.batch_size, epochs, repeats=config.augment.repeats)
    with (
        closing(open_frames(config.dataset, config.clip.resize, paths, catalog.store)) as frames,
        make_progress_bar(console, "steps") as bar,
    ):
        task = bar.add_task("range test", total=steps, note="")
        step = trainer.make_train_function()
        batches = iter(distribute_training(trainer.distribute_strategy, config, catalog, order, bad, frames))
        for _ in range(most):
            taken = int(keras.backend.get_value(trainer.optimizer.iterations))
            if taken >= steps:
                break
            rate = float(schedule(taken))
            trainer.reset_metrics()
            loss = float(step(batches)["loss"])
            if math.isfinite(loss):
                curve.rates.append(rate)
                curve.losses.append(loss)
                mean, weight = _MOMENTUM * mean + (1 - _MOMENTUM) * loss, _MOMENTUM * weight + (1 - _MOMENTUM)
                best = min(best, mean / weight)
            if not math.isfinite(loss) or mean / weight > _DIVERGED * best:
                curve.has_diverged = True
                break
            bar.update(task, completed=taken + 1, note=f"rate {rate:.1e}  loss {loss:.3f}")
    curve.num_bad = len(bad)
    if curve.num_bad == len(paths):
        raise InputError(f"none of the {len(paths):,} training videos can be decoded; vswin data check says why")
    return curve


def run_tune_rates(
    config: TrainConfig,
    overrides: Sequence[str],
    span: tuple[float, float],
    steps: int,
    output: Path | None = None,
) -> Suggestion:
    """Trains with a rising learning rate, writes the curve, and prints and returns what it suggests.

    Args:
        config: the run, checked; its output folder is not touched.
        overrides: the command line of the run, on which the printed training command builds.
        span: lowest and highest base rate.
        steps: number of training steps.
        output: a new folder for curve and plot; None for one below `outputs/`.
    """
    start_log(None)
    folder = output or default_output_dir(f"tune_lr_{config.model.name}", config.dataset.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output {folder} exists and is not an empty folder; name a new one")
    # Averaging the weights does not change the loss.
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, ema_decay=None))
    strategy = set_up(config)
    catalog = find_inputs(config)
    # The rate rises by the same factor at every step.
    schedule = keras.optimizers.schedules.ExponentialDecay(span[0], decay_steps=steps - 1, decay_rate=span[1] / span[0])
    with strategy.scope():
        model, weights = open_network(config, catalog)
        steps_per_epoch = count_steps(len(catalog.train), config.batch_size, config.augment.repeats)
        trainer = build_trainer(config, model, steps_per_epoch, schedule)
    logger.info(f"weights: {weights}")
    epochs = count_of(float(f"{steps / steps_per_epoch:.2g}"), "epoch")
    logger.info(
        f"{steps} steps of {count_of(config.batch_size, 'clip')} ({epochs} of {config.dataset.name}) on "
        f"{describe_devices(strategy)}, learning rate {span[0]:g} to {span[1]:g}"
    )
    try:  # before the training steps, which would be lost otherwise
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be written ({error.strerror}); name another folder") from error

    curve = sweep(trainer, config, catalog, schedule, steps)
    found = suggest(curve.rates, curve.losses, curve.has_diverged)
    smoothed: list[float] = smooth(curve.losses).tolist() if curve.losses else []
    rows = zip(curve.rates, curve.losses, smoothed, strict=True)
    with replacing(folder / "learning_rates.csv") as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "learning_rate", "loss", "smoothed_loss"])
        writer.writerows([step, *(f"{value:.6g}" for value in row)] for step, row in enumerate(rows))
    if curve.losses:
        title = f"{config.model.name} on {config.dataset.name}, {count_of(config.batch_size, 'clip')} per step"
        draw_curve(folder / "learning_rates.png", curve.rates, curve.losses, found, title)
    _report(config, curve, found, span)
    if found.rate is None:
        logger.info("no learning rate is suggested; see first what training sees: vswin data show")
    else:
        optimizer = dataclasses.replace(config.optimizer, learning_rate=found.rate)
        warm = found.rate * (optimizer.warmup_ratio if optimizer.warmup_epochs > 0 else 1.0)
        logger.info("with it, at the first step (rate now) and after the warm-up (full rate):")
        for line in describe_groups(named_weights(model), optimizer, warm, trainer.frozen):
            logger.info(f"  {line}")
        kept = [word for word in overrides if word.partition("=")[0] != "optimizer.learning_rate"]
        command = shlex.join([*kept, f"optimizer.learning_rate={found.rate:g}"])
        logger.info(f"train with it:\n  {program('train')} {command}")
        logger.info(
            f"It holds for batch_size={config.batch_size}: the rate is not scaled by itself. With another batch_size, "
            f"change it in proportion, e.g. batch_size={2 * config.batch_size} "
            f"optimizer.learning_rate={2 * found.rate:g}"
        )
    logger.info(f"curve and plot: {folder}{'' if curve.losses else ' (no loss to draw)'}")
    return found


def _report(config: TrainConfig, curve: Curve, found: Suggestion, span: tuple[float, float]) -> None:
    """Prints a description of the curve, and the suggestion."""
    if curve.has_diverged:
        last = f"{curve.rates[-1]:.1e}" if curve.rates else f"{span[0]:.1e}"
        logger.info(f"the loss diverged at a rate of {last}, after {len(curve.losses)} finite losses")
    else:
        logger.info(f"the loss did not diverge up to a rate of {span[1]:g}")
    if curve.num_bad:
        logger.warning(f"{count_of(curve.num_bad, 'video')} could not be decoded; vswin data check lists them")
    if found.rate is not None and found.steepest is not None and found.third is not None:
        lines = [
            ["rule", "learning rate"],
            ["where the smoothed loss falls fastest", f"{found.steepest:.1e}"],
            ["a third of where it is lowest", f"{found.third:.1e}"],
            ["suggested: the lower of both", f"{found.rate:.1e}"],
            ["configured", f"{config.optimizer.learning_rate:.1e}"],
        ]
        console.print()
        print_table(console, lines)
        say(console, "range test: L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015", style="dim")
        console.print()
    for warning in found.warnings:
        logger.warning(f"WARNING: {warning}")
