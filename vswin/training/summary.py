"""What a run says before its first step: what is trained, on what, at what cost."""

from collections.abc import Iterable

from vswin.config import TrainConfig
from vswin.data.catalog import Catalog, describe_catalog
from vswin.data.pipeline import count_steps
from vswin.zoo import ModelSize, count_macs, count_parameters


def describe_run(
    config: TrainConfig, size: ModelSize, catalog: Catalog, groups: Iterable[str], weights: str, devices: str
) -> str:
    """Writes the summary of a run, a line per fact.

    Args:
        config: the run.
        size: the model's size, overrides applied.
        catalog: its videos.
        groups: a text per parameter group.
        weights: what was loaded.
        devices: what computes.
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
        "batch": f"{config.batch_size} clips (global), {steps} steps per epoch, {config.epochs} epochs",
        "schedule": f"{config.optimizer.schedule}, warm-up over {config.optimizer.warmup_epochs:g} epochs"
        + (" (longer than the run!)" if config.optimizer.warmup_epochs > config.epochs else ""),
        "learning rates": "; ".join(groups),
        "precision": config.runtime.precision,
        "devices": devices,
        "seed": str(config.seed),
    }
    return "\n".join(f"{name + ':':<16}{text}" for name, text in rows.items())


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
