import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, official_shapes
from vswin.tools.export import Metadata, export_saved_model
from vswin.weights.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint, open_weights, read_metadata
from vswin.weights.dialects import IMAGE_2D, OFFICIAL
from vswin.weights.files import save_checkpoint, write_safetensors
from vswin.weights.names import official_tensors

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))
METADATA = {"size": {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": [2, 3, 3]}}


@pytest.fixture(scope="module")
def model():
    return vswin.build_model(SIZE, num_classes=2)


@pytest.fixture(scope="module")
def tensors(model):
    return official_tensors(model)


def assert_same(path: Path, tensors: dict[str, np.ndarray]) -> None:
    read = vswin.read_checkpoint(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)


def test_the_format_is_told_by_the_content_not_by_the_name(tmp_path, tensors):
    save_checkpoint(tmp_path / "a.pth", tensors, METADATA)
    write_safetensors(tmp_path / "b.h5", tensors, {})
    for name, dialect in (("a.pth", "vswin"), ("b.h5", "official")):
        assert_same(tmp_path / name, tensors)
        assert open_checkpoint(tmp_path / name).dialect == dialect


@pytest.mark.parametrize("ending", ["safetensors", "h5"])
def test_a_run_folder_of_any_version_stands_for_its_best_checkpoint(tmp_path, tensors, ending):
    folder = tmp_path / "run" / "checkpoints"
    save_checkpoint(folder / f"best.{ending}", tensors, METADATA | {"val_top1": 0.5})
    assert_same(tmp_path / "run", tensors)
    checkpoint = open_checkpoint(tmp_path / "run")
    assert (checkpoint.path, checkpoint.dialect) == (folder / f"best.{ending}", "vswin")
    assert checkpoint.network.num_classes == 2
    save_checkpoint(folder / f"best_ema.{ending}", tensors, METADATA | {"val_top1": 0.75})
    assert open_checkpoint(tmp_path / "run").path == folder / f"best_ema.{ending}"


def test_an_export_of_ours_and_an_archive_of_it_are_read_back(tmp_path, model, tensors):
    export_saved_model(model, tmp_path / "saved", Metadata(["jump", "run"], num_frames=4, crop=32))
    with tarfile.open(tmp_path / "saved.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "saved", ".")
    for path in (tmp_path / "saved", tmp_path / "saved.tar.gz"):
        assert_same(path, tensors)
        metadata = read_metadata(path)
        assert metadata["class_names"] == ["jump", "run"]
        assert ModelSize.from_fields(metadata["size"]) == SIZE


def test_metadata_survives_safetensors_and_that_of_others_is_left_alone(tmp_path, tensors):
    ours = {"class_names": json.dumps(["jump", "run"]), "vswin_version": json.dumps("1")}
    write_safetensors(tmp_path / "ours.safetensors", tensors, ours)
    assert read_metadata(tmp_path / "ours.safetensors")["class_names"] == ["jump", "run"]
    write_safetensors(tmp_path / "others.safetensors", tensors, {"format": "pt", "class_names": "jump, run"})
    assert read_metadata(tmp_path / "others.safetensors") == {}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"class_names": "jump"}, "class_names are not a list"),
        ({"class_names": [1, 2]}, "class_names are not a list"),
        ({"size": {"embed_dim": 8}}, "is damaged"),
        ({"size": [1, 2]}, "is damaged"),
        ({"size": METADATA["size"] | {"num_heads": [3, 5]}}, "is damaged"),
    ],
)
def test_damaged_metadata_is_an_error(tmp_path, tensors, metadata, words):
    save_checkpoint(tmp_path / "a.h5", tensors, metadata)
    with pytest.raises(InputError, match=words):
        open_checkpoint(tmp_path / "a.h5")
    described = {key: json.dumps(value) for key, value in metadata.items()} | {"vswin_version": "1"}
    write_safetensors(tmp_path / "a.safetensors", tensors, described)
    with pytest.raises(InputError, match=words):
        open_checkpoint(tmp_path / "a.safetensors")


def test_what_is_no_checkpoint_says_what_would_be(tmp_path):
    with pytest.raises(InputError, match=r"best\.safetensors does not exist; give a checkpoint file"):
        open_checkpoint(tmp_path)
    with pytest.raises(InputError, match=r"gone\.pth does not exist; .*\.safetensors.*SavedModel.*folder of a run"):
        open_checkpoint(tmp_path / "gone.pth")
    for content in (b"", b"x", b"not weights at all", b"PK\x03\x04 no archive", bytes(100), b"\x80\x02}."):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.pth"):
            open_checkpoint(tmp_path / "a.pth")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    with pytest.raises(InputError):
        open_checkpoint(tmp_path / "a.tar")
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["layer/kernel"] = np.zeros(2)
    with pytest.raises(InputError, match="named as in none of"):
        open_checkpoint(tmp_path / "keras.h5")


@pytest.mark.parametrize(
    ("name", "near"),
    [("nothere.pth", "`vswin models` lists them"), ("swin_tiny_k400", "did you mean 'swin_tiny_patch4_window7_224'?")],
)
def test_what_is_neither_a_file_nor_a_published_name_is_said_to_be_neither(name, near):
    with pytest.raises(InputError) as caught:
        open_weights(name)
    assert str(caught.value).startswith(f"{name}: there is no such file or folder, and no published model is called")
    assert near in str(caught.value)


def describe(size: ModelSize, num_classes: int | None, dialect: str = OFFICIAL, **metadata) -> dict[str, str]:
    shapes = official_shapes(size, num_classes)
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    if dialect == IMAGE_2D:
        patches = "backbone.patch_embed.proj.weight"
        tensors[patches] = tensors[patches][:, :, 0]
    text = describe_checkpoint(Checkpoint(Path("a.pth"), dialect, tensors, ("x", "y"), metadata))
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text}


def test_a_published_size_is_recognised():
    rows = describe(SIZES["swin_base_w16"], 174)
    assert rows["model"] == "swin_base_w16"
    assert rows["window"] == "[16, 7, 7]"
    assert rows["tensors"] == "329 (float32), 2 more are no weights"
    assert rows["parameters"] == "88,834,038"
    assert rows["classes"] == "174"
    assert "evaluation, on data of these 174 classes" in rows["use"]


def test_what_is_unusual_is_said():
    odd = ModelSize(24, (1, 2, 2, 1), (1, 2, 4, 8), window_size=(3, 2, 2))
    rows = describe(odd, None, class_names=[f"class {i}" for i in range(9)], val_top1=0.5)
    assert rows["model"] == "swin_micro but for the window"
    assert "[3, 2, 2]" in rows["window"]
    assert rows["classes"] == "none, there is no head"
    assert rows["val_top1"] == "0.5"
    assert describe(ModelSize(8, (1,), (1,)), 2)["model"] == "none of the known sizes"
    image = describe(ModelSize(96, (2, 2, 6, 2), (3, 6, 12, 24), (1, 7, 7), (1, 4, 4)), None, IMAGE_2D)
    assert image["model"] == "swin_tiny but for time, a 2D image network"
    assert "inflated in time" in image["use"]


def test_class_names_are_shown():
    names = list("abcdefghi")
    assert describe(SIZES["swin_micro"], 9, class_names=names)["classes"] == "9: a, b, c, d, e, f, g, h, ..."
