import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from vswin.data.packed.examples import find_bytes, find_feature, read_bytes, read_int


def make(features: dict[str, list]) -> bytes:
    kinds = {bytes: ("bytes_list", tf.train.BytesList), int: ("int64_list", tf.train.Int64List)}
    kinds[float] = ("float_list", tf.train.FloatList)
    built = {}
    for name, values in features.items():
        key, kind = kinds[type(values[0])]
        built[name] = tf.train.Feature(**{key: kind(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=built)).SerializeToString()


def reader(record: bytes):
    return lambda start, count: record[start : start + count]


def test_features_are_found_among_others() -> None:
    frames = [np.random.default_rng(number).bytes(number * 111) for number in range(9)]
    record = make({"video": frames, "label": [1234567890123], "x": [0.5, 1.5], "path": [b"a/b.avi"], "": [b"none"]})
    read = reader(record)
    assert [record[start:end] for start, end in find_bytes(read, find_feature(read, len(record), "video"))] == frames
    assert read_int(read, len(record), "label") == 1234567890123
    assert read_bytes(read, len(record), "path") == b"a/b.avi"


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            st.lists(st.binary(max_size=300), min_size=1, max_size=4),
            st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=1),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_example_is_read_as_protobuf_reads_it(features: dict) -> None:
    record = make(features)
    read = reader(record)
    for name, values in features.items():
        if isinstance(values[0], int):
            assert read_int(read, len(record), name) == values[0]
        else:
            spans = find_bytes(read, find_feature(read, len(record), name))
            assert [record[start:end] for start, end in spans] == values


def test_integers_that_are_not_packed_are_read() -> None:
    # Feature { int64_list { value: 300 } } with the value as a field of its own, as old writers have it.
    feature = bytes([0x1A, 3, 0x08, 0xAC, 0x02])
    entry = bytes([0x0A, 1]) + b"n" + bytes([0x12, len(feature)]) + feature
    features = bytes([0x0A, len(entry)]) + entry
    record = bytes([0x0A, len(features)]) + features
    assert tf.train.Example.FromString(record).features.feature["n"].int64_list.value == [300]
    assert read_int(reader(record), len(record), "n") == 300


def test_little_is_read_besides_what_is_asked_for() -> None:
    record = make({"label": [7], "video": [bytes(100_000) for _ in range(10)]})
    counts = []

    def read(start: int, count: int) -> bytes:
        counts.append(count)
        return record[start : start + count]

    assert read_int(read, len(record), "label") == 7
    assert sum(counts) < 400


def test_what_is_not_there_is_named() -> None:
    record = make({"label": [7], "path": [b"a", b"b"], "score": [0.5]})
    read = reader(record)
    with pytest.raises(ValueError, match="no feature 'video'"):
        find_feature(read, len(record), "video")
    with pytest.raises(ValueError, match="'path' has 2 values, not one"):
        read_bytes(read, len(record), "path")
    with pytest.raises(ValueError, match="'path' holds no integer"):
        read_int(read, len(record), "path")
    with pytest.raises(ValueError, match="'label' has 0 values"):
        read_bytes(read, len(record), "label")


def test_damaged_records_end_in_an_error() -> None:
    record = make({"label": [7], "video": [bytes(50)]})
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(record)
        damaged[rng.integers(len(record))] = rng.integers(256)
        read = reader(bytes(damaged[: rng.integers(1, len(record) + 1)]))
        for name in ("label", "video"):
            try:
                read_int(read, len(record), name)
            except ValueError:
                continue
