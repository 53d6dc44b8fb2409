"""Strict loading: every tensor is used and every variable filled, or nothing changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vswin.errors import InputError
from vswin.weights.names import HEAD_PREFIX, from_official, named_weights
from vswin.weights.shapes import official_shapes

if TYPE_CHECKING:
    from vswin.models.video_swin import VideoSwin

_NUM_SHOWN = 2


@dataclass(frozen=True)
class LoadReport:
    """Says what became of each weight, by official name, and why.

    Args:
        source: the file and how it names its weights.
        loaded: weights that were assigned, those that were inflated or resized first among them.
        inflated: weights of an image network that got a time axis.
        resized: bias tables that were interpolated.
        adapted: from what to what the weights were inflated or resized.
        reinitialised: weights of the head that keep their initial values.
        head: why the head was not loaded.
        permuted: weights of the head that were brought into the order of the classes.
        ignored: what in the file was passed over.
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
        """Writes a table: a line for each fate of weights, with their number, the reason and the first names."""
        rows = (
            ("loaded", self.loaded, ""),
            ("inflated", self.inflated, self.adapted),
            ("resized", self.resized, self.adapted),
            ("permuted", self.permuted, "the same classes in another order"),
            ("re-initialised", self.reinitialised, self.head),
            ("ignored", self.ignored, "no weights of the model"),
        )
        lines = [_row(fate, names, reason) for fate, names, reason in rows if names]
        return "\n".join([self.source, *lines])


def _row(fate: str, names: Sequence[str], reason: str) -> str:
    shown = ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")
    explained = f"  {reason}: {shown}" if reason else ""
    return f"  {fate:<15}{len(names):>4}{explained}"


def assign_weights(
    model: "VideoSwin", tensors: Mapping[str, np.ndarray], reset_head: bool
) -> tuple[tuple[str, ...], str]:
    """Assigns tensors in official names and layout to a model.

    Args:
        model: a model whose variables exist.
        tensors: official name -> values.
        reset_head: whether a head that is missing or of another size keeps its initial values, as fine-tuning
            wants it, or is an error.

    Returns:
        The names of the weights of the head that were not assigned, and why; nothing for either if all were.

    Raises:
        InputError: if names or shapes differ, or values are not finite; nothing is assigned then.
    """
    variables = named_weights(model)
    wanted = official_shapes(model.size, model.num_classes)
    given = {name: np.shape(tensor) for name, tensor in tensors.items()}
    head = tuple(name for name in wanted if name.startswith(HEAD_PREFIX))
    is_reset = reset_head and any(given.get(name) != wanted[name] for name in head)
    reason = _explain_head(given, model.num_classes) if is_reset else ""
    for name in head if is_reset else ():
        wanted.pop(name)
        given.pop(name, None)
    _check_shapes(wanted, given)
    _check_finite({name: tensors[name] for name in wanted})
    for name in wanted:
        variables[name].assign(from_official(name, np.asarray(tensors[name])))
    return (head, reason) if is_reset else ((), "")


def _explain_head(given: Mapping[str, tuple[int, ...]], num_classes: int) -> str:
    shape = given.get(f"{HEAD_PREFIX}.weight")
    return f"a head of {shape[0]} classes, for {num_classes}" if shape else "the weights have no head"


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Refuses weights that would make every prediction NaN."""
    broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if broken:
        raise InputError(
            f"{_first_five('not finite (NaN or infinite)', broken)}; the file was damaged, or its training went astray"
        )


def _check_shapes(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    """Compares names and shapes, and lists what differs."""
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    reshaped = [name for name in wanted if name in given and given[name] != wanted[name]]
    problems = [
        _first_five("missing from the weights", missing),
        _first_five("unknown to the model", unknown),
        _first_five("of another shape", [f"{name} {given[name]} for {wanted[name]}" for name in reshaped]),
    ]
    if any(problems):
        is_head_alone = all(name.startswith(HEAD_PREFIX) for name in missing + unknown + reshaped)
        way_out = (
            "give the num_classes of the weights, or reset_head=True in Python to train a new head"
            if is_head_alone
            else "give the size and window_size that the weights were trained with"
        )
        raise InputError(f"the weights do not fit the model: {'; '.join(filter(None, problems))}; {way_out}")


def _first_five(problem: str, names: list[str]) -> str:
    """Says how many names share a problem and shows the first five."""
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} {problem}: {', '.join(names[:5])}{more}" if names else ""
