"""Unpacks SavedModels from the archives they are published in, as TF-Hub's `.tar.gz`.

Python's own extraction has changed its rules from version to version. Here only plain files and folders come out,
through our own writes: no links, devices, owners, modes, or names that lead elsewhere.
"""

import gzip
import io
import mmap
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from vswin.errors import InputError
from vswin.weights.formats.zip_directory import open_zip

SAVED_MODEL = "saved_model.pb"

_MAX_MEMBERS = 1_000
# Weights shrink by a tenth, graphs to a tenth: an archive that grows more than this is made to fill disks.
_MAX_INFLATION = 20
_ALWAYS_ALLOWED = 64 * 2**20
_MAX_NAME = 1_024
_MAX_DEPTH = 32
_CHUNK = 65_536
# Extended headers of tar archives hold long names and times; some versions of `tarfile` take quadratic time on them.
_MAX_EXTENDED_HEADER = 8_192
_MAX_EXTENDED_HEADERS_BYTES = 2**20
_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError),
    *(NotImplementedError, RuntimeError, gzip.BadGzipFile, LookupError, struct.error),
)


class _RefusedError(ValueError):
    """Says what in an archive is not unpacked."""


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive.

    Args:
        name: its path as the archive has it.
        size: bytes of its content as announced.
        read: gives the next bytes of its content, at most as many as asked for; None for a folder.
    """

    name: str
    size: int
    read: Callable[[int], bytes] | None


def unpack_saved_model(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> Path:
    """Unpacks an archive that holds a SavedModel.

    Args:
        path: a `.tar.gz`, `.tgz`, `.tar` or `.zip` file; its content decides, not its name.
        into: the folder to make; it must not exist yet, or be empty. It appears whole when all is unpacked, or
            not at all.

    Returns:
        The folder with `saved_model.pb`: `into` or one below it.

    Raises:
        InputError: if the archive is damaged or has no SavedModel or several; if a member is a link, a device or
            leads outside, or there are over 1,000; if the content is over 20 times the archive's size and over
            64 MiB; if there is no room for it.
    """
    source, target = Path(path), Path(into).absolute()
    if not source.is_file():
        raise InputError(f"{path} does not exist or is no file; give the path of a .tar.gz, .tar or .zip archive")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{into} exists already; choose another folder or delete it")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _unpack(source, partial)
        found = _find_saved_model(partial)
        os.replace(partial, target)
    except _RefusedError as error:
        raise InputError(f"{path} is not unpacked: {error}; take it from its publisher, or use another file") from error
    except _DAMAGES as error:
        raise InputError(f"{path} is damaged or no archive ({str(error)[:200]}); copy or download it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be unpacked into {into}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target / found


def _unpack(source: Path, folder: Path) -> None:
    """Writes the members below `folder`, within the limits."""
    limit = _MAX_INFLATION * source.stat().st_size + _ALWAYS_ALLOWED
    total = 0
    for number, member in enumerate(_members(source, limit), start=1):
        destination = folder / _safe_path(member.name)
        total += max(member.size, 0)
        if number > _MAX_MEMBERS:
            raise _RefusedError(f"it has over {_MAX_MEMBERS} members")
        if total > limit:
            raise _RefusedError(f"its content takes over {limit} bytes, more than {_MAX_INFLATION} times its size")
        if member.read is None:
            destination.mkdir(parents=True, exist_ok=True)
        elif destination.exists():
            raise _RefusedError(f"it has two members called {member.name!r}")
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            _write(member.read, member.size, destination)


def _write(read: Callable[[int], bytes], size: int, destination: Path) -> None:
    """Writes one file, of the size announced."""
    with destination.open("xb") as file:
        while size:
            chunk = read(min(size, _CHUNK))
            if not chunk:
                raise EOFError(f"{destination.name} breaks off")
            file.write(chunk)
            size -= len(chunk)


def _safe_path(name: str) -> PurePosixPath:
    """Checks that a member's name leads below the folder it is unpacked into."""
    path = PurePosixPath(name)
    is_odd = "\\" in name or ":" in name or not name.isprintable()
    if path.is_absolute() or ".." in path.parts or is_odd or len(name) > _MAX_NAME or len(path.parts) > _MAX_DEPTH:
        raise _RefusedError(f"its member {name[:200]!r} would lead outside or has an odd name")
    return path


def _find_saved_model(folder: Path) -> Path:
    """Finds the one SavedModel, relative to `folder`."""
    found = [file.parent.relative_to(folder) for file in sorted(folder.rglob(SAVED_MODEL)) if file.is_file()]
    if len(found) != 1:
        places = f": in {', '.join(str(place) for place in found[:5])}" if found else ""
        raise _RefusedError(f"it has {len(found)} files called {SAVED_MODEL} instead of one{places}")
    return found[0]


def _members(source: Path, limit: int) -> Iterator[_Member]:
    """Walks over an archive of any of the formats."""
    with source.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"PK"):
            yield from _zip_members(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield from _tar_members(_Forward(unzipped, limit))
        else:
            yield from _tar_members(_Forward(file, limit))


def _tar_members(stream: "_Forward") -> Iterator[_Member]:
    # "r:" reads header after header through the stream, which bounds each read; contents are taken from it directly.
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            is_plain = (info.isreg() and not info.issparse()) or info.isdir()
            if not is_plain or info.size < 0 or stream.tell() != info.offset_data:
                raise _RefusedError(f"its member {info.name[:200]!r} is neither a file nor a folder")
            yield _Member(info.name, info.size if info.isreg() else 0, stream.take if info.isreg() else None)
    # `tarfile` takes a damaged header for the end, which truly is a block of zeros.
    if stream.latest != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it ends without the mark of the end")
    while stream.take(_CHUNK):  # To the end, where gzip keeps its checksum.
        pass


def _zip_members(buffer: memoryview) -> Iterator[_Member]:
    with open_zip(buffer) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.flag_bits & 1:
                raise _RefusedError(f"its member {info.filename[:200]!r} is encrypted, or neither a file nor a folder")
            if info.is_dir():
                yield _Member(info.filename, 0, None)
            else:
                with archive.open(info) as content:
                    yield _Member(info.filename, info.file_size, content.read)


class _Forward(io.RawIOBase):
    """A stream for `tarfile` that goes forward only, in small reads, up to a limit.

    A tar header may announce another header of any size, or a place before itself: memory without bounds, and
    endless loops in some versions of `tarfile`.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self.latest = b""
        self._stream = stream
        self._position = 0
        # Headers and the end of the archive come on top of the contents.
        self._limit = limit + 4 * tarfile.BLOCKSIZE * _MAX_MEMBERS
        self._extended_left = _MAX_EXTENDED_HEADERS_BYTES

    def tell(self) -> int:
        """Says where it is."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Reads up to a position ahead."""
        if whence != io.SEEK_SET or not self._position <= offset <= self._limit:
            raise _RefusedError("one of its headers points to an impossible place")
        while self._position < offset and self.take(min(offset - self._position, _CHUNK)):
            pass
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Reads the next header."""
        if size is None or not 0 <= size <= _MAX_EXTENDED_HEADER:
            raise _RefusedError("one of its headers is larger than any name")
        self._extended_left -= size if size > tarfile.BLOCKSIZE else 0
        if self._extended_left < 0:
            raise _RefusedError("its headers are larger than those of thousands of files")
        return self.take(size)

    def take(self, size: int) -> bytes:
        """Reads the next bytes of any kind."""
        self.latest = self._stream.read(size)
        self._position += len(self.latest)
        if self._position > self._limit:
            raise _RefusedError(f"it unpacks to over {self._limit} bytes, more than {_MAX_INFLATION} times its size")
        return self.latest
