import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.formats.torch_file import read_torch_file

FILES = Path(__file__).parents[1] / "files"

EVERY_KIND = {
    "float16": np.array([0, 0.5, 1], np.float16),
    "bfloat16": np.array([-1, -0.5, 0], np.float32),
    "bfloat16.scalar": np.array(-1.5, np.float32),
    "float32": np.array([[0, 0.5, 1], [1.5, 2, 2.5]], np.float32),
    "float64": np.arange(3) / 3,
    "int8": np.array([-1, 0, 1], np.int8),
    "int16": np.array([-1, 0, 1], np.int16),
    "int32": np.array([-1, 0, 1], np.int32),
    "int64": np.array([-1, 0, 1], np.int64),
    "uint8": np.array([0, 1, 2], np.uint8),
    "bool": np.array([True, False, True]),
    "bool.scalar": np.array(True),
    "scalar": np.array(7, np.float32),
    "empty": np.zeros((2, 0, 3), np.float32),
    "transposed": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "every.second": np.array([1, 3, 5, 7, 9], np.float32),
    "slice": np.array([[4, 5, 6], [7, 8, 9]], np.float32),
    "same.storage": np.arange(8, 24, dtype=np.float32),
    "tied.a": np.array([[0, 1], [2, 3]], np.float32),
    "tied.b": np.array([[0, 1], [2, 3]], np.float32),
    "expanded": np.full((2, 5), 3, np.float32),
    "parameter": np.arange(4, dtype=np.float32),
    "with.attribute": np.arange(4, dtype=np.float32),
    "parameter.with.attribute": np.arange(4, dtype=np.float32),
}


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, tensor in tensors.items():
        assert type(tensor) is np.ndarray, name
        assert tensor.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(tensor, expected[name], strict=True, err_msg=name)


def zip_of(content: bytes, **members: bytes) -> bytes:
    """Wraps a pickle as PyTorch does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, member in members.items():
            archive.writestr(f"archive/{name}", member)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["mmcv.pth", "mmcv_legacy.pth"])
def test_tensors_of_every_kind_are_read_in_both_formats(name):
    assert_same(read_torch_file(FILES / name), EVERY_KIND)


def test_arrays_are_read_only_views_of_the_file_and_share_what_tensors_shared():
    for name in ("mmcv.pth", "mmcv_legacy.pth"):
        tensors = read_torch_file(str(FILES / name))
        assert np.shares_memory(tensors["tied.a"], tensors["tied.b"])
        assert np.shares_memory(tensors["slice"], tensors["same.storage"])
        assert not np.shares_memory(tensors["float32"], tensors["tied.a"])
        assert not tensors["float32"].flags.writeable


def test_files_of_training_programs_give_their_weights_alone():
    assert_same(
        read_torch_file(FILES / "mmengine.pth"),
        {
            "backbone.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            "backbone.bias": np.array([1, 2], np.float32),
            "head.weight": np.array([[2, 3], [4, 5]], np.float32),
            "head.bias": np.array([3, 4], np.float32),
        },
    )
    assert_same(
        read_torch_file(FILES / "microsoft.pth"),
        {
            "patch_embed.proj.weight": np.array([[0, 1], [2, 3]], np.float32),
            "head.bias": np.array([0, 1], np.float32),
        },
    )


def test_dtypes_without_a_storage_type_are_read():
    expected = {f"uint{bits}": np.arange(3, dtype=f"u{bits // 8}") for bits in (16, 32, 64)}
    assert_same(read_torch_file(FILES / "unsigned.pyth"), expected)


def test_names_come_as_they_are_in_the_file():
    assert list(read_torch_file(FILES / "bare.pth")) == ["module.a", "module.b"]


def test_values_live_on_when_the_file_is_replaced(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes((FILES / "mmcv.pth").read_bytes())
    tensors = read_torch_file(path)
    (tmp_path / "b.pth").write_bytes(b"other")
    os.replace(tmp_path / "b.pth", path)
    assert_same(tensors, EVERY_KIND)


@pytest.mark.parametrize("wrap", [zip_of, bytes], ids=["zip", "bare"])
def test_a_hostile_pickle_is_an_error_that_names_the_global(tmp_path, wrap):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    path = tmp_path / "evil.pth"
    path.write_bytes(wrap(pickle.dumps({"state_dict": {}, "meta": Evil()}, 2)))
    with pytest.raises(InputError, match=r"evil\.pth wants the global '\w+\.system', .* nothing was run\. Take"):
        read_torch_file(path)
    assert [file.name for file in tmp_path.iterdir()] == ["evil.pth"]


def test_hostile_globals_in_every_pickle_of_the_legacy_format_are_named(tmp_path):
    evil = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."
    pickles = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)]
    pickles += [pickle.dumps({"little_endian": True}, 2), pickle.dumps({}, 2)]
    for number in range(5):
        (tmp_path / "evil.pth").write_bytes(b"".join(pickles[:number]) + evil)
        with pytest.raises(InputError, match=r"posix\.system"):
            read_torch_file(tmp_path / "evil.pth")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n", r"is an HDF5 file: give it the ending \.h5"),
        (b"PK\x03\x04 and no more", "zip archive is damaged"),
        (b"no pickle", "opcode"),
        (bytes(257) + b"ustar" + bytes(250), "is a tar file"),
        (pickle.dumps(3, 2), "not one of torch.save"),
        (zip_of(pickle.dumps([1, 2], 2)), "no dict of tensors"),
        (
            zip_of(pickle.dumps({"epoch": 3, "net": {"a": 1}}, 2)),
            "no tensors under state_dict.*keys are 'epoch', 'net'",
        ),
        (zip_of(pickle.dumps({}, 2)), "whose keys are none"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:20],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, problem):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.pth .*{problem}"):
        read_torch_file(path)


def test_a_path_without_a_file_is_an_error(tmp_path):
    for path in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(InputError, match="does not exist or is no file"):
            read_torch_file(path)


@pytest.mark.parametrize("name", ["mmcv.pth", "mmcv_legacy.pth"])
def test_a_file_cut_anywhere_is_an_error(tmp_path, name):
    content = (FILES / name).read_bytes()
    path = tmp_path / name
    for length in range(0, len(content) - 1, 41):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"{name} "):
            read_torch_file(path)


@pytest.mark.parametrize("name", ["mmcv.pth", "mmcv_legacy.pth", "mmengine.pth"])
def test_damaged_files_give_tensors_or_an_input_error(tmp_path, name):
    content = (FILES / name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / name
    messages, num_read = [], 0
    for _ in range(400):
        path.write_bytes(damaged(content, rng))
        try:
            tensors = read_torch_file(path)
        except InputError as error:
            messages.append(str(error))
        else:
            assert sum(len(tensor.tobytes()) for tensor in tensors.values()) < 2 * 2**20
            num_read += 1
    assert num_read > 10
    assert len(messages) > 10
    assert all(message.startswith(str(path)) for message in messages)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Flips, replaces, removes, inserts or repeats a few bytes."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(changed))), int(rng.integers(6))
        length = int(rng.integers(1, 9))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.integers(256))
        elif kind == 2:
            changed[at : at + length] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * length
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = rng.bytes(length)
        else:
            source = int(rng.integers(len(changed)))
            changed[at : at + length] = changed[source : source + length]
    return bytes(changed)
