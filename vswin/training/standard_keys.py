"""The names under which wandb and TensorBoard show the figures of an epoch."""

from collections.abc import Mapping


def standard_keys(logs: Mapping[str, float]) -> dict[str, float]:
    """Renames the figures of an epoch: `loss` to `train/loss`, `val_top1` to `val/top1`, and so on.

    Args:
        logs: as Keras and `history.csv` name them.
    """
    return {
        f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"train/{key}": float(value)
        for key, value in logs.items()
    }
