"""Find the features of a serialised tf.train.Example without reading more of it than these.

A prepared UCF101 has its labels between 7 GB of frames: a parser of whole messages would read them all. Positions
are spans (start, end) of bytes.

Source: tensorflow/core/example/example.proto and feature.proto; protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

from vswin.data.packed.record_files import ReadPart

Span = tuple[int, int]

# A tag and a length, of at most ten bytes each.
_HEAD_BYTES = 20
_VARINT, _LENGTH_DELIMITED = 0, 2
_FEATURES = _FEATURE_MAP = _KEY = _BYTES_LIST = _VALUES = 1
_VALUE, _INT64_LIST = 2, 3


def find_feature(read: ReadPart, num_bytes: int, name: str) -> Span:
    """Finds a feature of an Example.

    Args:
        read: Gives parts of the Example.
        num_bytes: Its length.
        name: Key of the feature.

    Returns:
        Where its value, a Feature, is.

    Raises:
        ValueError: If there is none, or this is no Example.
    """
    for features in _find(read, (0, num_bytes), _FEATURES):
        for entry in _find(read, features, _FEATURE_MAP):
            (key,) = _find(read, entry, _KEY)
            if read(key[0], key[1] - key[0]) == name.encode():
                (value,) = _find(read, entry, _VALUE)
                return value
    raise ValueError(f"a record has no feature {name!r}")


def find_bytes(read: ReadPart, feature: Span) -> list[Span]:
    """Finds the values of a feature that is a list of bytes; see `find_feature`."""
    return [value for values in _find(read, feature, _BYTES_LIST) for value in _find(read, values, _VALUES)]


def read_bytes(read: ReadPart, num_bytes: int, name: str) -> bytes:
    """Reads a feature that holds one string of bytes; see `find_feature`."""
    values = find_bytes(read, find_feature(read, num_bytes, name))
    if len(values) != 1:
        raise ValueError(f"the feature {name!r} has {len(values)} values, not one")
    ((start, end),) = values
    return read(start, end - start)


def read_int(read: ReadPart, num_bytes: int, name: str) -> int:
    """Reads a feature that holds one integer >= 0; see `find_feature`."""
    feature = find_feature(read, num_bytes, name)
    for values in _find(read, feature, _INT64_LIST):
        for _, start, _ in _fields(read, values):
            # Packed or not, the value is the last varint: a list of one value is no longer than that.
            content = read(start, values[1] - start)
            return _read_varint(content, 0)[0]
    raise ValueError(f"the feature {name!r} holds no integer")


def _find(read: ReadPart, message: Span, number: int) -> list[Span]:
    return [(start, end) for field, start, end in _fields(read, message) if field == number]


def _fields(read: ReadPart, message: Span) -> Iterator[tuple[int, int, int]]:
    """Goes through the fields of a message: number, and where the content starts and ends."""
    position, message_end = message
    while position < message_end:
        head = read(position, _HEAD_BYTES)
        tag, length = _read_varint(head, 0)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, length = _read_varint(head, length)
            start, end = position + length, position + length + size
        elif kind == _VARINT:
            start, end = position + length, position + _read_varint(head, length)[1]
        else:
            raise ValueError("a record is damaged or no tf.train.Example")
        if end > message_end:
            raise ValueError("a record is damaged or no tf.train.Example")
        yield tag >> 3, start, end
        position = end


def _read_varint(content: bytes, start: int) -> tuple[int, int]:
    """Reads a number of seven bits per byte, the lowest first; gives it and where it ends."""
    value = 0
    for index in range(start, len(content)):
        value |= (content[index] & 0x7F) << 7 * (index - start)
        if content[index] < 0x80:
            return value, index + 1
    raise ValueError("a record is damaged or no tf.train.Example")
