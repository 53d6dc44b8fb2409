"""Builds models: the one place where models meet weights."""

import os
from pathlib import Path

from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.weights.files import read_checkpoint
from vswin.weights.load import LoadReport, assign_weights
from vswin.zoo import ModelSize, find_published, find_size


def build_model(
    size: str | ModelSize,
    num_classes: int = 400,
    weights: str | os.PathLike[str] | None = None,
    dropout: float = 0.5,
    reset_head: bool = False,
) -> VideoSwin:
    """Builds a Video Swin Transformer with all its variables.

    Args:
        size: key of `vswin.zoo.SIZES`, or the fields of another network.
        num_classes: classes K of the head.
        weights: checkpoint file, run folder or published name; None leaves random initial weights.
        dropout: rate before the head, in [0, 1).
        reset_head: whether weights with a head of another size are accepted, without their head.

    Returns:
        The model: uint8 clips [B, T, H, W, 3] -> logits, float32 [B, num_classes].

    Raises:
        InputError: if there is no such size or weights, or the weights do not fit.
    """
    model_size = find_size(size) if isinstance(size, str) else size
    model = VideoSwin(model_size, num_classes, dropout)
    model.build()
    if weights is not None:
        load_weights(model, weights, reset_head)
    return model


def load_weights(model: VideoSwin, weights: str | os.PathLike[str], reset_head: bool) -> LoadReport:
    """Loads weights into a model.

    Args:
        model: a model whose variables exist.
        weights: checkpoint file, run folder or published name.
        reset_head: whether a head of another size keeps its initial values or is an error.

    Returns:
        What was loaded.

    Raises:
        InputError: if there are no such weights, or they do not fit.
    """
    check_weights(weights)
    try:
        return assign_weights(model, read_checkpoint(weights), reset_head)
    except InputError as error:
        raise InputError(f"weights={os.fspath(weights)}: {error}") from None


def check_weights(weights: str | os.PathLike[str]) -> None:
    """Checks that weights are there, before anything that takes long.

    Raises:
        InputError: if they are not; says where published weights are and what else would do.
    """
    if not Path(weights).exists():
        raise InputError(_explain_missing(os.fspath(weights)))


def _explain_missing(weights: str) -> str:
    """Says why weights that are no path cannot be loaded, and what can be done."""
    ways_out = (
        "Ways out: give the folder of a vswin run or a checkpoint (.h5) of one; training can also start from "
        "random weights (init_from=null; weights=None in Python)"
    )
    try:
        published = find_published(weights)
    except InputError as error:
        return f"weights={weights}: there is no such file or folder, and {error}. {ways_out}"
    addresses = "".join(f"\n  {source.name}: {source.address}" for source in published.sources)
    return (
        f"weights={weights}: this version cannot read the files of published models yet. {ways_out}. "
        f"The weights of {published.name} are at{addresses}"
    )
