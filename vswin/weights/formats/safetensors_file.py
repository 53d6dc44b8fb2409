"""Files in the safetensors format: a JSON header, then the values, mapped when read.

Source: the format as described in the README of huggingface/safetensors.
"""

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.weights.formats.raw_tensor import STORED_AS, MalformedError, is_count, to_native

_ELEMENTS = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "BOOL": "bool",
}
_NAME_OF_DTYPE = {element: name for name, element in _ELEMENTS.items()}
_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
# A header of this size describes 30,000 tensors; the format allows 100 MB.
_MAX_HEADER_BYTES = 4 * 2**20
_MAX_DIGITS = 19
_MAX_AXES = 32
_MAX_ELEMENTS = 2**58
_ALIGNMENT = 8


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a `.safetensors` file.

    The file must not be changed in place as long as the arrays are in use; replacing it is safe.

    Args:
        path: the file.

    Returns:
        Name -> values, in the order of the header: read-only views of the file; bfloat16 becomes float32, other
        dtypes stay.

    Raises:
        InputError: if there is no such file, or it breaks a rule of the format.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{path} does not exist or is no file; give the path of a .safetensors file")
    try:
        return _read(source)
    except MalformedError as error:
        raise InputError(
            f"{path} is no sound safetensors file: {error}; copy or download it again, or use another file"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def read_sharded_safetensors(index: Path) -> dict[str, np.ndarray]:
    """Reads the files beside an index such as `model.safetensors.index.json` that it says to belong together.

    Raises:
        InputError: if it is no such index, a file is missing or damaged, or they do not hold what the index says.
    """
    try:
        with index.open("rb") as file:
            parts = json.loads(file.read(_MAX_HEADER_BYTES), object_pairs_hook=_unique)["weight_map"]
        if not all(Path(part).name == part for part in parts.values()):
            raise MalformedError("a part of it is not beside it")
        tensors: dict[str, np.ndarray] = {}
        for part in sorted(set(parts.values())):
            tensors |= read_safetensors(index.with_name(part))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is no index of safetensors files that belong together: {error}") from error
    if differing := sorted(parts.keys() ^ tensors.keys()):
        raise InputError(
            f"{index} and its parts do not hold the same tensors: {', '.join(differing[:5])} is in one alone"
        )
    return tensors


def read_safetensors_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the texts that describe a `.safetensors` file which `read_safetensors` accepts; often none."""
    with Path(path).open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        header = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
    metadata: dict[str, str] = header.get(_METADATA, {})
    return metadata


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a `.safetensors` file; a reader sees the old file or the new one, never a part.

    Args:
        path: file to write; its folder is made.
        tensors: name -> values, of bool, integers, float16, float32 or float64.
        metadata: texts that describe the file.

    Raises:
        InputError: if the format has no such dtype, or a name is reserved.
    """
    target = Path(path)
    header, in_file_order = _describe(tensors)
    described = {_METADATA: dict(metadata), **header} if metadata else header
    encoded = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial, partial.open("wb") as file:
        file.write(_LENGTH.pack(len(encoded)))
        file.write(encoded)
        for name in in_file_order:
            file.write(_little_endian(tensors[name]).data)


def _describe(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[str]]:
    """Lays the values out, wide elements first so that all are aligned; header and names in the order of the file."""
    offsets: dict[str, list[int]] = {}
    position = 0
    for name in sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize):
        if name == _METADATA or tensors[name].dtype.name not in _NAME_OF_DTYPE:
            raise InputError(
                f"the tensor {name!r} of dtype {tensors[name].dtype} cannot be written to safetensors: another name "
                f"than {_METADATA} and one of the dtypes {', '.join(_NAME_OF_DTYPE)} are needed"
            )
        offsets[name] = [position, position + tensors[name].nbytes]
        position = offsets[name][1]
    header = {
        name: {
            "dtype": _NAME_OF_DTYPE[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": offsets[name],
        }
        for name, tensor in tensors.items()
    }
    return header, list(offsets)


def _little_endian(tensor: np.ndarray) -> np.ndarray:
    """Gives the values as the file holds them, one after another."""
    return np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))


def _read(path: Path) -> dict[str, np.ndarray]:
    """Maps the file, checks its header and makes the views."""
    size = path.stat().st_size
    if size < _LENGTH.size:
        raise MalformedError(f"it has {size} bytes")
    with path.open("rb") as file:
        buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    (length,) = _LENGTH.unpack_from(buffer)
    start = _LENGTH.size + length
    if start > len(buffer):
        raise MalformedError(f"it has {len(buffer)} bytes, and its header alone would end at {start}")
    if length > _MAX_HEADER_BYTES:
        raise MalformedError(f"its header has {length} bytes, more than the {_MAX_HEADER_BYTES} that are read")
    header = _parse_header(bytes(buffer[_LENGTH.size : start]))
    values = buffer[start:]
    _check_layout(header, len(values))
    return {name: _view(values, entry) for name, entry in header.items()}


def _parse_header(encoded: bytes) -> dict[str, Any]:
    """Decodes the header and checks each entry by itself; name -> entry."""
    try:
        header = json.loads(encoded.decode(), object_pairs_hook=_unique, parse_int=_short_integer)
        # JSON can spell halves of characters, which no terminal or file can take.
        "".join(header if isinstance(header, dict) else ()).encode()
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError("its header is not JSON") from error
    if not encoded.startswith(b"{") or not isinstance(header, dict):
        raise MalformedError("its header is not a JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedError(f"its {_METADATA} is not a map of texts")
    for name, entry in header.items():
        _check_entry(name, entry)
    return header


def _check_entry(name: str, entry: Any) -> None:
    """Checks dtype, shape and number of bytes of a tensor."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise MalformedError(f"its tensor {name[:200]!r} has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ELEMENTS:
        raise MalformedError(f"its tensor {name[:200]!r} has an unknown dtype; known are {', '.join(_ELEMENTS)}")
    if not _are_counts(shape) or len(shape) > _MAX_AXES or not _are_counts(offsets) or len(offsets) != 2:
        raise MalformedError(f"its tensor {name[:200]!r} has an impossible shape or position")
    if math.prod(max(size, 1) for size in shape) >= _MAX_ELEMENTS:
        raise MalformedError(f"its tensor {name[:200]!r} has the impossible shape {shape}")
    expected = math.prod(shape) * STORED_AS[_ELEMENTS[dtype]].itemsize
    if offsets[1] - offsets[0] != expected:
        raise MalformedError(f"its tensor {name[:200]!r} has {offsets[1] - offsets[0]} bytes instead of {expected}")


def _check_layout(header: Mapping[str, Any], num_bytes: int) -> None:
    """Checks that the tensors fill the file without holes and overlaps."""
    position = 0
    for begin, end in sorted(entry["data_offsets"] for entry in header.values()):
        if begin != position:
            raise MalformedError(f"its tensors overlap or leave a hole at byte {min(begin, position)} of its values")
        position = end
    if position != num_bytes:
        raise MalformedError(f"its values have {num_bytes} bytes, and its tensors take {position}")


def _view(values: memoryview, entry: Mapping[str, Any]) -> np.ndarray:
    """Makes the array of a checked entry."""
    element = _ELEMENTS[entry["dtype"]]
    begin, end = entry["data_offsets"]
    if begin == end:
        return to_native(np.zeros(entry["shape"], STORED_AS[element]), element)
    return to_native(np.frombuffer(values[begin:end], STORED_AS[element]).reshape(entry["shape"]), element)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(is_count(count) for count in value)


def _short_integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise MalformedError("its header has a number beyond all sizes")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dict of pairs whose keys must differ."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise MalformedError("its header names something twice")
    return made
