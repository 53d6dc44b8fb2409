"""Files of weights as arrays: safetensors (in which runs keep theirs) and HDF5 (Keras, and earlier runs of ours).

Nothing in a file is run. What the model is stands beside its weights as JSON.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes  # teaches NumPy bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vswin import __version__
from vswin.atomic import replacing
from vswin.errors import InputError

# Where a run keeps its best weights, and the best average of its weights if it computes one.
BEST_CHECKPOINT = Path("checkpoints") / "best.safetensors"
BEST_AVERAGE = Path("checkpoints") / "best_ema.safetensors"

# The metadata of our files: in safetensors one JSON text, earlier one for each entry, as in HDF5; then, and there,
# the entry with our version tells them from files of others.
_METADATA = "vswin"
_VERSION = "vswin_version"
# Weights hardly compress; an HDF5 file that claims more is made to fill the memory.
_MAX_COMPRESSION = 100
_MAX_INDEX_BYTES = 4 * 2**20


def best_weights(run: Path, name: Path = BEST_CHECKPOINT) -> Path:
    """Gives the file of the best weights of a run (or of their average), an `.h5` file where an earlier version ran."""
    path = run / name
    earlier = path.with_suffix(".h5")
    return earlier if earlier.is_file() and not path.exists() else path


def save_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes weights and what the model is; a reader sees the old file or the new one, never a part.

    Args:
        path: file to write, HDF5 if its ending is `.h5`, else safetensors; its folder is made.
        tensors: official name -> values in official layout.
        metadata: what the model is, e.g. `size`, `num_classes`, `class_names`: anything that JSON can hold.
            `vswin_version` is added.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    target = Path(path)
    described = {**metadata, _VERSION: __version__}
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix != ".h5":
        write_safetensors(target, tensors, {_METADATA: json.dumps(described)})
        return
    # In memory first: HDF5 does not survive a full disk, it ends the process with a segmentation fault.
    contents = io.BytesIO()
    with h5py.File(contents, "w") as file:
        for name, tensor in tensors.items():
            file.create_dataset(name, data=tensor)
        for key, value in described.items():
            file.attrs[key] = json.dumps(value)
    with replacing(target) as partial:
        partial.write_bytes(contents.getbuffer())


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file, whole or not at all; `texts` describe it."""
    # The library writes the memory behind an array as it lies there, whatever the strides.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    try:
        with replacing(path) as partial:
            save_file(dense, partial, dict(texts))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads a `.safetensors` file.

    Returns:
        Name -> values, bfloat16 as float32; and what `save_checkpoint` was given beside the weights, with lists for
        tuples, or None where the file is not one of ours.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        with safe_open(path, "np") as file:
            texts, names = file.metadata() or {}, file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if _METADATA in texts:
            metadata = json.loads(texts[_METADATA])
        else:
            metadata = {key: json.loads(texts[key]) for key in sorted(texts)} if _VERSION in texts else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no sound safetensors file: {str(error)[:200]}; copy or download it again, or use another file"
        ) from error
    wide = {name: tensor.astype(np.float32) for name, tensor in tensors.items() if tensor.dtype == ml_dtypes.bfloat16}
    return tensors | wide, metadata


def read_sharded_safetensors(index: Path) -> dict[str, np.ndarray]:
    """Reads the files beside an index such as `model.safetensors.index.json` that it says to belong together.

    Raises:
        InputError: if it is no such index, a file is missing or damaged, or they do not hold what the index says.
    """
    try:
        with index.open("rb") as file:
            parts = json.loads(file.read(_MAX_INDEX_BYTES))["weight_map"]
        tensors: dict[str, np.ndarray] = {}
        for part in sorted(set(parts.values())):
            if Path(part).name != part:
                raise ValueError("a part of it is not beside it")
            tensors |= read_safetensors(index.with_name(part))[0]
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is no index of safetensors files that belong together: {error}") from error
    if differing := sorted(parts.keys() ^ tensors.keys()):
        raise InputError(
            f"{index} and its parts do not hold the same tensors: {', '.join(differing[:5])} is in one alone"
        )
    return tensors


def read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads all numbers in an HDF5 file, in this process: what crashes the HDF5 library crashes it.

    Returns:
        Path of the data set in the file -> values; and the metadata, see `read_safetensors`.

    Raises:
        InputError: if the file is damaged.
    """
    tensors: dict[str, np.ndarray] = {}
    bytes_left = _MAX_COMPRESSION * path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            texts, names = dict(file.attrs), list[str]()
            file.visit(names.append)  # it follows no links into other files
            for name in names:
                item = file[name]
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
                    bytes_left -= item.nbytes
                    if item.external or item.is_virtual or bytes_left < 0:
                        raise ValueError(f"the values of {name}, {item.nbytes} bytes, are not in the file")
                    tensors[name] = np.asarray(item[()])
        metadata = {key: json.loads(text) for key, text in texts.items()} if _VERSION in texts else None
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again or use another") from error
    return tensors, metadata
