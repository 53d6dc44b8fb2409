import json
import struct
from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.formats.safetensors_file import read_safetensors, write_safetensors

FILES = Path(__file__).parents[1] / "files"

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "a": np.array([1, -2], np.int8),
    "läuft": np.array(2.5, np.float64),
    "big": np.arange(3, dtype=">f4"),
    "none": np.zeros((0, 4), np.float16),
    "flags": np.array([[True], [False]]),
    "unsigned": np.array([2**64 - 1], np.uint64),
}


def file_of(header: object, values: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + values


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def refuse(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.safetensors is no sound safetensors file: .*{problem}.*; copy or"):
        read_safetensors(path)


def test_what_was_written_is_read_in_the_same_order(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    write_safetensors(path, TENSORS, {"format": "pt", "note": "läuft"})
    tensors = read_safetensors(str(path))
    assert list(tensors) == list(TENSORS)
    for name, tensor in tensors.items():
        assert type(tensor) is np.ndarray
        assert tensor.dtype == TENSORS[name].dtype.newbyteorder("=")
        np.testing.assert_array_equal(tensor, TENSORS[name])
        assert tensor.shape == TENSORS[name].shape
        assert tensor.flags.aligned
    assert not tensors["b"].flags.writeable
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length % 8 == 0
    assert json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"] == {"format": "pt", "note": "läuft"}


def test_files_of_the_library_are_read_and_written_byte_for_byte(tmp_path):
    library = FILES / "library.safetensors"
    tensors = read_safetensors(library)
    assert tensors["bfloat16"].dtype == np.float32
    assert tensors["bfloat16"].tolist() == [-1, -0.5, 0]
    assert tensors["bfloat16.scalar"].shape == ()
    assert tensors["bfloat16.scalar"] == -1.5
    assert tensors["bool"].tolist() == [True, False, True]
    assert tensors["empty"].shape == (2, 0, 3)
    assert tensors["float64"].tolist() == [0, 1 / 3, 2 / 3]
    assert tensors["transposed"].tolist() == np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1).tolist()
    assert len(tensors) == 24
    written = FILES / "library_numpy.safetensors"
    same = read_safetensors(written)
    write_safetensors(tmp_path / "a.safetensors", same, {"format": "np"})
    assert (tmp_path / "a.safetensors").read_bytes() == written.read_bytes()


def test_an_empty_file_of_tensors_is_empty(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {}, {})
    assert read_safetensors(tmp_path / "a.safetensors") == {}


def test_what_the_format_lacks_is_not_written_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": np.zeros(2, np.float32)}, {})
    before = path.read_bytes()
    for name, tensor in {"c": np.zeros(2, complex), "s": np.array(["text"]), "__metadata__": np.zeros(2)}.items():
        with pytest.raises(InputError, match=f"the tensor '{name}' of dtype .* cannot be written"):
            write_safetensors(path, {"x": np.ones(2, np.float32), name: tensor}, {})
    with pytest.raises(UnicodeEncodeError):
        write_safetensors(path, {"\ud800": np.zeros(2)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_headers_that_are_too_long_or_no_json_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    refuse(path, b"", "0 bytes")
    refuse(path, bytes(7), "7 bytes")
    refuse(path, bytes(8), "not JSON")
    refuse(path, file_of({}, length=3), "header alone would end at 11")
    refuse(path, file_of({}, length=2**63), "header alone would end")
    refuse(path, file_of(b"{}" + b" " * 5 * 2**20), "more than the 4194304 that are read")
    for header in (b"[]", b"3", b' {"a": 1}', b"nonsense", b'{"a": ', b"\xff\xfe", b'{"a": "\xff"}'):
        refuse(path, file_of(header), "not (JSON|a JSON object)")
    refuse(path, file_of(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not JSON")
    refuse(path, file_of(b'{"\\ud800": 1}'), "not JSON")
    refuse(path, file_of(b'{"a": ' + b"9" * 100_000 + b"}"), "beyond all sizes")
    refuse(path, file_of({"__metadata__": {"a": 1}}), "map of texts")
    refuse(path, file_of({"__metadata__": []}), "map of texts")


def test_spaces_behind_the_header_are_allowed(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(file_of(json.dumps({"x": entry()}).encode() + b"   ", bytes(8)))
    assert read_safetensors(tmp_path / "a.safetensors")["x"].tolist() == [0, 0]


def test_names_must_differ(tmp_path):
    one = json.dumps(entry())[1:-1]
    twice = f'{{"x": {{{one}}}, "x": {{{one}}}}}'.encode()
    refuse(tmp_path / "a.safetensors", file_of(twice, bytes(8)), "twice")
    field_twice = f'{{"x": {{{one}, "dtype": "I32"}}}}'.encode()
    refuse(tmp_path / "a.safetensors", file_of(field_twice, bytes(8)), "twice")


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        (3, "other fields"),
        ({}, "other fields"),
        (entry(more=1), "other fields"),
        (entry(dtype="F8_E4M3"), "unknown dtype"),
        (entry(dtype=[]), "unknown dtype"),
        (entry(shape=3), "impossible shape"),
        (entry(shape=[-2]), "impossible shape"),
        (entry(shape=[2.0]), "impossible shape"),
        (entry(shape=[True]), "impossible shape"),
        (entry(shape=[1] * 33), "impossible shape"),
        (entry(shape=[0, 2**61], offsets=[0, 0]), "impossible shape"),
        (entry(shape=[0, 2**60, 2**60], offsets=[8, 8]), "impossible shape|hole"),
        (entry(offsets=[0]), "impossible shape or position"),
        (entry(offsets=[0, 8, 8]), "impossible shape or position"),
        (entry(offsets=[-8, 0]), "impossible shape or position"),
        (entry(offsets=[8, 0]), "-8 bytes instead of 8"),
        (entry(offsets=[0, 4]), "4 bytes instead of 8"),
        (entry(shape=[2**20, 2**20]), "8 bytes instead of"),
        (entry(offsets=[8, 16]), "overlap or leave a hole at byte 0"),
        (entry(shape=[1], offsets=[0, 4]), "8 bytes, and its tensors take 4"),
        (entry(shape=[3], offsets=[0, 12]), "8 bytes, and its tensors take 12"),
    ],
)
def test_entries_must_be_sound(tmp_path, described, problem):
    refuse(tmp_path / "a.safetensors", file_of({"x": described}, bytes(8)), problem)


def test_tensors_fill_the_file_without_holes_and_overlaps(tmp_path):
    path = tmp_path / "a.safetensors"
    for second in ([4, 12], [12, 20], [0, 8]):
        refuse(path, file_of({"x": entry(), "y": entry(offsets=second)}, bytes(20)), "overlap or leave a hole")


def test_a_path_without_a_file_is_an_error(tmp_path):
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(InputError, match="does not exist or is no file"):
            read_safetensors(path)


def test_damaged_files_give_tensors_or_an_input_error(tmp_path):
    content = (FILES / "library.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "a.safetensors"
    num_read, num_refused = 0, 0
    for _ in range(1000):
        changed = bytearray(content)
        at, length = int(rng.integers(len(changed))), int(rng.integers(4))
        changed[at : at + length] = rng.bytes(int(rng.integers(4)))
        path.write_bytes(changed)
        try:
            tensors = read_safetensors(path)
        except InputError:
            num_refused += 1
        else:
            assert sum(len(tensor.tobytes()) for tensor in tensors.values()) < 2 * len(content)
            num_read += 1
    assert min(num_read, num_refused) > 50
