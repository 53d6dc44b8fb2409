"""What a run says before its first step: what is trained, on what, at what cost."""

from collections.abc import Iterable

import tensorflow as tf

from vswin.config import TrainConfig
from vswin.data.catalog import Catalog, describe_catalog
from vswin.data.pipeline import count_steps
from vswin.runtime import describe_devices
from vswin.training.memory import describe_memory, estimate_step
from vswin.zoo import ModelSize, count_macs, count_parameters


def describe_run(
    config: TrainConfig,
    size: ModelSize,
    catalog: Catalog,
    groups: Iterable[str],
    weights: str,
    strategy: tf.distribute.Strategy,
) -> str:
    """Writes the summary of a run, a line per fact.

    Args:
        config: the run.
        size: the model's size, overrides applied.
        catalog: its videos.
        groups: a text per parameter group.
        weights: what was loaded.
        strategy: the devices that compute.
    """
    clip = config.clip
    macs = count_macs(size, clip.num_frames, clip.crop, clip.crop)
    num_classes = len(catalog.class_names)
    steps = count_steps(len(catalog.train), config.batch_size)
    names = ", ".join(catalog.class_names[:8]) + (", ..." if num_classes > 8 else "")
    rows = {
        "model": f"{config.model.name}, {count_parameters(size, num_classes) / 1e6:.2f} M parameters, "
        f"{macs / 1e9:.2f} GMACs per clip",
        "weights": weights,
        "data": f"{config.dataset.name}: {describe_catalog(catalog)}",
        "classes": names,
        "clips": f"{clip.num_frames} frames, {clip.sampling}"
        + (f" with stride {clip.frame_stride}" if clip.sampling == "dense" else "")
        + f", {clip.crop} x {clip.crop} px",
        "augmentation": _describe_augmentation(config),
        "batch": f"{config.batch_size} clips (global){_describe_shares(config, strategy)}, {steps} steps per epoch, "
        f"{config.epochs} epochs",
        "schedule": f"{config.optimizer.schedule}, warm-up over {config.optimizer.warmup_epochs:g} epochs"
        + (" (longer than the run!)" if config.optimizer.warmup_epochs > config.epochs else ""),
        "learning rates": "; ".join(groups),
        "precision": config.runtime.precision,
        "devices": describe_devices(strategy),
        "memory": _describe_memory(config, size, num_classes, strategy),
        "seed": str(config.seed),
    }
    return "\n".join(f"{name + ':':<16}{text}" for name, text in rows.items())


def _describe_shares(config: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    num_devices, parts = strategy.num_replicas_in_sync, config.runtime.micro_batches
    devices = f", {config.batch_size // num_devices} per device" if num_devices > 1 else ""
    return devices + (f" in {parts} micro-batches" if parts > 1 else "")


def _describe_memory(config: TrainConfig, size: ModelSize, num_classes: int, strategy: tf.distribute.Strategy) -> str:
    clip, runtime, num_devices = config.clip, config.runtime, strategy.num_replicas_in_sync
    share = config.batch_size // (num_devices * runtime.micro_batches)
    clip_shape = (clip.num_frames, clip.crop, clip.crop)
    memory = estimate_step(size, num_classes, clip_shape, share, runtime.precision, runtime.remat)
    is_cpu = "CPU" in strategy.extended.worker_devices[0]
    return describe_memory(memory, num_devices, is_cpu) + (", blocks computed twice" if runtime.remat else "")


def _describe_augmentation(config: TrainConfig) -> str:
    augment = config.augment
    low, high = augment.crop_area
    parts = [f"crops of {100 * low:g} to {100 * high:g} % of the frame" if low < 1 else "whole frames"]
    if config.dataset.allow_flip and augment.flip > 0:
        parts.append(f"flipped with probability {augment.flip:g}")
    else:
        parts.append("not flipped")
    if augment.label_smoothing > 0:
        parts.append(f"label smoothing {augment.label_smoothing:g}")
    return ", ".join(parts)
