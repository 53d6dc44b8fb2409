"""What a run says before its first step: what is trained, on what, at what cost."""

from collections.abc import Iterable

import tensorflow as tf

from vswin.cluster import find_cluster
from vswin.data.catalog import Catalog, describe_catalog
from vswin.data.order import count_steps
from vswin.runtime import describe_devices
from vswin.schema import TrainConfig
from vswin.training.memory import describe_memory, estimate_run
from vswin.wording import count_of
from vswin.zoo import ModelSize, count_macs, count_parameters


def describe_run(
    config: TrainConfig,
    size: ModelSize,
    catalog: Catalog,
    groups: Iterable[str],
    weights: str,
    strategy: tf.distribute.Strategy,
) -> list[str]:
    """Writes the summary of a run, a line per fact.

    Args:
        config: the run.
        size: the model's size, overrides applied.
        catalog: its videos.
        groups: the lines of a table of the parameter groups.
        weights: what was loaded.
        strategy: the devices that compute.
    """
    clip = config.clip
    macs = count_macs(size, clip.num_frames, clip.crop, clip.crop)
    num_classes = len(catalog.class_names)
    steps = count_steps(len(catalog.train), config.batch_size, config.augment.repeats)
    names = ", ".join(catalog.class_names[:8]) + (", ..." if num_classes > 8 else "")
    rows = {
        "model": f"{config.model.name}, {count_parameters(size, num_classes) / 1e6:.2f} M parameters, "
        f"{macs / 1e9:.2f} GMACs per clip",
        "weights": weights,
        "data": f"\n{' ' * 16}".join([f"{config.dataset.name}: {describe_catalog(catalog)}", *catalog.notes]),
        "classes": names,
        "clips": f"{count_of(clip.num_frames, 'frame')}, {clip.sampling}"
        + (f" with stride {clip.frame_stride}" if clip.sampling == "dense" else "")
        + f", {clip.crop} x {clip.crop} px",
        "augmentation": _describe_augmentation(config),
        "batch": f"{count_of(config.batch_size, 'clip')} (global){_describe_shares(config, strategy)}, "
        f"{count_of(steps, 'step')} per epoch, {count_of(config.epochs, 'epoch')}",
        "schedule": f"{config.optimizer.schedule}, warm-up over {count_of(config.optimizer.warmup_epochs, 'epoch')}"
        + (" (longer than the run!)" if config.optimizer.warmup_epochs > config.epochs else ""),
        "learning rates": f"\n{' ' * 16}".join(groups),
        **_describe_average(config),
        "precision": config.runtime.precision,
        "devices": describe_devices(strategy),
        "memory": _describe_memory(config, num_classes, strategy),
        "seed": str(config.seed),
    }
    return [f"{name + ':':<16}{text}" for name, text in rows.items()]


def _describe_average(config: TrainConfig) -> dict[str, str]:
    decay = config.optimizer.ema_decay
    if decay is None:
        return {}
    return {"weight average": f"decay {decay:g} a step, warmed up; validated beside the weights as val_ema_*"}


def _describe_shares(config: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    num_devices, parts = strategy.num_replicas_in_sync, config.runtime.micro_batches
    devices = f", {config.batch_size // num_devices} per device" if num_devices > 1 else ""
    return devices + (f" in {parts} micro-batches" if parts > 1 else "")


def _describe_memory(config: TrainConfig, num_classes: int, strategy: tf.distribute.Strategy) -> str:
    runtime, local_devices = config.runtime, strategy.extended.worker_devices
    num_clips = config.batch_size // (strategy.num_replicas_in_sync * runtime.micro_batches)
    is_cpu = "CPU" in local_devices[0]
    memory = estimate_run(config, num_classes, num_clips, is_cpu, runtime.remat)
    cluster = find_cluster() if strategy.num_replicas_in_sync > len(local_devices) else None
    num_devices = len(local_devices) * (cluster.num_local if cluster else 1)
    return describe_memory(memory, num_devices, is_cpu) + (", blocks computed twice" if runtime.remat else "")


def _describe_augmentation(config: TrainConfig) -> str:
    augment = config.augment
    low, high = augment.crop_area
    parts = [f"crops of {100 * low:g} to {100 * high:g} % of the frame" if low < 1 else "whole frames"]
    if config.dataset.allow_flip and augment.flip > 0:
        parts.append(f"flipped with probability {augment.flip:g}")
    elif augment.rand_augment != "official":
        parts.append("not flipped")
    if any(augment.color_jitter):
        strengths = zip(("brightness", "contrast", "saturation", "hue"), augment.color_jitter, strict=True)
        parts.append("colour jitter (" + ", ".join(f"{name} {value:g}" for name, value in strengths if value) + ")")
    if augment.rand_augment != "none":
        parts.append(_describe_rand_augment(config))
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


def _describe_rand_augment(config: TrainConfig) -> str:
    augment = config.augment
    magnitude = f"magnitude {augment.rand_augment_magnitude} of 30"
    text = f"RandAugment ({augment.rand_augment_ops} of 18 operations at {magnitude}"
    if augment.rand_augment == "no_flip":
        return text + ", without its flip)"
    despite = ", although dataset.allow_flip=false" if not config.dataset.allow_flip else ""
    return text + f", which as officially flips every second clip{despite})"
