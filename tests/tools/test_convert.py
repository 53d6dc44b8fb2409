import numpy as np
import pytest

import vswin
from vswin.errors import InputError
from vswin.models.zoo import ModelSize
from vswin.tools.export import convert
from vswin.weights.build import build_from
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3))
CLASSES = ["jump", "run", "swim"]


@pytest.fixture
def model(tmp_path):
    model = vswin.build_model(SIZE, num_classes=3)
    size = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": [2, 3, 3]}
    save_checkpoint(tmp_path / "a.h5", official_tensors(model), {"size": size, "class_names": CLASSES, "val_top1": 0.5})
    return model


@pytest.mark.parametrize("outputs", [("b.safetensors", "c.h5"), ("b", "c.h5"), ("b.safetensors", "c"), ("b.h5", "c")])
def test_weights_classes_and_network_survive_two_conversions(tmp_path, model, outputs):
    first, second = (tmp_path / name for name in outputs)
    convert(str(tmp_path / "a.h5"), first)
    convert(str(first), second)
    twin, class_names = build_from(second)
    assert (twin.size, class_names) == (SIZE, CLASSES)
    for name, tensor in official_tensors(model).items():
        np.testing.assert_array_equal(official_tensors(twin)[name], tensor)


def test_what_a_checkpoint_says_of_its_training_is_kept(tmp_path, model):
    convert(str(tmp_path / "a.h5"), tmp_path / "b.safetensors")
    assert open_checkpoint(tmp_path / "b.safetensors").metadata["val_top1"] == 0.5


def test_outputs_that_cannot_be_are_refused_before_anything_is_written(tmp_path, model):
    with pytest.raises(InputError, match=r"b\.onnx: the ending says the format"):
        convert(str(tmp_path / "a.h5"), tmp_path / "b.onnx")
    (tmp_path / "b.h5").write_text("precious")
    with pytest.raises(InputError, match=r"b\.h5 exists"):
        convert(str(tmp_path / "a.h5"), tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]
