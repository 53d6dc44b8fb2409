"""Tensors as checkpoint files describe them, and the checked step from such a description to a NumPy view.

The readers of PyTorch and safetensors files share it. A description comes from a file nobody vouches for: no view
reaches outside its storage, whatever the description says.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Element types and how NumPy sees their bytes, which are little-endian. NumPy knows no bfloat16, and a byte that is
# neither 0 nor 1 makes a broken bool: both are converted by `to_native`.
STORED_AS: Mapping[str, np.dtype] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "bool": np.dtype("u1"),
}

# NumPy 1.26 stops at 32 axes.
_MAX_AXES = 32
_MAX_COUNT = 2**62
# Names may share bytes, as tied and expanded tensors do, up to this many times the bytes behind them, and a little.
_MAX_SHARING = 4
_ALWAYS_ALLOWED = 2**20


class MalformedError(ValueError):
    """Says what is wrong with a file; its reader adds the file's name and the way out."""


@dataclass(frozen=True)
class Storage:
    """A run of elements in a file.

    Args:
        key: what the file calls it.
        element: type of its elements, a key of `STORED_AS`, or "untyped" for bytes that the tensor types.
        numel: how many elements, or bytes if untyped.
    """

    key: str
    element: str
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.numel * (1 if self.element == "untyped" else STORED_AS[self.element].itemsize)


@dataclass(frozen=True)
class RawTensor:
    """A tensor as a file describes it, unchecked.

    Args:
        storage: where its elements lie.
        element: type of its elements, a key of `STORED_AS`.
        offset: elements before its first one.
        shape, strides: per axis, in elements.
    """

    storage: Storage
    element: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the values take once they are copied."""
        itemsize = 4 if self.element == "bfloat16" else STORED_AS[self.element].itemsize
        return math.prod(self.shape) * itemsize


def view_tensors(tensors: Mapping[str, RawTensor], bytes_of: Callable[[Storage], np.ndarray]) -> dict[str, np.ndarray]:
    """Turns descriptions into arrays.

    Args:
        tensors: name -> description.
        bytes_of: gives the bytes of a storage, uint8 [storage.nbytes], or raises `MalformedError`.

    Returns:
        Name -> array: views of the storage's bytes, copies for bfloat16 (as float32) and bool.

    Raises:
        MalformedError: if a tensor reaches outside its storage, or all together repeat the same few bytes until
            they would fill the memory of whoever copies them.
    """
    # All storages come first: what they really hold bounds what the tensors may take.
    flats = {storage: bytes_of(storage) for storage in {tensor.storage: None for tensor in tensors.values()}}
    _check_total(tensors, sum(storage.nbytes for storage in flats))
    arrays = {}
    for name, tensor in tensors.items():
        stored = STORED_AS[tensor.element]
        flat = flats[tensor.storage]
        elements = flat[: len(flat) // stored.itemsize * stored.itemsize].view(stored)
        arrays[name] = to_native(_strided(name, tensor, elements), tensor.element)
    return arrays


def to_native(values: np.ndarray, element: str) -> np.ndarray:
    """Converts what NumPy cannot view: bfloat16 to float32, exactly, and bytes to bool."""
    if element == "bfloat16":
        wide = values.astype("<u4")
        # In place, so that a single number stays an array; NumPy 1.26 takes a plain 16 for an int64 then.
        wide <<= np.uint32(16)
        return wide.view("<f4")
    return np.asarray(values != 0) if element == "bool" else values


def is_count(value: object) -> bool:
    """Tells whether a value from a file can be a size, an offset or a stride."""
    return type(value) is int and 0 <= value < _MAX_COUNT


def _check_total(tensors: Mapping[str, RawTensor], stored: int) -> None:
    """Checks each shape, and how far the stored bytes unfold."""
    for name, tensor in tensors.items():
        _check_shape(name, tensor)
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total > _MAX_SHARING * stored + _ALWAYS_ALLOWED:
        raise MalformedError(f"its tensors unfold {stored} stored bytes to {total}, over {_MAX_SHARING} times as many")


def _check_shape(name: str, tensor: RawTensor) -> None:
    shape, strides = tensor.shape, tensor.strides
    counts: Sequence[object] = (*shape, *strides, tensor.offset)
    if not all(is_count(count) for count in counts) or len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise MalformedError(f"tensor {name[:200]!r} has an impossible shape, stride or offset")
    if math.prod(max(size, 1) for size in shape) >= _MAX_COUNT // 16:
        raise MalformedError(f"tensor {name[:200]!r} has the impossible shape {shape}")


def _strided(name: str, tensor: RawTensor, flat: np.ndarray) -> np.ndarray:
    """Makes the view after checking that its last element lies inside."""
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, flat.dtype)
    # The stride of an axis with one element is never used; PyTorch may write anything there.
    strides = [stride if size > 1 else 0 for size, stride in zip(tensor.shape, tensor.strides, strict=True)]
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    if last >= len(flat):
        raise MalformedError(
            f"tensor {name[:200]!r} reaches element {last} of a storage ({tensor.storage.key!r}) that has {len(flat)}"
        )
    bytes_strides = [stride * flat.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, bytes_strides, writeable=False)
