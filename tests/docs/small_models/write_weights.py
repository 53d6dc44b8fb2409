"""Writes small random weights for every published name, as PyTorch would: `python write_weights.py FOLDER`."""

import pickle
import re
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from vswin.models.zoo import SIZES, official_shapes
from vswin.weights.published import PublishedWeights, all_published


# Names that PyTorch's files contain. Pickle looks them up in the module they claim.
class FloatStorage:
    __module__ = "torch"


def _rebuild_tensor_v2() -> None: ...


_rebuild_tensor_v2.__module__ = "torch._utils"
sys.modules["torch"] = types.SimpleNamespace(FloatStorage=FloatStorage)
sys.modules["torch._utils"] = types.SimpleNamespace(_rebuild_tensor_v2=_rebuild_tensor_v2)


class _Tensor:
    """Pickles like a tensor: its own storage, and the view of it."""

    def __init__(self, key: int, values: np.ndarray) -> None:
        self.key, self.values = str(key), values

    def __reduce__(self) -> tuple:
        strides = tuple(stride // self.values.itemsize for stride in self.values.strides)
        return _rebuild_tensor_v2, (_Storage(self), 0, self.values.shape, strides, False, OrderedDict())


class _Storage:
    def __init__(self, tensor: _Tensor) -> None:
        self.tensor = tensor


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple | None:
        """Names a storage, whose values are in a file beside the pickle."""
        if not isinstance(value, _Storage):
            return None
        return ("storage", FloatStorage, value.tensor.key, "cpu", value.tensor.values.size)


def write_torch_file(path: Path, key: str, tensors: dict[str, np.ndarray]) -> None:
    """Writes float32 tensors below a key, in the format of `torch.save`."""
    made = {name: _Tensor(number, values) for number, (name, values) in enumerate(tensors.items())}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w") as file:
            _Pickler(file, protocol=2).dump({key: OrderedDict(made)})
        archive.writestr("archive/byteorder", "little")
        for tensor in made.values():
            archive.writestr(f"archive/data/{tensor.key}", tensor.values.astype("<f4").tobytes())
        archive.writestr("archive/version", "3\n")


def draw(weights: PublishedWeights, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws weights under official names, or under Microsoft's names for an image network."""
    tensors = {}
    side = 2 * int(re.findall(r"window(\d+)", weights.name)[0]) - 1
    for name, shape in official_shapes(SIZES[weights.size], weights.num_classes).items():
        if weights.is_image_model:
            name = name.removeprefix("backbone.").replace("cls_head.fc_cls", "head")
            if name == "patch_embed.proj.weight":
                shape = (*shape[:2], *shape[3:])
            elif name.endswith("relative_position_bias_table"):
                shape = (side**2, shape[1])
        tensors[name] = rng.normal(0, 0.05, shape).astype(np.float32)
    return tensors


if __name__ == "__main__":
    for row in all_published():
        path = Path(sys.argv[1]) / f"{row.name}.pth"
        write_torch_file(path, "model" if row.is_image_model else "state_dict", draw(row, np.random.default_rng(0)))
