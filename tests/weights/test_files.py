import json
import resource
import signal
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

import vswin
from vswin.errors import InputError, disk_fault
from vswin.weights.files import best_weights, read_hdf5, read_safetensors, save_checkpoint, write_safetensors

FILES = Path(__file__).parent / "files"
TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "a": np.array([1, -2], np.int8),
    "läuft": np.array(2.5, np.float64),
    "big": np.arange(3, dtype=">f4"),
    "none": np.zeros((0, 4), np.float16),
}
ABOUT = {"depths": (1, 2), "class_names": [f"läuft {number}" for number in range(9_000)], "init_from": None}
READERS = {"a.safetensors": read_safetensors, "a.h5": read_hdf5}


@pytest.mark.parametrize("name", READERS)
def test_what_was_written_is_read(tmp_path, name):
    path = tmp_path / "new" / "folder" / name
    save_checkpoint(path, TENSORS, ABOUT)
    tensors, metadata = READERS[name](path)
    assert tensors.keys() == TENSORS.keys()
    for key, tensor in tensors.items():
        assert type(tensor) is np.ndarray
        assert (tensor.shape, tensor.dtype.name) == (TENSORS[key].shape, TENSORS[key].dtype.name)
        np.testing.assert_array_equal(tensor, TENSORS[key])
    assert metadata == ABOUT | {"depths": [1, 2], "vswin_version": vswin.__version__}


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_checkpoint(tmp_path / name, TENSORS, ABOUT)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("name", READERS)
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, name):
    """The system's limit on the file size fails in the middle of a write, as a full disk does."""
    path = tmp_path / name
    save_checkpoint(path, TENSORS, {"num_classes": 2})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(path, {"x": np.zeros(2, np.float32)}, {"size": object()})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_checkpoint(path, {"x": np.zeros(20_000, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert disk_fault(caught.value) is not None
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_run_of_an_earlier_version_keeps_the_name_of_its_weights(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert best_weights(tmp_path) == tmp_path / "checkpoints" / "best.safetensors"
    (tmp_path / "checkpoints" / "best.h5").touch()
    assert best_weights(tmp_path) == tmp_path / "checkpoints" / "best.h5"
    (tmp_path / "checkpoints" / "best.safetensors").touch()
    assert best_weights(tmp_path) == tmp_path / "checkpoints" / "best.safetensors"


def test_files_of_others_are_read_and_have_no_metadata_of_ours(tmp_path):
    tensors, metadata = read_safetensors(FILES / "library.safetensors")
    assert metadata is None
    assert tensors["bfloat16"].dtype == np.float32
    assert tensors["bfloat16"].tolist() == [-1, -0.5, 0]
    assert tensors["bfloat16.scalar"].shape == ()
    assert tensors["bfloat16.scalar"] == -1.5
    assert tensors["bool"].tolist() == [True, False, True]
    assert tensors["empty"].shape == (2, 0, 3)
    assert tensors["transposed"].tolist() == np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1).tolist()
    assert len(tensors) == 24
    values = np.arange(10_000, dtype="f4").reshape(100, 100)
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["layer/vars/0"] = values
        file.create_dataset("packed", data=values, compression="gzip", chunks=(10, 100))
        file["scalar"] = np.float32(3)
        file["layer/name"] = "text"
        file["soft"], file["outside"] = h5py.SoftLink("/packed"), h5py.ExternalLink("keras.h5", "packed")
    tensors, metadata = read_hdf5(tmp_path / "keras.h5")
    assert metadata is None
    assert tensors.keys() == {"layer/vars/0", "packed", "scalar"}
    for name in ("layer/vars/0", "packed"):
        np.testing.assert_array_equal(tensors[name], values)
    assert tensors["scalar"] == 3


def test_converted_files_of_earlier_versions_have_an_entry_for_each_fact(tmp_path):
    texts = {"class_names": json.dumps(["jump"]), "vswin_version": '"0.9"'}
    write_safetensors(tmp_path / "a.safetensors", TENSORS, texts)
    assert read_safetensors(tmp_path / "a.safetensors")[1] == {"class_names": ["jump"], "vswin_version": "0.9"}


def file_of(header: object, values: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + values


def entry(**changes: object) -> dict:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        file_of({}, length=3),
        file_of({}, length=2**63),
        file_of(b"[]"),
        file_of(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        file_of(b'{"\\ud800": 1}'),
        file_of({"__metadata__": {"a": 1}}),
        file_of({"__metadata__": {"vswin": "[" * 100_000}}),
        file_of({"x": {}}),
        file_of(entry(dtype="F8_E4M3", shape=[8]), bytes(8)),
        file_of(entry(shape=[-2]), bytes(8)),
        file_of(entry(shape=[2] + [1] * 65), bytes(8)),
        file_of(entry(shape=[0, 2**60, 2**60], data_offsets=[0, 0])),
        file_of(entry(shape=[2**20, 2**20]), bytes(8)),
        file_of(entry(data_offsets=[8, 16]), bytes(16)),
        file_of(entry(shape=[3], data_offsets=[0, 12]), bytes(8)),
        file_of(entry() | {"y": entry()["x"]}, bytes(8)),
    ],
)
def test_damaged_and_hostile_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"a\.safetensors is no sound safetensors file: .*; copy or download it"
    ) as caught:
        read_safetensors(path)
    assert len(str(caught.value)) < 500


def test_hdf5_files_that_are_cut_off_or_whose_values_lie_elsewhere_are_refused(tmp_path):
    save_checkpoint(tmp_path / "cut.h5", {"x": np.zeros(10_000, np.float32)}, {})
    (tmp_path / "cut.h5").write_bytes((tmp_path / "cut.h5").read_bytes()[:5_000])
    (tmp_path / "secret").write_bytes(bytes(400))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("x", (100,), "f4", external=[(str(tmp_path / "secret"), 0, 400)])
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("x", (10**6, 10**6), "f4", chunks=(100, 100))
    for name, words in {"cut": "truncated", "outside": "are not in the file", "huge": "are not in the file"}.items():
        with pytest.raises(InputError, match=f"{name}.h5 is damaged .*{words}"):
            read_hdf5(tmp_path / f"{name}.h5")
