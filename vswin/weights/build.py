"""Builds models: the one place where models meet weights."""

import os

from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize, find_size
from vswin.weights.checkpoint import open_weights
from vswin.weights.load import load_weights
from vswin.weights.published import find_weights

Weights = str | os.PathLike[str]


def build_model(
    size: str | ModelSize,
    num_classes: int | None = None,
    weights: Weights | None = None,
    dropout: float = 0.5,
    reset_head: bool = False,
    remat: bool = False,
    resize_bias: bool = False,
) -> VideoSwin:
    """Builds a Video Swin Transformer with all its variables.

    Args:
        size: key of `vswin.models.zoo.SIZES`, or the fields of another network.
        num_classes: classes K of the head; None: as many as the head of the weights has, else 400.
        weights: checkpoint file (.pth, .safetensors, .h5), SavedModel, run folder or published name; None leaves random
            initial weights.
        dropout: rate before the head, in [0, 1).
        reset_head: whether weights without a head, or with one of another size, are accepted; the head is then random.
        remat: whether training computes each block twice, to need less memory.
        resize_bias: whether weights of another attention window are accepted and their bias tables interpolated.

    Returns:
        The model: uint8 clips [B, T, H, W, 3] -> logits, float32 [B, num_classes]. If the weights state them, its
        `class_names` are a list, and its `clip` holds the fields of `ClipConfig` that it was trained on.

    Raises:
        InputError: if there is no such size or weights, or the weights do not fit.
    """
    model_size = find_size(size) if isinstance(size, str) else size
    checkpoint = None if weights is None else open_weights(weights)
    if num_classes is None:
        num_classes = (checkpoint.network.num_classes if checkpoint else None) or 400
    model = VideoSwin(model_size, num_classes, dropout, remat)
    model.build()
    if checkpoint is not None:
        report = load_weights(model, checkpoint, reset_head, resize_bias)
        # Set past Keras, which would track them as parts of its checkpoints.
        known = {"clip": checkpoint.metadata.get("clip")}
        if not report.reinitialised:
            known["class_names"] = checkpoint.metadata.get("class_names")
        model.__dict__.update(known)
    return model


def build_from(
    weights: Weights, size: str | ModelSize | None = None, source: str | None = None, needs_head: bool = True
) -> tuple[VideoSwin, list[str] | None]:
    """Builds the model that weights belong to, and gives the names of its classes if they are known.

    Args:
        weights: checkpoint file, SavedModel, run folder or published name.
        size: the network, if the weights do not say what it is.
        source: which copy of a published name; None: the official one.
        needs_head: whether weights without a head are an error; otherwise they get a random head, to compute features.

    Raises:
        InputError: if the weights do not exist, have no head, or do not say what network they belong to.
    """
    checkpoint = open_weights(weights, source)
    network, saved = checkpoint.network, checkpoint.metadata.get("size")
    if network.num_classes is None and needs_head:
        raise InputError(f"weights={os.fspath(weights)}: there is no head in them; give weights with a classifier")
    if size is None and saved is not None:
        size = ModelSize.from_fields(saved)
    if size is None and network.size_name is None:
        raise InputError(f"weights={os.fspath(weights)}: they fit no known size; name one of the same network")
    model = build_model(size or str(network.size_name), network.num_classes or 1)
    load_weights(model, checkpoint, reset_head=network.num_classes is None)
    return model, checkpoint.metadata.get("class_names")


def check_weights(weights: Weights) -> None:
    """Checks that a path or a published name exists, before any long work; downloads nothing.

    Raises:
        InputError: if it does not exist; the message names the nearest published models and the alternatives.
    """
    if os.path.lexists(weights):
        return
    try:
        find_weights(os.fspath(weights))
    except InputError as error:
        raise InputError(
            f"init_from={os.fspath(weights)}: there is no such file or folder, and {error}. Ways out: a checkpoint "
            "file (.pth, .safetensors, .h5), a SavedModel, the folder of a run, or a published name (`vswin models` "
            "lists them); training can also start from random weights (init_from=null; weights=None in Python)"
        ) from None
