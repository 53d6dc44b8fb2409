"""Checkpoint files: HDF5 with one data set per weight, under its official name and in its official layout.

What the model is stands in the attributes of the file, each as JSON. Reading never runs code from it.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vswin import __version__
from vswin.atomic import replacing
from vswin.errors import InputError

# Where a run keeps its best weights; a run folder stands for this file.
BEST_CHECKPOINT = Path("checkpoints") / "best.h5"

# The attribute that tells our files from other HDF5 files.
_MARK = "vswin_version"
# Kinds of data that weights can be: floating point, integers and truth values.
_NUMBERS = "fiub"
# Weights hardly compress; a file that claims more is made to fill the memory.
_MAX_COMPRESSION = 100


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
        for key, value in {**metadata, _MARK: __version__}.items():
            file.attrs[key] = json.dumps(value)
    with replacing(target) as partial:
        partial.write_bytes(contents.getbuffer())


def read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads all data sets of an HDF5 file.

    Args:
        path: the file.

    Returns:
        Path of the data set in the file -> values; and what `save_checkpoint` was given beside the weights, with
        lists for tuples, or None where the file is not one of ours.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            tensors: dict[str, np.ndarray] = {}
            file.visititems(lambda name, item: _collect(tensors, name, item))
            is_ours = _MARK in file.attrs
            metadata = {key: json.loads(value) for key, value in file.attrs.items()} if is_ours else None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again or use another") from error
    return tensors, metadata


def _collect(tensors: dict[str, np.ndarray], name: str, item: h5py.Group | h5py.Dataset) -> None:
    """Adds a data set of numbers; visiting follows no links into other files."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in _NUMBERS:
        return
    num_stored = item.id.get_storage_size()
    if item.external or item.is_virtual or item.nbytes > _MAX_COMPRESSION * num_stored:
        raise ValueError(f"the values of {name}, {item.nbytes} bytes, are not in the file")
    offset = item.id.get_offset()
    # Values in one piece are mapped; others (compressed, in chunks, tiny ones in the header) are read.
    is_mapped = offset is not None and item.nbytes == num_stored > 0
    tensors[name] = np.memmap(item.file.filename, item.dtype, "r", offset, item.shape) if is_mapped else item[()]
