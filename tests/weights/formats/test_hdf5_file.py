import h5py
import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.weights.formats.hdf5_file import read_hdf5, save_checkpoint

TENSORS = {
    "backbone.norm.weight": np.arange(3, dtype=np.float32),
    "cls_head.fc_cls.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "a.h5"
    save_checkpoint(path, TENSORS, {"depths": (1, 2), "class_names": ("läuft", "jump"), "init_from": None})
    tensors, metadata = read_hdf5(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, TENSORS[name])
    assert metadata == {
        "depths": [1, 2],
        "class_names": ["läuft", "jump"],
        "init_from": None,
        "vswin_version": vswin.__version__,
    }


def test_many_class_names_fit(tmp_path):
    names = [f"a class with a long name, number {number}" for number in range(20_000)]
    save_checkpoint(tmp_path / "a.h5", TENSORS, {"class_names": names})
    assert read_hdf5(tmp_path / "a.h5")[1]["class_names"] == names


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.h5"
    save_checkpoint(path, TENSORS, {"num_classes": 2})
    with pytest.raises(TypeError):
        save_checkpoint(path, {"x": np.zeros(2, np.float32)}, {"size": object()})
    assert read_hdf5(path)[0].keys() == TENSORS.keys()
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_an_hdf5_file_of_others_has_no_metadata(tmp_path):
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["layer/vars/0"] = np.arange(2.0)
        file["layer/name"] = "text"
    tensors, metadata = read_hdf5(tmp_path / "keras.h5")
    assert metadata is None
    assert list(tensors) == ["layer/vars/0"]
    np.testing.assert_array_equal(tensors["layer/vars/0"], [0, 1])


def test_a_truncated_file_is_called_damaged(tmp_path):
    path = tmp_path / "a.h5"
    save_checkpoint(path, {"x": np.zeros(10_000, np.float32)}, {})
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(InputError, match="is damaged"):
        read_hdf5(path)


def test_values_are_mapped_and_compressed_ones_are_read(tmp_path):
    values = np.arange(10_000, dtype="f4").reshape(100, 100)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"] = values
        file.create_dataset("packed", data=values, compression="gzip", chunks=(10, 100))
        file["scalar"] = np.float32(3)
    tensors, _ = read_hdf5(tmp_path / "a.h5")
    assert isinstance(tensors["plain"], np.memmap)
    np.testing.assert_array_equal(tensors["plain"], values)
    np.testing.assert_array_equal(tensors["packed"], values)
    assert tensors["scalar"] == 3


def test_values_that_are_not_in_the_file_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(400))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("x", (100,), "f4", external=[(str(tmp_path / "secret"), 0, 400)])
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("x", (10**6, 10**6), "f4", chunks=(100, 100))
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "x")
    for name in ("outside", "huge"):
        with pytest.raises(InputError, match="are not in the file"):
            read_hdf5(tmp_path / f"{name}.h5")
    assert read_hdf5(tmp_path / "linked.h5") == ({}, None)
