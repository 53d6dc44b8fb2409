"""Builds models and loads weights into them: every tensor is used and every variable filled, or nothing changes.

Image networks are inflated, bias tables of another window are resized, and the head is sorted to the order of the
model's classes. A report says what happened to each weight.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vswin.console import printable
from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize, find_size, official_shapes
from vswin.weights.adapt import adapt
from vswin.weights.checkpoint import Checkpoint, open_weights
from vswin.weights.names import HEAD_PREFIX, compare, first_five, from_official, named_weights
from vswin.weights.published import find_weights

Weights = str | os.PathLike[str]
_NUM_SHOWN = 2


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


@dataclass(frozen=True)
class LoadReport:
    """Says what happened to each weight, by official name, and why.

    `loaded` includes the inflated, resized and permuted ones; `reinitialised` are weights of the head that keep their
    initial values; `ignored` are tensors of the file that are not used. `adapted` and `head` are reasons.
    """

    source: str
    loaded: tuple[str, ...]
    inflated: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    adapted: str = ""
    reinitialised: tuple[str, ...] = ()
    head: str = ""
    permuted: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Writes one line per outcome, with the number of weights, the reason and the first names."""
        rows = (
            ("loaded", self.loaded, ""),
            ("inflated", self.inflated, self.adapted),
            ("resized", self.resized, self.adapted),
            ("permuted", self.permuted, "the same classes in another order"),
            ("re-initialised", self.reinitialised, self.head),
            ("ignored", self.ignored, "no weights of the model"),
        )
        lines = [self.source]
        for outcome, names, reason in rows:
            if names:
                shown = ", ".join(map(printable, names[:_NUM_SHOWN])) + (", ..." if len(names) > _NUM_SHOWN else "")
                lines.append(f"  {outcome:<15}{len(names):>4}" + (f"  {reason}: {shown}" if reason else ""))
        return "\n".join(lines)


def load_weights(
    model: VideoSwin,
    checkpoint: Checkpoint,
    reset_head: bool,
    resize_bias: bool = False,
    class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Loads weights into a model, and reports what was loaded.

    Args:
        model: a model whose variables exist.
        checkpoint: the weights.
        reset_head: whether a head that is missing or has another size keeps its initial values, as in fine-tuning, or
            is an error.
        resize_bias: whether bias tables of another window are interpolated or an error.
        class_names: the classes of the model. If the weights name theirs, a head with the same classes in another order
            is sorted to this order, and a head with other classes is not loaded.

    Raises:
        InputError: if the weights do not fit; then nothing is assigned.
    """
    try:
        adapted = adapt(checkpoint, model.size, resize_bias)
        tensors, permuted, dropped = _sort_head(adapted.tensors, checkpoint.metadata.get("class_names"), class_names)
        reinitialised, reason = assign_weights(model, tensors, reset_head)
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from None
    return LoadReport(
        source=f"{checkpoint.path} ({checkpoint.dialect})",
        loaded=tuple(name for name in tensors if name not in reinitialised),
        inflated=adapted.inflated,
        resized=adapted.resized,
        adapted=adapted.note,
        reinitialised=reinitialised,
        head=dropped or reason,
        permuted=permuted,
        ignored=checkpoint.ignored,
    )


def _sort_head(
    tensors: dict[str, np.ndarray], trained: Sequence[str] | None, wanted: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...], str]:
    """Sorts a head to the wanted classes and names the weights moved, or drops a head of other classes and says why."""
    # Plain numbers come from a list without names, and do not identify classes.
    numbers = [str(label) for label in range(len(wanted or ()))]
    if trained is None or wanted is None or len(trained) != len(wanted) or numbers in (list(trained), list(wanted)):
        return tensors, (), ""
    head = tuple(name for name in tensors if name.startswith(HEAD_PREFIX))
    others = [name for name in wanted if name not in trained]
    if others:
        backbone = {name: tensor for name, tensor in tensors.items() if name not in head}
        return backbone, (), f"a head of other classes, without {others[0]!r}"
    rows = [trained.index(name) for name in wanted]
    moved = head if rows != sorted(rows) else ()
    return tensors | {name: tensors[name][rows] for name in moved}, moved, ""


def assign_weights(
    model: VideoSwin, tensors: Mapping[str, np.ndarray], reset_head: bool
) -> tuple[tuple[str, ...], str]:
    """Assigns tensors in official names and layout to a model whose variables exist.

    Returns:
        The names of head weights that `reset_head` left unassigned, and the reason; both are empty if all were
        assigned.

    Raises:
        InputError: if names or shapes differ, or values are not finite; then nothing is assigned.
    """
    variables = named_weights(model)
    wanted = official_shapes(model.size, model.num_classes)
    given = {name: np.shape(tensor) for name, tensor in tensors.items()}
    head = tuple(name for name in wanted if name.startswith(HEAD_PREFIX))
    is_reset = reset_head and any(given.get(name) != wanted[name] for name in head)
    reason = ""
    if is_reset:
        shape = given.get(f"{HEAD_PREFIX}.weight")
        reason = f"a head of {shape[0]} classes, for {model.num_classes}" if shape else "the weights have no head"
        wanted = {name: shape for name, shape in wanted.items() if name not in head}
        given = {name: shape for name, shape in given.items() if name not in head}
    if differences := compare(given, wanted):
        is_head_alone = all(difference.name.startswith(HEAD_PREFIX) for difference in differences)
        way_out = (
            "give the num_classes of the weights, or reset_head=True in Python to train a new head"
            if is_head_alone
            else "give the size and window_size that the weights were trained with"
        )
        raise InputError(f"the weights do not fit the model: {first_five(differences)}; {way_out}")
    # Weights that are not finite would make every prediction NaN.
    if broken := [name for name in wanted if not np.isfinite(tensors[name]).all()]:
        raise InputError(
            f"not finite (NaN or infinite): {first_five(broken)}; the file was damaged, or its training went astray"
        )
    for name in wanted:
        variables[name].assign(from_official(name, np.asarray(tensors[name])))
    return (head, reason) if is_reset else ((), "")
