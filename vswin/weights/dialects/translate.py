"""Dialects: where and how files name the same weights, and the way from each to official names and layout.

A dialect is recognised by its keys and ranks, never by the name of its file. Every map is by name (of a SavedModel by
order and shape) and one to one: a tensor that is left over, or a weight that stays unfilled, is an error. What is
passed over is listed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vswin.errors import InputError
from vswin.weights.dialects import keras_names, torch_names
from vswin.weights.dialects.hub_order import is_position_index, translate_in_order
from vswin.weights.names import to_official as to_official_layout
from vswin.weights.recognise import recognise
from vswin.weights.shapes import HEAD, PATCHES, official_names, read_depths

OFFICIAL = "official"
MMACTION2 = "mmaction2"
TORCHVISION = "torchvision"
IMAGE_2D = "image_2d"
INNAT = "innat_h5"
TFHUB = "tfhub_saved_model"
VSWIN_EXPORT = "vswin_saved_model"

_OFFICIAL_KEY = re.compile(r"(?:backbone\.)?layers\.\d+\.")
_POSITION_INDEX = re.compile(r"(?:.*\.)?relative_position_index")


@dataclass(frozen=True)
class Translation:
    """Holds weights under official names.

    Args:
        dialect: how the file names them, one of the constants of this module.
        tensors: official name -> values in official layout; those of an image network (`IMAGE_2D`) keep their two
            dimensions, and have no head.
        ignored: names in the file of what was passed over, as nothing could be made of it: buffers that follow from
            the network, states of training, the head of an image network.
        position_index: int [N, N], the first `relative_position_index` of the file, which decides the window.
    """

    dialect: str
    tensors: dict[str, np.ndarray]
    ignored: tuple[str, ...] = ()
    position_index: np.ndarray | None = field(default=None, repr=False)


def to_official(tensors: Mapping[str, np.ndarray]) -> Translation:
    """Translates the tensors of a file.

    Args:
        tensors: name in the file (of an HDF5 file the path of the data set) -> values.

    Returns:
        The weights of one whole network. Nothing is copied, but what Hugging Face keeps apart is joined: what is
        transposed is a view.

    Raises:
        InputError: if no dialect is recognised, or the tensors are not the weights of one whole network.
    """
    tensors = _unwrap(tensors)
    if any(map(torch_names.is_hugging_face, tensors)):
        tensors = torch_names.from_hugging_face(tensors)
    dialect = _find_dialect(tensors)
    rename, is_ignored = _rules(dialect, tensors)
    translated: dict[str, np.ndarray] = {}
    given_as: dict[str, str] = {}
    ignored, unknown = [], []
    for key, tensor in tensors.items():
        is_passed_over = is_ignored(key) or torch_names.is_of_training(key)
        name = None if is_passed_over else rename(key)
        if is_passed_over:
            ignored.append(key)
        elif name is None:
            unknown.append(key)
        elif name in given_as:
            raise InputError(f"{given_as[name]} and {key} are both {name}; files of two kinds were mixed")
        else:
            given_as[name] = key
            translated[name] = to_official_layout(name, tensor) if dialect == INNAT else tensor
    _check_names(dialect, given_as, unknown)
    # First what is not in every file.
    ignored.sort(key=torch_names.is_of_training, reverse=True)
    indices = [key for key in ignored if _POSITION_INDEX.fullmatch(key)]
    index = tensors[indices[0]] if indices else None
    recognise(translated)
    return Translation(dialect, translated, tuple(ignored), index)


def saved_model_to_official(variables: Sequence[tuple[str, np.ndarray]]) -> Translation:
    """Translates the variables of a SavedModel: of the TF-Hub collection, or of an export of ours.

    Args:
        variables: name and value, in the order of the SavedModel.

    Returns:
        The weights of one whole backbone; of an export of ours, with its head.

    Raises:
        InputError: if they are not in the order, or of the shapes, of such a network.
    """
    if variables and all(name.startswith(("backbone.", HEAD)) for name, _ in variables):
        named = {name: to_official_layout(name, array) for name, array in variables}
        _check_names(VSWIN_EXPORT, {name: name for name in named}, [])
        recognise(named)
        return Translation(VSWIN_EXPORT, named)
    indices = [(name, array) for name, array in variables if is_position_index(array)]
    tensors = translate_in_order([(name, array) for name, array in variables if not is_position_index(array)])
    recognise(tensors)
    return Translation(TFHUB, tensors, tuple(name for name, _ in indices), indices[0][1] if indices else None)


def _unwrap(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes what wrappers put into names out of them."""
    unwrapped: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        name = torch_names.unwrap(key)
        if name in unwrapped:
            raise InputError(f"{key} and another tensor are both {name}; files of two kinds were mixed")
        unwrapped[name] = tensor
    return unwrapped


def _find_dialect(tensors: Mapping[str, np.ndarray]) -> str:
    """Recognises a dialect by keys that only it has."""
    found = []
    if any(key.startswith("features.") for key in tensors):
        found.append(TORCHVISION)
    if any("/vars/" in key for key in tensors):
        found.append(INNAT)
    if any(_OFFICIAL_KEY.match(key) for key in tensors):
        found.append(_find_official_dialect(tensors))
    if len(found) == 1:
        return found[0]
    first = ", ".join(list(tensors)[:5]) or "none"
    if found:
        raise InputError(f"the tensors are named as in {' and '.join(found)} at once; the first are {first}")
    tried = ", ".join((OFFICIAL, MMACTION2, TORCHVISION, IMAGE_2D, INNAT))
    raise InputError(f"the tensors are named as in none of {tried}; the first of {len(tensors)} are {first}")


def _find_official_dialect(tensors: Mapping[str, np.ndarray]) -> str:
    """Tells apart those who kept the official names."""
    patches = tensors.get(PATCHES, tensors.get(PATCHES.removeprefix("backbone.")))
    if patches is not None and np.ndim(patches) == 4:
        return IMAGE_2D
    is_mmaction2 = any(torch_names.from_official(key).startswith("backbone.norm3.") for key in tensors)
    return MMACTION2 if is_mmaction2 else OFFICIAL


def _rules(
    dialect: str, tensors: Mapping[str, np.ndarray]
) -> tuple[Callable[[str], str | None], Callable[[str], bool]]:
    """Gives the two functions of a dialect: key -> official name, and whether a key is passed over."""
    if dialect == INNAT:
        prefix = keras_names.innat_prefix(tensors)
        return lambda key: keras_names.from_innat(key, prefix), keras_names.is_training_state
    if dialect == TORCHVISION:
        return torch_names.from_torchvision, torch_names.is_buffer
    if dialect == MMACTION2:
        return torch_names.from_mmaction2, torch_names.is_buffer
    if dialect == IMAGE_2D:
        is_late = not any("layers.0.downsample." in key for key in tensors)
        return (
            lambda key: torch_names.from_official(torch_names.before_merging(key) if is_late else key),
            lambda key: torch_names.is_buffer(key) or torch_names.is_image_head(key),
        )
    return torch_names.from_official, torch_names.is_buffer


def _check_names(dialect: str, given_as: Mapping[str, str], unknown: Sequence[str]) -> None:
    """Checks that every weight of the network is there once, and nothing else."""
    wanted = dict.fromkeys(official_names(read_depths(given_as), any(name.startswith(HEAD) for name in given_as)))
    missing = [name for name in wanted if name not in given_as]
    unused = [*unknown, *(key for name, key in given_as.items() if name not in wanted)]
    problems = "; ".join(filter(None, (_first_five("missing", missing), _first_five("unknown", unused))))
    if problems:
        raise InputError(f"the tensors are named as in {dialect}, but are no whole network of it: {problems}")


def _first_five(problem: str, names: Sequence[str]) -> str:
    """Says how many names share a problem and shows the first five."""
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} {problem}: {', '.join(names[:5])}{more}" if names else ""
