"""torchvision's Swin3D-T, eager or compiled; see `protocol.py`.

The clips are normalised before the measurement. bfloat16 runs under autocast, as in training.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from protocol import Case, serve
from torchvision.models.video import swin3d_t

NUM_CLASSES = 400


def build(case: Case) -> Callable[[], object]:
    """Makes a forward pass or a training step."""
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    model = swin3d_t(weights=None, num_classes=NUM_CLASSES)
    clips = torch.randn(case.batch_size, 3, case.num_frames, case.size, case.size)
    labels = torch.zeros(case.batch_size, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train(case.task == "step")
    called = torch.compile(model) if case.variant == "compiled" else model

    def classify() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            return called(clips)

    def forward() -> None:
        with torch.inference_mode():
            classify()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(classify().float(), labels).backward()
        optimizer.step()

    return step if case.task == "step" else forward


if __name__ == "__main__":
    serve(build, ["torchvision", "torch"])
