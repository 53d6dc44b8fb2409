from pathlib import Path

import numpy as np

from vswin.models.zoo import SIZES, ModelSize, official_shapes
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.description import describe_checkpoint
from vswin.weights.dialects import IMAGE_2D, OFFICIAL


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
    names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
    assert describe(SIZES["swin_micro"], 9, class_names=names)["classes"] == "9: a, b, c, d, e, f, g, h, ..."
