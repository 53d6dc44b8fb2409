import dataclasses

import h5py
import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.weights.files import read_metadata, save_checkpoint
from vswin.zoo import SIZES, ModelSize

TENSORS = {
    "backbone.norm.weight": np.arange(3, dtype=np.float32),
    "cls_head.fc_cls.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "a.h5"
    metadata = {
        "size": dataclasses.asdict(SIZES["swin_micro"]),
        "num_classes": 2,
        "class_names": ("läuft", "jump"),
        "init_from": None,
    }
    save_checkpoint(path, TENSORS, metadata)
    tensors = vswin.read_checkpoint(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, TENSORS[name])
    read = read_metadata(str(path))
    assert ModelSize.from_fields(read["size"]) == SIZES["swin_micro"]
    assert read["class_names"] == ["läuft", "jump"]
    assert read["init_from"] is None
    assert read["vswin_version"] == vswin.__version__


def test_many_class_names_fit(tmp_path):
    names = [f"a class with a long name, number {number}" for number in range(20_000)]
    save_checkpoint(tmp_path / "a.h5", TENSORS, {"class_names": names})
    assert read_metadata(tmp_path / "a.h5")["class_names"] == names


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "checkpoints" / "best.h5", TENSORS, {"num_classes": 2})
    assert vswin.read_checkpoint(tmp_path).keys() == TENSORS.keys()
    assert read_metadata(tmp_path)["num_classes"] == 2


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.h5"
    save_checkpoint(path, TENSORS, {"num_classes": 2})
    with pytest.raises(TypeError):
        save_checkpoint(path, {"x": np.zeros(2, np.float32)}, {"size": object()})
    assert vswin.read_checkpoint(path).keys() == TENSORS.keys()
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_other_files_are_refused_with_what_can_be_read(tmp_path):
    readable = r"reads vswin checkpoints \(\.h5\) and run folders"
    with pytest.raises(InputError, match=rf"best\.h5 does not exist; .*{readable}"):
        vswin.read_checkpoint(tmp_path)
    with pytest.raises(InputError, match=rf"gone\.h5 does not exist; .*{readable}"):
        vswin.read_checkpoint(tmp_path / "gone.h5")
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 not HDF5")
    with pytest.raises(InputError, match=rf"weights\.pth is not an HDF5 file; .*{readable}"):
        vswin.read_checkpoint(tmp_path / "weights.pth")
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["layer/kernel"] = np.zeros(2)
    with pytest.raises(InputError, match=rf"keras\.h5 .*not written by vswin; .*{readable}"):
        read_metadata(tmp_path / "keras.h5")


def test_a_truncated_file_is_called_damaged(tmp_path):
    path = tmp_path / "a.h5"
    save_checkpoint(path, {"x": np.zeros(10_000, np.float32)}, {})
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(InputError, match="is damaged"):
        vswin.read_checkpoint(path)
