"""Converts weights between formats: `vswin convert IN OUT`. Called by the command line."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from vswin import __version__
from vswin.errors import InputError
from vswin.export import run_export
from vswin.runtime import logger
from vswin.weights.checkpoint import Checkpoint, open_weights
from vswin.weights.dialects import IMAGE_2D
from vswin.weights.formats.hdf5_file import save_checkpoint
from vswin.weights.formats.safetensors_file import write_safetensors
from vswin.zoo import SIZES


def convert(weights: str, output: Path, source: str | None = None) -> None:
    """Writes weights in another format, told by the ending of the output.

    Args:
        weights: checkpoint file, SavedModel, run folder or published name.
        output: `.safetensors`, official names; `.h5`, a checkpoint of ours; without an ending, a SavedModel folder.
        source: which copy of a published name.

    Raises:
        InputError: if there are no such weights, they cannot be written that way, or the output exists.
    """
    if output.suffix not in (".safetensors", ".h5", ""):
        raise InputError(
            f"{output}: the ending says the format: .safetensors, .h5 (a vswin checkpoint), or none for a SavedModel "
            "folder"
        )
    if output.exists():
        raise InputError(f"{output} exists; name another file, or delete it first")
    checkpoint = open_weights(weights, source)
    if output.suffix == "":
        run_export(weights, output, source=source)
    elif output.suffix == ".h5":
        save_checkpoint(output, checkpoint.tensors, _describe(weights, checkpoint))
    else:
        described = _describe(weights, checkpoint) | {"vswin_version": __version__}
        metadata = {key: json.dumps(value) for key, value in described.items()}
        write_safetensors(output, checkpoint.tensors, metadata)
    logger.info(f"wrote {output}: {len(checkpoint.tensors)} weights of {checkpoint.path} ({checkpoint.dialect})")


def _describe(weights: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Collects what a checkpoint says beside its weights."""
    network = checkpoint.network
    described = {"init_from": os.fspath(weights), **checkpoint.metadata}
    if network.size_name is not None:
        described.setdefault("model", network.size_name)
        described.setdefault("size", dataclasses.asdict(SIZES[network.size_name]))
    if network.num_classes is not None:
        described["num_classes"] = network.num_classes
    if checkpoint.dialect == IMAGE_2D:
        described.pop("size", None)
    return described
