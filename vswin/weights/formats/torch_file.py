"""Checkpoint files of PyTorch, read without PyTorch: only tensors come out, and nothing in the file is run.

Arrays are views of the mapped file, so opening costs milliseconds and memory is used as values are.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from vswin.errors import InputError
from vswin.weights.formats.raw_tensor import MalformedError, RawTensor, view_tensors
from vswin.weights.formats.restricted_pickle import RefusedGlobalError
from vswin.weights.formats.torch_legacy import read_legacy
from vswin.weights.formats.torch_zip import read_zip

# Under which keys training programs keep the model's state dict, beside optimizer states and settings.
_STATE_DICT_KEYS = ("state_dict", "model", "model_state")
# What stands in a .pth file that a download or a clone left without its content.
_IMPOSTORS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    b"<": "is a web page: the download did not reach the file; download it again",
    b"\x89HDF": "is an HDF5 file: give it the ending .h5",
}


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a `.pth`, `.pt` or `.pyth` file, in the zip format or the one before PyTorch 1.6.

    The state dict is the one under `state_dict`, `model` or `model_state`, or the file's whole object. Everything
    else in the file is passed over. The file must not be changed in place as long as the arrays are in use;
    replacing it is safe.

    Args:
        path: the file.

    Returns:
        Name -> values, in the order of the file. Read-only views of the file, which may be strided and share memory;
        bfloat16 becomes float32, other dtypes stay.

    Raises:
        InputError: if there is no such file, it is damaged or hostile, names globals that weights do not need, or
            has no tensors.
    """
    try:
        payload, bytes_of = _read(Path(path))
        return view_tensors(_state_dict(payload), bytes_of)
    except RefusedGlobalError as error:
        raise InputError(
            f"{path} wants the global {str(error)[:200]!r}, which weights do not need; nothing was run. Take the file "
            "from its publisher or, if you trust it, load it with PyTorch and save the state_dict of its model alone"
        ) from None
    except MalformedError as error:
        raise InputError(f"{path} cannot be read: {error}; copy or download it again, or use another file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> tuple[Any, Any]:
    """Maps the file and reads it in the format its first bytes show."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; give the path of a PyTorch checkpoint")
    with path.open("rb") as file:
        start = file.read(512)
        if not start:
            raise MalformedError("it is empty")
        buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for mark, what in _IMPOSTORS.items():
        if start.lstrip().startswith(mark):
            raise InputError(f"{path} {what}")
    if start.startswith(b"PK"):
        return read_zip(buffer)
    if start[257:262] == b"ustar":
        raise MalformedError("it is a tar file, as PyTorch wrote them before 0.1.10: load and save it with a newer one")
    return read_legacy(buffer)


def _state_dict(payload: Any) -> dict[str, RawTensor]:
    """Finds the state dict and keeps the tensors in it."""
    if not isinstance(payload, dict):
        raise MalformedError("it holds no dict of tensors, but a single object: save the state_dict of the model")
    for candidate in (*(payload.get(key) for key in _STATE_DICT_KEYS), payload):
        items = candidate.items() if isinstance(candidate, dict) else ()
        tensors = {name: value for name, value in items if isinstance(value, RawTensor)}
        if tensors:
            return tensors
    keys = ", ".join(repr(key[:40]) for key in list(payload)[:10]) or "none"
    raise MalformedError(f"it has no tensors under {', '.join(_STATE_DICT_KEYS)} or at its top, whose keys are {keys}")
