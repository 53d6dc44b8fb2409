"""`vswin tune lr`: a learning-rate range test from configuration to suggestion."""

import csv
import dataclasses
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

import tf_keras as keras

from vswin.atomic import replacing
from vswin.data.order import count_steps
from vswin.errors import InputError
from vswin.runtime import (
    console,
    default_output_dir,
    describe_devices,
    logger,
    make_strategy,
    program,
    set_precision,
    start_log,
)
from vswin.schema import TrainConfig
from vswin.tables import print_table, say
from vswin.training.groups import describe_groups
from vswin.training.setup import build_trainer, check_batch, find_inputs, make_model
from vswin.tune.curve import Suggestion, smooth, suggest
from vswin.tune.sweep import Curve, RisingRate, sweep
from vswin.weights.names import named_weights
from vswin.wording import count_of


def run_tune_rates(
    config: TrainConfig,
    overrides: Sequence[str],
    span: tuple[float, float],
    steps: int,
    output: Path | None = None,
) -> Suggestion:
    """Trains with a rising learning rate, writes the curve and prints what it suggests.

    Args:
        config: the run, checked; its folder is not touched.
        overrides: the command line it was composed of, from which that to train is made.
        span: lowest and highest base rate.
        steps: training steps.
        output: a new folder for curve and plot; None for one below outputs/.

    Returns:
        What the curve suggests.

    Raises:
        InputError: if data, weights or the folder do not allow it.
    """
    start_log(None)
    folder = output or default_output_dir(f"tune_lr_{config.model.name}", config.dataset.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output {folder} exists and is not an empty folder; name a new one")
    # An average of the weights changes no loss.
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, ema_decay=None))
    strategy = make_strategy(config.runtime.strategy)
    set_precision(config.runtime.precision)
    keras.utils.set_random_seed(config.seed)
    check_batch(config, strategy.num_replicas_in_sync)
    catalog = find_inputs(config)
    schedule = RisingRate(*span, steps)
    with strategy.scope():
        model, weights = make_model(config, catalog)
        steps_per_epoch = count_steps(len(catalog.train), config.batch_size, config.augment.repeats)
        trainer = build_trainer(config, model, steps_per_epoch, schedule)
    logger.info(f"weights: {weights}")
    epochs = count_of(float(f"{steps / steps_per_epoch:.2g}"), "epoch")
    logger.info(
        f"{steps} steps of {count_of(config.batch_size, 'clip')} ({epochs} of {config.dataset.name}) on "
        f"{describe_devices(strategy)}, learning rate {span[0]:g} to {span[1]:g}"
    )
    _make_folder(folder)
    curve = sweep(trainer, config, catalog, schedule)
    found = suggest(curve.rates, curve.losses, curve.has_diverged)
    _write_csv(folder / "learning_rates.csv", curve)
    if curve.losses:
        # Half a second that only those who draw should wait.
        from vswin.tune.plot import draw_curve

        title = f"{config.model.name} on {config.dataset.name}, {count_of(config.batch_size, 'clip')} per step"
        draw_curve(folder / "learning_rates.png", curve.rates, curve.losses, found, title)
    _report(config, curve, found, span)
    if found.rate is not None:
        _print_groups(config, found.rate, named_weights(model), trainer.frozen)
    _print_way_on(config, overrides, found)
    logger.info(f"curve and plot: {folder}{'' if curve.losses else ' (no loss to draw)'}")
    return found


def _make_folder(folder: Path) -> None:
    """Makes the folder before the steps are taken, so that they are not taken for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be written ({error.strerror}); name another folder") from error


def _write_csv(path: Path, curve: Curve) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "learning_rate", "loss", "smoothed_loss"])
    smoothed: list[float] = smooth(curve.losses).tolist() if curve.losses else []
    for step, (rate, loss, level) in enumerate(zip(curve.rates, curve.losses, smoothed, strict=True)):
        writer.writerow([step, f"{rate:.6g}", f"{loss:.6g}", f"{level:.6g}"])
    with replacing(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def _report(config: TrainConfig, curve: Curve, found: Suggestion, span: tuple[float, float]) -> None:
    """Prints what the curve looks like, and what follows from it."""
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


def _print_groups(config: TrainConfig, rate: float, weights: dict, frozen: frozenset[str]) -> None:
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    warm = rate * (config.optimizer.warmup_ratio if config.optimizer.warmup_epochs > 0 else 1.0)
    logger.info("with it, at the first step (rate now) and after the warm-up (full rate):")
    for line in describe_groups(weights, optimizer, warm, frozen):
        logger.info(f"  {line}")


def _print_way_on(config: TrainConfig, overrides: Sequence[str], found: Suggestion) -> None:
    if found.rate is None:
        logger.info("no learning rate is suggested; see first what training sees: vswin data show")
        return
    kept = [word for word in overrides if word.partition("=")[0] != "optimizer.learning_rate"]
    command = shlex.join([*kept, f"optimizer.learning_rate={found.rate:g}"])
    logger.info(f"train with it:\n  {program('train')} {command}")
    logger.info(
        f"It holds for batch_size={config.batch_size}: the rate is not scaled by itself. With another batch_size, "
        f"change it in proportion, e.g. batch_size={2 * config.batch_size} optimizer.learning_rate={2 * found.rate:g}"
    )
