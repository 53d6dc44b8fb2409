"""Checkpoint files: HDF5 with one data set per weight, under its official name and in its official layout.

What the model is stands in the attributes of the file, each as JSON. Reading never runs code from it.
"""

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vswin import __version__
from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.weights.formats import hdf5_contents

# Where a run keeps its best weights, and the best average of its weights if it computes one.
BEST_CHECKPOINT = Path("checkpoints") / "best.h5"
BEST_AVERAGE = Path("checkpoints") / "best_ema.h5"

# Compressed weights of a gigabyte take a minute.
_TIMEOUT_SEC = 600


def save_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes a checkpoint; a reader sees the old file or the new one, never a part.

    Args:
        path: file to write; its folder is made.
        tensors: official name -> values in official layout.
        metadata: what the model is, e.g. `size`, `num_classes`, `class_names`: anything that JSON can hold.
            `vswin_version` is added.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In memory first: HDF5 does not survive a full disk, it ends the process with a segmentation fault.
    contents = io.BytesIO()
    with h5py.File(contents, "w") as file:
        for name, tensor in tensors.items():
            file.create_dataset(name, data=tensor)
        for key, value in {**metadata, hdf5_contents.MARK: __version__}.items():
            file.attrs[key] = json.dumps(value)
    with replacing(target) as partial:
        partial.write_bytes(contents.getbuffer())


def read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads all data sets of an HDF5 file; the HDF5 library does so in a process of its own.

    Args:
        path: the file.

    Returns:
        Path of the data set in the file -> values; and what `save_checkpoint` was given beside the weights, with
        lists for tuples, or None where the file is not one of ours.

    Raises:
        InputError: if the file is damaged.
    """
    described = _describe(path)
    try:
        length = described.index(b"\n") + 1
        values = memoryview(described)[length:]
        entries, attributes = json.loads(described[:length])
        tensors, used = {}, 0
        for name, dtype, shape, offset in entries:
            tensors[name] = _view(path, np.dtype(dtype), tuple(shape), offset, values[used:])
            used += tensors[name].nbytes if offset is None else 0
        metadata = None if attributes is None else {key: json.loads(text) for key, text in attributes.items()}
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again or use another") from error
    return tensors, metadata


def _describe(path: Path) -> bytes:
    """Has the file looked at, see `vswin.weights.formats.hdf5_contents`."""
    command = [sys.executable, hdf5_contents.__file__, os.path.abspath(path)]
    try:
        # S603: our own script, and a path that nothing but it interprets.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_SEC, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise InputError(f"{path} is not read within {_TIMEOUT_SEC} s; it is damaged, use another") from None
    if done.returncode == 0:
        return done.stdout
    # After a crash there is none.
    reason = done.stderr.decode(errors="backslashreplace").strip().rpartition("\n")[2] if done.returncode > 0 else ""
    raise InputError(f"{path} is damaged ({reason or 'it crashes the HDF5 library'}); copy it again or use another")


def _view(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int | None, values: memoryview) -> np.ndarray:
    """Maps the values of a data set, or takes those that were sent."""
    if dtype.kind not in hdf5_contents.NUMBERS:
        raise ValueError(f"values of {dtype} are no weights")
    if offset is not None:
        return np.memmap(path, dtype, "r", offset, shape)
    return np.frombuffer(values, dtype, math.prod(shape)).reshape(shape)
