"""Settings of a run: which of them matter to what it reaches, and how they are written."""

from __future__ import annotations

from typing import Any

# Where a run writes and what it logs, and defaults that work through the key of the same name elsewhere alone.
_LEFT_OUT = {
    *("output_dir", "resume", "dataset.cache_dir", "dataset.tfds_dir"),
    *("model.learning_rate", "model.weight_decay", "model.backbone_multiplier", "model.init_from"),
    *("dataset.epochs", "dataset.batch_size", "dataset.warmup_epochs", "dataset.crop_area"),
}


def is_setting(key: str) -> bool:
    """Tells whether a key of a configuration may change what a run reaches."""
    return key not in _LEFT_OUT and not key.startswith("logger.")


def format_value(value: Any) -> str:
    """Writes a value as it is given on a command line."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{','.join(map(format_value, value))}]"
    return str(value)
