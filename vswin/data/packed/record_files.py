"""Read single records of TFRecord and ArrayRecord files, at any place and by several threads.

tf.data reads such files from their start only, but in training the order is ours. This is the only module that
reads and writes ArrayRecord.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vswin.errors import InputError

FILE_FORMATS = ("array_record", "tfrecord")

# (start, number of bytes) -> these bytes of a record, fewer at its end
ReadPart = Callable[[int, int], bytes]

_LENGTH_BYTES, _CRC_BYTES = 8, 4
_HEADER_BYTES = _LENGTH_BYTES + _CRC_BYTES
_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
# Videos are compressed already; a group per record, so that one can be read alone.
_WRITER_OPTIONS = "group_size:1,uncompressed"


class Record(NamedTuple):
    """A record whose bytes are read when they are asked for.

    Attributes:
        position: What `RecordFile.read` finds it by.
        num_bytes: Its length.
        read: Gives parts of it.
    """

    position: int
    num_bytes: int
    read: ReadPart


class RecordFile(Protocol):
    """A file of records; threads may share it."""

    def read(self, position: int) -> bytes:
        """Reads a record.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If the record is damaged, or there is none.
        """

    def scan(self) -> Iterator[Record]:
        """Goes through the records in the order of the file; errors as in `read`."""


class TFRecordFile:
    """Reads a TFRecord file; positions are bytes from its start. Checksums are left to whoever verifies.

    A record is its length (uint64, little endian), a checksum of that, its bytes, and a checksum of these.
    """

    def __init__(self, path: Path) -> None:
        """Takes a file; it is opened for each read, so that many of them need no descriptors."""
        self._path = path

    def read(self, position: int) -> bytes:
        """Reads a record, see `RecordFile.read`."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(position)
            num_bytes = self._read_length(file.read(_HEADER_BYTES), position)
            record = file.read(num_bytes)
            while 0 < len(record) < num_bytes and (more := file.read(num_bytes - len(record))):
                record += more  # one call gives 2 GB at most
        if len(record) < num_bytes:
            raise ValueError(f"{self._path.name} ends in the record at byte {position:,}")
        return record

    def scan(self) -> Iterator[Record]:
        """Goes through the records; reads no more of them than is asked for."""
        end = self._path.stat().st_size
        with self._path.open("rb", buffering=0) as file:
            position = 0
            while position < end:
                file.seek(position)
                num_bytes = self._read_length(file.read(_HEADER_BYTES), position)
                first = position + _HEADER_BYTES
                if first + num_bytes + _CRC_BYTES > end:
                    raise ValueError(f"{self._path.name} ends in the record at byte {position:,}")

                def read(start: int, count: int, first: int = first, num_bytes: int = num_bytes) -> bytes:
                    file.seek(first + start)
                    return file.read(max(0, min(count, num_bytes - start)))

                yield Record(position, num_bytes, read)
                position = first + num_bytes + _CRC_BYTES

    def _read_length(self, header: bytes, position: int) -> int:
        if len(header) < _HEADER_BYTES:
            raise ValueError(f"{self._path.name} has no record at byte {position:,}")
        num_bytes = int.from_bytes(header[:_LENGTH_BYTES], "little")
        if num_bytes > self._path.stat().st_size:
            raise ValueError(f"{self._path.name} has no record at byte {position:,}, or it is damaged")
        return num_bytes


class ArrayRecordFile:
    """Reads an ArrayRecord file; positions are numbers of records. Checksums are compared with every read."""

    def __init__(self, path: Path) -> None:
        """Opens a file and reads where its records are.

        Raises:
            InputError: If the library is not there.
            OSError: If the file is not there.
            ValueError: If it is damaged.
        """
        self._path = path
        path.stat()
        self._reader = _array_record().ArrayRecordReader(str(path), _RANDOM_ACCESS)
        if not self._reader.ok():
            raise ValueError(f"{path.name} is cut off or no ArrayRecord file")

    def read(self, position: int) -> bytes:
        """Reads a record, see `RecordFile.read`."""
        try:
            return self._reader.read([position])[0]
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"{self._path.name}: {error}") from None

    def scan(self) -> Iterator[Record]:
        """Goes through the records; reads each of them whole."""
        for number in range(self._reader.num_records()):
            record = self.read(number)

            def read(start: int, count: int, record: bytes = record) -> bytes:
                return record[start : start + count]

            yield Record(number, len(record), read)


def open_records(path: Path, file_format: str) -> RecordFile:
    """Opens a file of records.

    Args:
        path: The file.
        file_format: "array_record" or "tfrecord".

    Raises:
        InputError: If the format is another one, or needs a library that is not there.
        OSError: If the file is not there.
        ValueError: If it is damaged.
    """
    if file_format == "array_record":
        return ArrayRecordFile(path)
    if file_format == "tfrecord":
        return TFRecordFile(path)
    raise InputError(f"{path} is in the format {file_format}; only {' and '.join(FILE_FORMATS)} can be read")


def check_file_format(file_format: str) -> None:
    """Checks that a format can be written here.

    Raises:
        InputError: If it is unknown, or needs a library that is not there.
    """
    if file_format not in FILE_FORMATS:
        raise InputError(f"file_format={file_format}: one of {', '.join(FILE_FORMATS)}")
    if file_format == "array_record":
        _array_record()


def open_array_record_writer(path: Path) -> Any:
    """Opens a new ArrayRecord file for `write(record)` and `close()`.

    Raises:
        InputError: If the library is not there.
    """
    return _array_record().ArrayRecordWriter(str(path), _WRITER_OPTIONS)


def _array_record() -> Any:
    if importlib.util.find_spec("array_record") is None:
        raise InputError(
            "ArrayRecord files need the package array_record, which there is not for "
            "every system: `pip install array-record`, or pack the data with file_format=tfrecord"
        )
    from array_record.python import array_record_module

    return array_record_module
