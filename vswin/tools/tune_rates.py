"""`vswin tune lr`: a learning-rate range test, in which the rate rises with every step until the loss diverges.

Source: L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015.
"""

import csv
import dataclasses
import math
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import tf_keras as keras
from matplotlib.figure import Figure

from vswin.atomic import replacing
from vswin.cluster import find_cluster
from vswin.config.schema import TrainConfig
from vswin.console import count_of, make_progress_bar, print_table
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
from vswin.training.loss import weigh_classes
from vswin.training.run import find_inputs, open_network
from vswin.training.summary import describe_groups
from vswin.training.trainer import Trainer, build_trainer
from vswin.weights.names import named_weights

# The test ends when the running mean of the loss exceeds this multiple of its minimum.
_DIVERGED = 4.0
_MOMENTUM = 0.9
# Extra steps for float16, which skips steps while it searches for the loss scale.
_SKIPPED = 50
_FEWEST_STEPS = 20
# Width of the smoothing as a fraction of the curve: wide enough for the noise of batches, narrow enough for the slope.
_WIDTH = 1 / 25
# Divisor for the rate of the lowest loss: that rate is the largest that still trains, and the best rate is below it.
_BELOW_LOWEST = 3
# A loss that falls by less than this fraction of its first value counts as flat.
_LEAST_FALL = 0.02
# Okabe and Ito's colours, which most people tell apart.
_RAW, _SMOOTH, _MARK, _OTHER = "#999999", "#0072B2", "#D55E00", "#009E73"


@dataclasses.dataclass
class Curve:
    """The base learning rate of each step, and the finite loss of its batch before the step changes the weights."""

    rates: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    has_diverged: bool = False
    num_bad: int = 0


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """The learning rates that a curve suggests.

    Args:
        steepest: the rate at which the smoothed loss falls fastest; None if the loss did not fall.
        third: a third of the rate at which the smoothed loss is lowest; None if the loss did not fall.
        warnings: why the curve may mislead, one sentence each.
    """

    steepest: float | None
    third: float | None
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """Gives the lower of the two rates, to two digits; None if the loss did not fall."""
        if self.steepest is None or self.third is None:
            return None
        return float(f"{min(self.steepest, self.third):.1e}")


def check_alone(config: TrainConfig) -> None:
    """Refuses a process that is one of several workers, and `resume=true`."""
    strategy = config.runtime.strategy
    if strategy == "multi_worker" or (strategy == "auto" and find_cluster() is not None):
        raise InputError(
            f"runtime.strategy={strategy}: vswin tune tries settings in one process, not in a job of several workers; "
            "run it on one machine with runtime.strategy=mirrored or one_device"
        )
    if config.resume:
        raise InputError("resume=true: vswin tune starts from the weights of init_from=, not in the middle of a run")


def run_tune_rates(
    config: TrainConfig,
    overrides: Sequence[str],
    span: tuple[float, float],
    steps: int,
    output: Path | None = None,
) -> Suggestion:
    """Trains with a rising learning rate, writes the curve, and prints and returns what it suggests.

    The printed training command builds on `overrides`, the command line of the run. `span` is the lowest and highest
    base rate. `output` is a new folder for curve and plot; None for one below `outputs/`.
    """
    start_log(None)
    if not (math.isfinite(span[1]) and 0 < span[0] < span[1]):
        raise InputError(f"--min {span[0]:g} --max {span[1]:g}: two learning rates with 0 < smallest < largest")
    if steps < _FEWEST_STEPS:
        raise InputError(f"--steps {steps}: a curve needs at least {_FEWEST_STEPS} steps, better 200")
    check_alone(config)
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
        trainer = build_trainer(config, model, steps_per_epoch, schedule, weigh_classes(config, catalog))
    logger.info(f"weights: {weights}")
    epochs = count_of(float(f"{steps / steps_per_epoch:.2g}"), "epoch")
    logger.info(
        f"{steps} steps of {count_of(config.batch_size, 'clip')} ({epochs} of {config.dataset.shown_name}) on "
        f"{describe_devices(strategy)}, learning rate {span[0]:g} to {span[1]:g}"
    )
    try:  # before the training steps, which would be lost otherwise
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be written ({error.strerror}); name another folder") from error

    curve = _sweep(trainer, config, catalog, schedule, steps)
    found = suggest(curve.rates, curve.losses, curve.has_diverged)
    smoothed = smooth(curve.losses)
    rows = zip(curve.rates, curve.losses, smoothed, strict=True)
    with replacing(folder / "learning_rates.csv") as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "learning_rate", "loss", "smoothed_loss"])
        writer.writerows([step, *(f"{value:.6g}" for value in row)] for step, row in enumerate(rows))
    if curve.losses:
        title = f"{config.model.name} on {config.dataset.shown_name}, {count_of(config.batch_size, 'clip')} per step"
        draw_curve(folder / "learning_rates.png", curve, smoothed, found, title)
    logger.info(f"curve and plot: {folder}{'' if curve.losses else ' (no loss to draw)'}")
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
    return found


def _sweep(
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
    most = steps + _SKIPPED
    epochs = -(-most // count_steps(len(catalog.train), config.batch_size, config.augment.repeats))
    augment = config.augment
    order = Order(config.seed, config.batch_size, epochs, repeats=augment.repeats, balance=augment.balance)
    with (
        closing(open_frames(config.dataset, config.clip.resize, catalog.train, catalog.store)) as frames,
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
    if curve.num_bad == len(catalog.train):
        raise InputError(f"none of the {curve.num_bad:,} training videos can be decoded; vswin data check says why")
    return curve


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Averages finite losses [N] with their neighbours on both sides by a Gaussian, without delay: float64 [N]."""
    values = np.asarray(losses, np.float64)
    width = max(1.0, _WIDTH * len(values))
    distance = np.arange(len(values))[:, None] - np.arange(len(values))  # [N, N]
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights @ values / weights.sum(axis=1)


def suggest(rates: Sequence[float], losses: Sequence[float], has_diverged: bool) -> Suggestion:
    """Reads a learning rate off the rising rates and the finite losses of N steps.

    Source: L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015, section 3.3, for the test and for a
        third of the largest rate; fastai, `fastai.callback.schedule.steep`, for the fastest fall. fastai's `minimum`, a
        tenth of the rate of the lowest loss, is too low here. Measured with swin_micro on motion: the lower of both
        rules gives 4.6e-4 to 9.8e-4 for four seeds; two epochs reach 83.5 % at 1.3e-4 (that tenth), 98.8 % at 4.5e-4,
        97.3 % at 1.6e-3 and 88.7 % at 3e-3.
    """
    if len(losses) == 0:
        warning = (
            "the loss is not finite at the first step, where nothing has been trained yet: look at the weights "
            "(init_from) and the clips (vswin data show), and try runtime.precision=float32"
        )
        return Suggestion(None, None, (warning,))
    if len(losses) < _FEWEST_STEPS:
        why = "the loss diverged" if has_diverged else "there are only"
        warning = f"{why} after {len(losses)} steps, too few for a suggestion: lower --min, or take more --steps"
        return Suggestion(None, None, (warning,))
    smoothed = smooth(losses)
    lowest = int(smoothed.argmin())
    before = np.asarray(losses)[: lowest + 1] - smoothed[: lowest + 1]
    fall = float(smoothed[0] - smoothed[lowest])
    if lowest < 2 or fall < max(_LEAST_FALL * abs(float(smoothed[0])), float(before.std())):
        warning = (
            "the loss never fell by more than its noise, so the curve suggests nothing: try more --steps, a larger "
            "batch_size, or a higher --max; weights that are trained already have little to gain"
        )
        return Suggestion(None, None, (warning,))
    slopes = np.gradient(smoothed, np.log10(np.asarray(rates)))
    steepest = int(slopes[: lowest + 1].argmin())
    warnings = []
    if not has_diverged and lowest == len(losses) - 1:
        warnings.append("the loss was still falling at the highest rate: raise --max to see where it turns")
    if steepest < 2:
        warnings.append("the loss fell fastest at the very first rates: lower --min to see where that begins")
    if lowest + 1 < _FEWEST_STEPS:
        warnings.append(f"the loss is lowest after {lowest + 1} steps already: more --steps give a better curve")
    return Suggestion(float(rates[steepest]), float(rates[lowest]) / _BELOW_LOWEST, tuple(warnings))


def _report(config: TrainConfig, curve: Curve, found: Suggestion, span: tuple[float, float]) -> None:
    """Prints a description of the curve, and the suggestion."""
    if curve.has_diverged:
        last = f"{curve.rates[-1]:.1e}" if curve.rates else f"{span[0]:.1e}"
        logger.info(f"the loss diverged at a rate of {last}, after {len(curve.losses)} finite losses")
    else:
        logger.info(f"the loss did not diverge up to a rate of {span[1]:g}")
    if curve.num_bad:
        logger.warning(f"{count_of(curve.num_bad, 'video')} could not be decoded; vswin data check lists them")
    if found.rate is not None:
        rates = {
            "where the smoothed loss falls fastest": found.steepest,
            "a third of where it is lowest": found.third,
            "suggested: the lower of both": found.rate,
            "configured": config.optimizer.learning_rate,
        }
        console.print()
        print_table(console, [["rule", "learning rate"], *([rule, f"{rate:.1e}"] for rule, rate in rates.items())])
        console.print()
    for warning in found.warnings:
        logger.warning(f"WARNING: {warning}")


def draw_curve(path: Path, curve: Curve, smoothed: np.ndarray, found: Suggestion, title: str) -> None:
    """Draws raw and smoothed losses over the learning rate, with the suggested rates, into a PNG file."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color=_RAW, linewidth=1, marker=".", markersize=4, label="loss of each batch")
    axes.plot(curve.rates, smoothed, color=_SMOOTH, linewidth=2.2, label="smoothed")
    if found.rate is not None and found.steepest is not None and found.third is not None:
        # Wide and behind the line of its rule, so that both are visible.
        axes.axvline(found.rate, color=_MARK, linewidth=5, alpha=0.5, zorder=1, label=f"suggested: {found.rate:.1e}")
        axes.axvline(found.steepest, color=_OTHER, linestyle=":", label=f"falls fastest: {found.steepest:.1e}")
        axes.axvline(found.third, color=_OTHER, linestyle="--", label=f"a third of the lowest: {found.third:.1e}")
    # The last losses may be far above all others; the axis ends a little above the first ones.
    top, bottom = 1.3 * float(smoothed[: max(1, len(smoothed) // 4)].max()), min(curve.losses)
    axes.set_ylim(max(0.0, bottom - 0.05 * (top - bottom)), max(top, bottom + 1e-6))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate (optimizer.learning_rate)")
    axes.set_ylabel("training loss")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes, the legend covers nothing.
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
