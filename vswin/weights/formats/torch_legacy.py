"""PyTorch files before version 1.6: pickles one after another, then the storages."""

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from vswin.weights.formats.raw_tensor import MalformedError, Storage
from vswin.weights.formats.restricted_pickle import Vocabulary, unpickle
from vswin.weights.formats.torch_pickle import TORCH

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")


def read_legacy(buffer: memoryview) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """Reads what a legacy file describes.

    Args:
        buffer: the file's bytes, mapped.

    Returns:
        The unpickled object with `RawTensor`s for tensors, and the function from a storage to its bytes, uint8
        [nbytes], a view of the file.

    Raises:
        MalformedError: if it is damaged, hostile, or no PyTorch file.
    """
    magic, position = unpickle(buffer, 0, TORCH)
    if magic != _MAGIC_NUMBER:
        raise MalformedError("it is a pickle, but not one of torch.save")
    protocol, position = unpickle(buffer, position, TORCH)
    system, position = unpickle(buffer, position, TORCH)
    if protocol != _PROTOCOL or not isinstance(system, dict):
        raise MalformedError("its header is damaged")
    if system.get("little_endian") is not True:
        raise MalformedError(
            "its byte order is not little-endian: load and save it again with PyTorch on an ordinary computer"
        )
    noted: dict[str, Storage] = {}
    payload, position = unpickle(buffer, position, _noting(noted))
    keys, position = unpickle(buffer, position, TORCH)
    contents = _find_contents(buffer, position, keys, noted)

    def bytes_of(storage: Storage) -> np.ndarray:
        if storage.key not in contents:
            raise MalformedError(f"it has no storage {storage.key[:200]!r} for one of its tensors")
        return contents[storage.key]

    return payload, bytes_of


def _noting(noted: dict[str, Storage]) -> Vocabulary:
    """Makes a vocabulary that notes the storages a pickle mentions: the file does not say their types again."""

    def storage_of(persistent_id: Any) -> Storage:
        storage = TORCH.storage_of(persistent_id)
        if noted.setdefault(storage.key, storage) != storage:
            raise MalformedError(f"it describes the storage {storage.key[:200]!r} in two ways")
        return storage

    return dataclasses.replace(TORCH, storage_of=storage_of)


def _find_contents(buffer: memoryview, position: int, keys: Any, noted: dict[str, Storage]) -> dict[str, np.ndarray]:
    """Walks over the storages, each behind the number of its elements; key -> bytes, uint8 [nbytes]."""
    contents: dict[str, np.ndarray] = {}
    if not isinstance(keys, list):
        raise MalformedError("its list of storages is damaged")
    for key in keys:
        if not isinstance(key, str) or key not in noted or key in contents:
            raise MalformedError("its list of storages is damaged")
        start = position + _COUNT.size
        position = start + noted[key].nbytes
        if position > len(buffer):
            raise MalformedError(f"it breaks off: {len(buffer)} bytes, and the storage {key!r} ends at {position}")
        (numel,) = _COUNT.unpack_from(buffer, start - _COUNT.size)
        if numel != noted[key].numel:
            raise MalformedError(f"its storage {key!r} has {numel} elements instead of {noted[key].numel}")
        contents[key] = np.frombuffer(buffer[start:position], np.uint8)
    return contents
