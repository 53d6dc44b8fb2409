"""The summary that a run prints before its first step: what it trains, on which data, at which cost."""

import io
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from vswin.cluster import find_cluster
from vswin.config.schema import MONITORS, OptimizerConfig, TrainConfig
from vswin.console import count_of
from vswin.data.catalog import Catalog, describe_catalog
from vswin.data.order import count_steps
from vswin.models.zoo import ModelSize, count_macs, count_parameters
from vswin.runtime import describe_devices
from vswin.training.loss import BinaryLoss, count_samples, make_loss
from vswin.training.memory import describe_memory, estimate_run
from vswin.training.optimizer import assign_groups

_NEXT_LINE = "\n" + " " * 16
# A class is rare if it has less than this share of the mean number of samples.
_RARE_SHARE = 1 / 3
_NUM_HEAVIEST, _NUM_LIGHTEST = 5, 3


def describe_run(
    config: TrainConfig,
    size: ModelSize,
    catalog: Catalog,
    groups: list[str],
    weights: str,
    strategy: tf.distribute.Strategy,
    class_weights: Sequence[float] | None = None,
) -> list[str]:
    """Formats the summary of a run, a line per fact, from the table of its groups and the report on loaded weights."""
    clip, optimizer, runtime = config.clip, config.optimizer, config.runtime
    macs = count_macs(size, clip.num_frames, clip.crop, clip.crop)
    num_classes = len(catalog.class_names)
    steps = count_steps(len(catalog.train), config.batch_size, config.augment.repeats)
    num_devices, local_devices = strategy.num_replicas_in_sync, strategy.extended.worker_devices
    batch = f"{count_of(config.batch_size, 'clip')} (global)"
    if num_devices > 1:
        batch += f", {config.batch_size // num_devices} per device"
    if runtime.micro_batches > 1:
        batch += f" in {runtime.micro_batches} micro-batches"
    schedule = f"{optimizer.schedule}, warm-up over {count_of(optimizer.warmup_epochs, 'epoch')}"
    if optimizer.warmup_epochs > config.epochs:
        schedule += " (longer than the run!)"

    is_cpu = "CPU" in local_devices[0]
    num_clips = config.batch_size // (num_devices * runtime.micro_batches)
    cluster = find_cluster() if num_devices > len(local_devices) else None
    num_on_machine = len(local_devices) * (cluster.num_local if cluster else 1)
    memory = describe_memory(
        estimate_run(config, num_classes, num_clips, is_cpu, runtime.remat), num_on_machine, is_cpu
    )

    rows = {
        "model": f"{config.model.name}, {count_parameters(size, num_classes) / 1e6:.2f} M parameters, "
        f"{macs / 1e9:.2f} GMACs per clip",
        "weights": weights,
        "data": _NEXT_LINE.join([f"{config.dataset.shown_name}: {describe_catalog(catalog)}", *catalog.notes]),
        "classes": ", ".join(catalog.class_names[:8]) + (", ..." if num_classes > 8 else ""),
        "clips": f"{count_of(clip.num_frames, 'frame')}, {clip.sampling}"
        + (f" with stride {clip.frame_stride}" if clip.sampling == "dense" else "")
        + f", {clip.crop} x {clip.crop} px",
        "augmentation": _describe_augmentation(config),
        **_describe_balance(config, catalog, class_weights),
        "batch": f"{batch}, {count_of(steps, 'step')} per epoch, {count_of(config.epochs, 'epoch')}",
        "schedule": schedule,
        "learning rates": _NEXT_LINE.join(groups),
    }
    rows["monitor"] = f"{config.monitor}, chooses the epoch with the best {MONITORS[config.monitor].name}"
    if optimizer.ema_decay is not None:
        decay = f"decay {optimizer.ema_decay:g} a step, warmed up"
        rows["weight average"] = f"{decay}; validated beside the weights as val_ema_*"
    rows |= {
        "precision": runtime.precision,
        "devices": describe_devices(strategy),
        "memory": memory + (", blocks computed twice" if runtime.remat else ""),
        "seed": str(config.seed),
    }
    return [f"{name + ':':<16}{text}" for name, text in rows.items()]


def describe_groups(
    weights: Mapping[str, tf.Variable], config: OptimizerConfig, rate_now: float, frozen: Collection[str] = ()
) -> list[str]:
    """Formats a table of the parameter groups: headings, a line per group, and a line for frozen weights.

    If layer-wise decay gives a group several rates, the table shows the lowest and the highest. `weights` has official
    names; `rate_now` is the base rate of the next step.
    """
    groups = assign_groups(weights, config)
    sizes = {name: int(variable.shape.num_elements()) for name, variable in weights.items()}
    members: dict[tuple[str, float], list[str]] = {}
    for name, group in groups.items():
        if name not in frozen:
            members.setdefault((group.name, group.weight_decay), []).append(name)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for heading in ("group", "rate now", "full rate", "decay", "parameters"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", no_wrap=True)
    for (group_name, decay), names in members.items():
        multipliers = [groups[name].learning_rate_multiplier for name in names]
        low, high = min(multipliers), max(multipliers)
        rates = ((f"{rate * low:.3g}", f"{rate * high:.3g}") for rate in (rate_now, config.learning_rate))
        texts = (lowest if lowest == highest else f"{lowest} to {highest}" for lowest, highest in rates)
        table.add_row(group_name, *texts, f"{decay:g}", f"{sum(sizes[name] for name in names):,}")
    num_frozen, num_all = sum(sizes[name] for name in frozen), sum(sizes.values())
    if frozen:
        table.add_row("frozen", "", "", "", f"{num_frozen:,}")
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    if frozen:
        lines.append(f"{100 * (1 - num_frozen / num_all):.3g} % of {num_all:,} parameters are trained")
    return lines


def _describe_balance(config: TrainConfig, catalog: Catalog, class_weights: Sequence[float] | None) -> dict[str, str]:
    """Tells which classes are rare and how much each counts; empty if there is nothing to tell."""
    names, counts, given = catalog.class_names, count_samples(catalog), config.loss.class_weights
    rows, parts, several = {}, [], config.dataset.is_multi_label
    has_samples = np.flatnonzero(counts)
    order = has_samples[np.argsort(counts[has_samples], kind="stable")].tolist()  # the rarest first
    rare = [label for label in order if counts[label] < _RARE_SHARE * counts.sum() / len(order)]
    if rare:
        listed = ", ".join(f"{names[label]} ({counts[label]:,})" for label in rare[:_NUM_HEAVIEST])
        more = f" and {len(rare) - _NUM_HEAVIEST} more" if len(rare) > _NUM_HEAVIEST else ""
        rows["rare classes"] = f"{listed}{more}; the mean is {counts.sum() / len(order):,.4g} training samples"
        if class_weights is None and not config.augment.balance:
            rows["rare classes"] += f"{_NEXT_LINE}augment.balance=true or loss.class_weights=balanced favours them"
    if config.augment.balance:
        num_turns = len(order) + any(not sample.labels for sample in catalog.train)
        uses, more = len(catalog.train) / num_turns / counts[order[0]], " or more" if several else ""
        often = f"comes {uses:.3g} times{more} an epoch"
        rows["balance"] = f"each class equally often, so a sample of {names[order[0]]} {often}"
    if class_weights is not None:
        heaviest = sorted(order, key=lambda label: -class_weights[label])
        texts = [f"{names[label]} {class_weights[label]:.3g}" for label in heaviest]
        if len(texts) > _NUM_HEAVIEST + _NUM_LIGHTEST:
            texts = [*texts[:_NUM_HEAVIEST], "...", *texts[-_NUM_LIGHTEST:]]
        how = given if isinstance(given, str) else "given"
        parts.append(f"{'weights of positives' if several else 'class weights'} ({how}): {', '.join(texts)}")
    if isinstance(given, dict) and (unused := [name for name in map(str, given) if not counts[names.index(name)]]):
        parts.append(f"no training samples, so their weight has no effect: {', '.join(unused)}")
    if isinstance(loss := make_loss(config, None), BinaryLoss):
        if loss.focal_gamma or loss.negative_gamma or loss.negative_margin:
            gammas = f"gamma {loss.focal_gamma:g} for positives, {loss.negative_gamma:g} for negatives"
            parts.append(f"focal, {gammas}; margin of negatives {loss.negative_margin:g}")
    elif loss.focal_gamma > 0:
        parts.append(f"focal, gamma {loss.focal_gamma:g}")
    return rows | ({"loss": _NEXT_LINE.join(parts)} if parts else {})


def _describe_augmentation(config: TrainConfig) -> str:
    augment, does_flip = config.augment, config.dataset.allow_flip
    low, high = augment.crop_area
    parts = [f"crops of {100 * low:g} to {100 * high:g} % of the frame" if low < 1 else "whole frames"]
    if does_flip and augment.flip > 0:
        parts.append(f"flipped with probability {augment.flip:g}")
    elif augment.rand_augment != "official":
        parts.append("not flipped")
    if any(augment.color_jitter):
        strengths = zip(("brightness", "contrast", "saturation", "hue"), augment.color_jitter, strict=True)
        parts.append("colour jitter (" + ", ".join(f"{name} {value:g}" for name, value in strengths if value) + ")")
    if augment.rand_augment != "none":
        magnitude = f"magnitude {augment.rand_augment_magnitude} of 30"
        flips = ", without its flip"
        if augment.rand_augment != "no_flip":
            despite = "" if does_flip else ", although dataset.allow_flip=false"
            flips = f", which as officially flips every second clip{despite}"
        parts.append(f"RandAugment ({augment.rand_augment_ops} of 18 operations at {magnitude}{flips})")
    if augment.erasing > 0:
        parts.append(f"a box erased with probability {augment.erasing:g}")
    mixing = [f"{name} (alpha {vars(augment)[name]:g})" for name in ("mixup", "cutmix") if vars(augment)[name] > 0]
    if mixing:
        parts.append(" or ".join(mixing) + " of neighbours in the batch")
    if augment.label_smoothing > 0:
        parts.append(f"label smoothing {augment.label_smoothing:g}")
    if augment.repeats > 1:
        parts.append(f"{augment.repeats} clips of each video in a batch")
    return ", ".join(parts)
