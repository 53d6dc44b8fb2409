"""The machine a run finds: precision, devices, and where its messages go."""

import logging
import os
import platform
import sys
from datetime import datetime
from pathlib import Path

import tensorflow as tf
import tf_keras as keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OUTPUTS = Path("outputs")

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}

logger = logging.getLogger("vswin")
console = Console(highlight=False, soft_wrap=True)


def set_precision(precision: str) -> None:
    """Sets the Keras policy: weights stay float32, the layers compute in `precision`.

    Args:
        precision: `float32`, `bfloat16` or `float16`.
    """
    keras.mixed_precision.set_global_policy(_POLICIES[precision])


def describe_devices() -> str:
    """Names what TensorFlow computes on, e.g. "1 CPU (x86_64, 8 threads)" or "2 GPUs"."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    return f"CPU ({platform.machine()})"


def start_log(path: Path | None) -> None:
    """Sends messages of the logger `vswin` to the terminal, and with a time to a file.

    Args:
        path: the log file, which is continued if it exists; None for none.
    """
    logger.setLevel(logging.INFO)
    # absl, which TensorFlow brings, puts a handler of its own on the root logger.
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(terminal)
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)


def default_output_dir(model: str, dataset: str) -> Path:
    """Names a folder that is not there yet: `outputs/<date>_<time>_<model>_<dataset>`."""
    path = OUTPUTS / f"{datetime.now():%Y-%m-%d_%H%M%S}_{model}_{dataset}"
    # Two runs started in the same second, as a sweep does, must not meet in one folder.
    return path.with_name(f"{path.name}_{os.getpid()}") if path.exists() else path


def make_progress_bar(unit: str) -> Progress:
    """Makes a bar for a terminal; elsewhere it shows nothing, and its user prints lines instead.

    Args:
        unit: what is counted, e.g. "steps". Tasks have a field `note`, a text to the right of the count.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def format_seconds(seconds: float) -> str:
    """Writes a duration as people say it, e.g. "45 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
