"""PyTorch files of version 1.6 and later: a zip archive of one pickle and one member per storage."""

import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from vswin.weights.formats.raw_tensor import MalformedError, Storage
from vswin.weights.formats.restricted_pickle import unpickle
from vswin.weights.formats.torch_pickle import TORCH
from vswin.weights.formats.zip_directory import open_zip

# Members compressed by another tool may take this many times the file, and a little: trained weights shrink by a tenth.
_MAX_INFLATION = 10
_ALWAYS_ALLOWED = 2**20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# The second line: from dates, names and sizes that nonsense decodes to.
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError),
    *(ValueError, OverflowError, LookupError, struct.error),
)


def read_zip(buffer: memoryview) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """Reads what a zip-format file describes.

    Args:
        buffer: the file's bytes, mapped.

    Returns:
        The unpickled object with `RawTensor`s for tensors, and the function from a storage to its bytes,
        uint8 [nbytes]: a view of the file where the member is stored, as PyTorch does it.

    Raises:
        MalformedError: if it is damaged, hostile, or no PyTorch file.
    """
    try:
        members = _Members(buffer)
        payload, _ = unpickle(members.read(members.prefix + "data.pkl"), 0, TORCH)
    except MalformedError:
        raise
    except _DAMAGES as error:
        raise MalformedError(f"its zip archive is damaged ({str(error)[:200]})") from error
    return payload, members.storage_bytes


class _Members:
    """The members of the archive by name."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._archive = open_zip(buffer)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._archive.infolist():
            if info.filename in self._infos:
                raise MalformedError(f"its zip archive has two members called {info.filename[:200]!r}")
            self._infos[info.filename] = info
        self._check_inflation()
        self.prefix = self._find_prefix()
        self._check_byte_order()

    def read(self, name: str) -> memoryview:
        """Gives the bytes of a member."""
        info = self._infos[name]
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            return self._stored(info)
        if info.compress_type != zipfile.ZIP_DEFLATED:
            raise MalformedError(f"its member {name[:200]!r} is encrypted or compressed in an unusual way")
        with self._archive.open(info) as member:
            content = member.read(info.file_size)
        if len(content) != info.file_size:
            raise MalformedError(f"its member {name[:200]!r} is shorter than it announces")
        return memoryview(content)

    def storage_bytes(self, storage: Storage) -> np.ndarray:
        """Gives the bytes of a storage, uint8 [storage.nbytes]."""
        name = f"{self.prefix}data/{storage.key}"
        if name not in self._infos:
            raise MalformedError(f"it has no member {name[:200]!r} for one of its tensors")
        try:
            content = self.read(name)
        except MalformedError:
            raise
        except _DAMAGES as error:
            raise MalformedError(f"its member {name[:200]!r} is damaged ({str(error)[:200]})") from error
        if len(content) < storage.nbytes:
            raise MalformedError(f"its member {name[:200]!r} has {len(content)} bytes instead of {storage.nbytes}")
        return np.frombuffer(content[: storage.nbytes], np.uint8)

    def _stored(self, info: zipfile.ZipInfo) -> memoryview:
        """Finds a member that is not compressed behind its local header."""
        at = info.header_offset
        mark, name_length, extra_length = _LOCAL_HEADER.unpack(self._buffer[at : at + _LOCAL_HEADER.size])
        start = at + _LOCAL_HEADER.size + name_length + extra_length
        if mark != b"PK\x03\x04" or info.file_size != info.compress_size or start + info.file_size > len(self._buffer):
            raise MalformedError(f"its zip archive is damaged at the member {info.filename[:200]!r}")
        return self._buffer[start : start + info.file_size]

    def _check_inflation(self) -> None:
        compressed = [info for info in self._infos.values() if info.compress_type != zipfile.ZIP_STORED]
        total = sum(info.file_size for info in compressed)
        if total > _MAX_INFLATION * len(self._buffer) + _ALWAYS_ALLOWED:
            raise MalformedError(
                f"its {len(self._buffer)} bytes would inflate to {total}, over {_MAX_INFLATION} times as many"
            )

    def _find_prefix(self) -> str:
        """Finds the folder of the archive that holds data.pkl."""
        found = [name for name in self._infos if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise MalformedError(f"it is a zip archive with {len(found)} members called data.pkl instead of one")
        prefix = found[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in self._infos:
            raise MalformedError("it is a TorchScript program, not a checkpoint: save the state_dict of the model")
        return prefix

    def _check_byte_order(self) -> None:
        name = self.prefix + "byteorder"
        order = bytes(self.read(name)[:16]) if name in self._infos else b"little"
        if order != b"little":
            raise MalformedError(
                f"its byte order is {order.decode('ascii', 'replace')!r} instead of 'little': load and save it again "
                "with PyTorch on an ordinary computer"
            )
