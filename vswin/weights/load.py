"""Loads a checkpoint into a model: every tensor is used and every variable filled, or nothing changes.

Image networks are inflated, bias tables of another window are resized, and the head is sorted to the order of the
model's classes. A report says what happened to each weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vswin.errors import InputError
from vswin.models.zoo import ModelSize, Triple, official_shapes
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.inflate import inflate
from vswin.weights.names import HEAD_PREFIX, first_five, from_official, named_weights
from vswin.weights.recognise import Difference, compare, fits
from vswin.weights.resize_bias import resize_bias_table

if TYPE_CHECKING:
    from vswin.models.video_swin import VideoSwin

_TABLE_SUFFIX = "relative_position_bias_table"
_NUM_SHOWN = 2


@dataclass(frozen=True)
class LoadReport:
    """Says what happened to each weight, by official name, and why.

    Args:
        source: the file and its dialect.
        loaded: weights that were assigned, including the inflated and the resized ones.
        inflated: weights of an image network that received a time axis.
        resized: bias tables that were interpolated.
        adapted: what the weights were inflated or resized from, and to.
        reinitialised: weights of the head that keep their initial values.
        head: why the head was not loaded.
        permuted: weights of the head that were sorted to the order of the model's classes.
        ignored: names of tensors in the file that are not used.
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
        for fate, names, reason in rows:
            if names:
                shown = ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")
                lines.append(f"  {fate:<15}{len(names):>4}" + (f"  {reason}: {shown}" if reason else ""))
        return "\n".join(lines)


def load_weights(
    model: "VideoSwin",
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


@dataclass(frozen=True)
class Adapted:
    """Weights that fit a network except for its head, names of inflated or resized weights, and the reason."""

    tensors: dict[str, np.ndarray]
    inflated: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    note: str = ""


def adapt(checkpoint: Checkpoint, size: ModelSize, resize_bias: bool) -> Adapted:
    """Fits weights to a network; the head, if there is one, stays as in the checkpoint.

    With `resize_bias`, bias tables of a video network with another window may be resized. The tables of an image
    network always may, as in the official inflation.

    Raises:
        InputError: if the weights have another network, or another window and `resize_bias` is false.
    """
    if checkpoint.network.is_2d:
        inflated = inflate(checkpoint.tensors, size.patch_size, size.window_size)
        if differences := fits(inflated.tensors, size):
            raise InputError(f"the image network is another one: {_explain(differences, checkpoint)}")
        given = checkpoint.tensors
        changed = tuple(name for name, tensor in inflated.tensors.items() if tensor.shape != given[name].shape)
        resized = f", {len(inflated.resized)} bias tables resized" if inflated.resized else ""
        return Adapted(inflated.tensors, changed, inflated.resized, f"from an image network{resized}")

    differences = fits(checkpoint.tensors, size)
    if not all(difference.name.endswith(_TABLE_SUFFIX) for difference in differences):
        raise InputError(f"the weights are of another network: {_explain(differences, checkpoint)}")
    if not differences and checkpoint.window in (None, size.window_size):
        return Adapted(checkpoint.tensors)
    old, new = checkpoint.window or checkpoint.network.window_size, size.window_size
    if old is None:
        candidates = ", ".join(map(str, checkpoint.network.window_candidates))
        raise InputError(f"the weights are of another window, and do not say which: it may be {candidates}")
    if not resize_bias:
        raise InputError(
            f"the weights are of the window {_dense(old)}, the model has {_dense(new)}: give "
            f"model.window_size={_dense(old)}, or model.resize_bias=true to interpolate the bias tables"
        )
    names = tuple(name for name in checkpoint.tensors if name.endswith(_TABLE_SUFFIX))
    tables = {name: resize_bias_table(checkpoint.tensors[name], old, new) for name in names}
    return Adapted(checkpoint.tensors | tables, resized=names, note=f"window {_dense(old)} to {_dense(new)}")


def _explain(differences: Sequence[Difference], checkpoint: Checkpoint) -> str:
    """Names the first differences, the network that the weights fit, and how to ask for it."""
    network = checkpoint.network
    windows = " or ".join(map(_dense, network.window_candidates))
    if network.size_name:
        asked = f"model={network.size_name}"
    elif network.sizes_but_window:
        asked = f"model={network.sizes_but_window[0]} with model.window_size={windows}"
    else:
        asked = (
            f"model.embed_dim={network.embed_dim} model.depths={_dense(network.depths)} "
            f"model.num_heads={_dense(network.num_heads)} model.window_size={windows}"
        )
    return f"{first_five(differences)}. They fit {asked}"


def _dense(extents: Triple | tuple[int, ...]) -> str:
    """Writes extents as the command line expects them, without spaces."""
    return "[" + ",".join(map(str, extents)) + "]"


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
    model: "VideoSwin", tensors: Mapping[str, np.ndarray], reset_head: bool
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
