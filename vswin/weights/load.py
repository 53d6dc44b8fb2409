"""Strict loading: every tensor is used and every variable filled, or nothing changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vswin.errors import InputError
from vswin.weights.names import HEAD_PREFIX, from_official, named_weights, official_tensors

if TYPE_CHECKING:
    from vswin.models.video_swin import VideoSwin


@dataclass(frozen=True)
class LoadReport:
    """Says what became of each weight, by official name.

    Args:
        loaded: weights that were assigned.
        reinitialised: weights of the head that keep their initial values.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Sums up in one line."""
        head = f"; re-initialised: {', '.join(self.reinitialised)}" if self.reinitialised else ""
        return f"{len(self.loaded)} weights loaded{head}"


def assign_weights(model: "VideoSwin", tensors: Mapping[str, np.ndarray], reset_head: bool) -> LoadReport:
    """Assigns tensors in official names and layout to a model.

    Args:
        model: a model whose variables exist.
        tensors: official name -> values.
        reset_head: whether a head that is missing or of another size keeps its initial values, as fine-tuning
            wants it, or is an error.

    Returns:
        What was assigned.

    Raises:
        InputError: if names or shapes differ; nothing is assigned then.
    """
    variables = named_weights(model)
    wanted = {name: tensor.shape for name, tensor in official_tensors(model).items()}
    given = {name: np.shape(tensor) for name, tensor in tensors.items()}
    head = tuple(name for name in wanted if name.startswith(HEAD_PREFIX))
    reinitialised = head if reset_head and any(given.get(name) != wanted[name] for name in head) else ()
    for name in reinitialised:
        wanted.pop(name)
        given.pop(name, None)
    _check_shapes(wanted, given)
    for name in wanted:
        variables[name].assign(from_official(name, np.asarray(tensors[name])))
    return LoadReport(loaded=tuple(wanted), reinitialised=reinitialised)


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
