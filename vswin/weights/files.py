"""Checkpoint files: HDF5 with one data set per weight, under its official name and in its official layout.

What the model is stands in the attributes of the file, each as JSON. Reading never runs code from it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vswin import __version__
from vswin.errors import InputError

# Where a run keeps its best weights; a run folder stands for this file.
BEST_CHECKPOINT = Path("checkpoints") / "best.h5"

# The attribute that tells our files from other HDF5 files.
_MARK = "vswin_version"
_READABLE = "this version reads vswin checkpoints (.h5) and run folders that hold checkpoints/best.h5"


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
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            for name, tensor in tensors.items():
                file.create_dataset(name, data=tensor)
            for key, value in {**metadata, _MARK: __version__}.items():
                file.attrs[key] = json.dumps(value)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of a checkpoint.

    Args:
        path: checkpoint file or run folder.

    Returns:
        Official name -> values in official layout.

    Raises:
        InputError: if there is no such file or it has another format.
    """
    with _open_checkpoint(path) as file:
        return {name: data[()] for name, data in file.items()}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what the model behind a checkpoint is.

    Args:
        path: checkpoint file or run folder.

    Returns:
        What `save_checkpoint` was given, with lists for tuples, and `vswin_version`.

    Raises:
        InputError: if there is no such file or it has another format.
    """
    with _open_checkpoint(path) as file:
        return {key: json.loads(value) for key, value in file.attrs.items()}


def _open_checkpoint(path: str | os.PathLike[str]) -> h5py.File:
    """Opens a checkpoint for reading after checking that it is one."""
    given = Path(path)
    source = given / BEST_CHECKPOINT if given.is_dir() else given
    if not source.is_file():
        raise InputError(f"{source} does not exist; {_READABLE}")
    if not h5py.is_hdf5(source):
        raise InputError(f"{source} is not an HDF5 file; {_READABLE}")
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise InputError(f"{source} is damaged ({error}); copy it again or use another") from error
    if _MARK not in file.attrs:
        file.close()
        raise InputError(f"{source} is an HDF5 file, but not written by vswin; {_READABLE}")
    return file
