"""vswin: fine-tune and evaluate Video Swin Transformers for action recognition in TensorFlow.

Importing the package is cheap: the names below import what they need when they are first used, so that
`--help` never waits for TensorFlow.
"""

import os
from typing import TYPE_CHECKING

# Keras 2 for every library of the process: wandb and tensorflow-addons then see the Keras that we use.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
# TensorFlow enables oneDNN only on some CPUs, though it is faster on others, too. Read at its import.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow starts with a page about instruction sets and absent GPUs, which would hide its warnings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Public name -> the module that has it.
_MODULES = {
    "build_model": "vswin.weights.build",
    "grad_cam": "vswin.explain.grad_cam",
    "load_views": "vswin.data.views",
    "published_models": "vswin.weights.published",
    "read_checkpoint": "vswin.weights.checkpoint",
}
__all__ = ["build_model", "grad_cam", "load_views", "published_models", "read_checkpoint"]

if TYPE_CHECKING:
    __version__: str

    from vswin.data.views import load_views
    from vswin.explain.grad_cam import grad_cam
    from vswin.weights.build import build_model
    from vswin.weights.checkpoint import read_checkpoint
    from vswin.weights.published import published_models


def __getattr__(name: str) -> object:
    """Imports a public name on first use (PEP 562); the version is the one that git gave at the installation."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("vswin")
        except PackageNotFoundError:  # run from a folder, not installed
            return "0+unknown"
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'vswin' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names, even if they are not imported yet."""
    return [*__all__, "__version__"]
