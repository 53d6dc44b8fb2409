"""Makes the files beside it: `python make_files.py`, with PyTorch, safetensors, mmengine-lite and yacs installed.

The tests only read the files it wrote.
"""

import argparse
import collections
import pathlib

import numpy as np
import safetensors.torch
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from yacs.config import CfgNode

HERE = pathlib.Path(__file__).parent


def ramp(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(np.prod(shape))
    return torch.arange(count).reshape(shape).to(dtype)


def every_kind() -> dict[str, torch.Tensor]:
    """Makes tensors of every kind a state dict may have; test_torch_file.py knows the values."""
    shared = ramp(24)
    tied = ramp(2, 2)
    tensors = {
        "float16": ramp(3, dtype=torch.float16) / 2,
        "bfloat16": ramp(3, dtype=torch.bfloat16) / 2 - 1,
        "bfloat16.scalar": torch.tensor(-1.5, dtype=torch.bfloat16),
        "float32": ramp(2, 3) / 2,
        "float64": ramp(3, dtype=torch.float64) / 3,
        "int8": ramp(3, dtype=torch.int8) - 1,
        "int16": ramp(3, dtype=torch.int16) - 1,
        "int32": ramp(3, dtype=torch.int32) - 1,
        "int64": ramp(3, dtype=torch.int64) - 1,
        "uint8": ramp(3, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "bool.scalar": torch.tensor(True),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(2, 0, 3),
        "transposed": ramp(2, 3, 4).permute(2, 0, 1),
        "every.second": ramp(10)[1::2],
        "slice": shared[4:10].reshape(2, 3),
        "same.storage": shared[8:],
        "tied.a": tied,
        "tied.b": tied,
        "expanded": torch.tensor([[3.0]]).expand(2, 5),
        "parameter": torch.nn.Parameter(ramp(4)),
    }
    with_attribute = ramp(4)
    with_attribute.note = "kept by PyTorch"
    tensors["with.attribute"] = with_attribute
    parameter_with_attribute = torch.nn.Parameter(ramp(4))
    parameter_with_attribute.note = "kept by PyTorch"
    tensors["parameter.with.attribute"] = parameter_with_attribute
    return tensors


def as_mmcv() -> dict:
    """Makes what mmcv 1.x and the official repository write."""
    state_dict = collections.OrderedDict(every_kind())
    state_dict._metadata = collections.OrderedDict({"": {"version": 1}, "backbone": {"version": 2}})
    meta = {
        "mmcv_version": "1.3.3",
        "config": "model = dict(\n    type='Recognizer3D')\n" * 20,
        "CLASSES": ("läuft", "jump"),
        "epoch": 30,
        "big": 2**70,
        "hook_msgs": {"best_score": np.float64(0.788), "rate": np.float32(2.5), "random_state": np.arange(5)},
    }
    amp = {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 12}}
    return {"meta": meta, "state_dict": state_dict, "amp": amp}


def as_mmengine() -> dict:
    """Makes what MMEngine writes while training: histories, schedules and the state of AdamW beside the weights."""
    model = torch.nn.Sequential(collections.OrderedDict(backbone=torch.nn.Linear(3, 2), head=torch.nn.Linear(2, 2)))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(ramp(*parameter.shape) + number)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    model(ramp(2, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    runtime = collections.OrderedDict(epoch=1, iter=np.int64(5), max_epochs=30, config=ConfigDict(a={"b": (1, 2)}))
    history = collections.OrderedDict({"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])})
    hub = {"log_scalars": history, "runtime_info": runtime, "resumed_keys": collections.OrderedDict(loss=True)}
    return {
        "meta": {"dataset_meta": {"classes": ["a", "b"]}, "seed": 3, "cfg": "model = dict()"},
        "state_dict": collections.OrderedDict(weights),
        "message_hub": hub,
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [scheduler.state_dict()],
    }


def as_microsoft() -> dict:
    """Makes what Microsoft's and torchvision's training scripts write: settings as objects of several kinds."""
    return {
        "model": {"patch_embed.proj.weight": ramp(2, 2), "head.bias": ramp(2)},
        "config": CfgNode({"MODEL": {"NAME": "swin", "DEPTHS": [2, 2]}}),
        "args": argparse.Namespace(lr=0.1, output_dir=pathlib.PurePosixPath("out"), device=torch.device("cuda:0")),
        "lr_scheduler": {"milestones": collections.Counter([3, 3, 5]), "state": collections.defaultdict(dict)},
        "max_accuracy": np.float64(81.2),
        "others": [{1, 2}, frozenset({3}), collections.deque([1]), slice(1, 2), 1j, bytearray(b"a"), b"b"],
        "shapes": [torch.Size([1, 2]), torch.float32, torch.strided],
    }


def main() -> None:
    torch.save(as_mmcv(), HERE / "mmcv.pth")
    torch.save(as_mmcv(), HERE / "mmcv_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(as_mmengine(), HERE / "mmengine.pth")
    torch.save(as_microsoft(), HERE / "microsoft.pth")
    torch.save({f"module.{name}": tensor for name, tensor in {"a": ramp(3), "b": ramp(2)}.items()}, HERE / "bare.pth")
    unsigned = {"model_state": {f"uint{bits}": ramp(3, dtype=getattr(torch, f"uint{bits}")) for bits in (16, 32, 64)}}
    torch.save(unsigned, HERE / "unsigned.pyth")
    solid = {name: tensor.contiguous().clone() for name, tensor in every_kind().items()}
    safetensors.torch.save_file(solid, HERE / "library.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
