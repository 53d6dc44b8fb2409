import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from vswin.weights.formats.raw_tensor import MalformedError, Storage
from vswin.weights.formats.torch_legacy import read_legacy

FILES = Path(__file__).parents[1] / "files"
MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True}


def stored(key: str, numel: int, kind: str = "FloatStorage") -> bytes:
    """Pickles a mention of a storage."""
    name = f"(X\x07\x00\x00\x00storagectorch\n{kind}\nX".encode() + struct.pack("<I", len(key)) + key.encode()
    return name + b"X\x03\x00\x00\x00cpu" + b"J" + struct.pack("<i", numel) + b"NtQ"


def legacy(mentions: bytes, keys: object, storages: bytes, system: object = SYSTEM, protocol: int = 1001) -> bytes:
    header = b"".join(pickle.dumps(part, 2) for part in (MAGIC, protocol, system))
    return header + b"\x80\x02(" + mentions + b"t." + pickle.dumps(keys, 2) + storages


def floats(*values: float) -> bytes:
    return struct.pack("<q", len(values)) + np.array(values, "<f4").tobytes()


def refuse(content: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        read_legacy(memoryview(content))


def test_storages_follow_in_the_order_of_their_list():
    content = legacy(stored("a", 2) + stored("b", 1) + stored("a", 2), ["b", "a"], floats(5) + floats(1, 2))
    payload, bytes_of = read_legacy(memoryview(content))
    a, b, again = payload
    assert a == again == Storage("a", "float32", 2)
    assert bytes_of(a).view("<f4").tolist() == [1, 2]
    assert bytes_of(b).view("<f4").tolist() == [5]
    assert np.shares_memory(bytes_of(a), np.frombuffer(content, np.uint8))


def test_storages_without_elements_are_no_trouble():
    content = legacy(stored("a", 0) + stored("b", 1), ["a", "b"], floats() + floats(7))
    (a, b), bytes_of = read_legacy(memoryview(content))
    assert len(bytes_of(a)) == 0
    assert bytes_of(b).view("<f4").tolist() == [7]


def test_headers_of_other_programs_are_refused():
    refuse(pickle.dumps({"a": 1}, 2), "not one of torch.save")
    refuse(pickle.dumps(MAGIC, 2) + pickle.dumps(1000, 2) + pickle.dumps(SYSTEM, 2), "header is damaged")
    refuse(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps([], 2), "header is damaged")
    refuse(legacy(b"", [], b"", {"little_endian": False}), "not little-endian")
    refuse(legacy(b"", [], b"", {}), "not little-endian")


def test_a_list_of_storages_must_fit_those_mentioned():
    refuse(legacy(stored("a", 1), "a", floats(1)), "list of storages is damaged")
    refuse(legacy(stored("a", 1), ["b"], floats(1)), "list of storages is damaged")
    refuse(legacy(stored("a", 1), [1], floats(1)), "list of storages is damaged")
    refuse(legacy(stored("a", 1), ["a", "a"], floats(1) + floats(1)), "list of storages is damaged")
    refuse(legacy(stored("a", 2) + stored("a", 1), ["a"], floats(1, 2)), "'a' in two ways")
    (a,), bytes_of = read_legacy(memoryview(legacy(stored("a", 1), [], b"")))
    with pytest.raises(MalformedError, match="no storage 'a'"):
        bytes_of(a)


def test_sizes_must_agree_and_lie_inside_the_file():
    refuse(legacy(stored("a", 2), ["a"], struct.pack("<q", 3) + bytes(12)), "3 elements instead of 2")
    refuse(legacy(stored("a", 1), ["a"], struct.pack("<q", -1) + bytes(12)), "-1 elements instead of 1")
    refuse(legacy(stored("a", 2), ["a"], struct.pack("<q", 2) + bytes(7)), "breaks off")
    refuse(legacy(stored("a", 2), ["a"], b"\x02"), "breaks off")
    refuse(legacy(stored("a", 2**31 - 1), ["a"], floats(1)), "breaks off")
