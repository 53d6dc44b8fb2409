"""The front door to weights in files: whatever the format and the dialect, official names come out.

The format is told by what the file holds, the dialect by the names in it; neither by the name of the file. Nothing
in a file is run.
"""

import dataclasses
import json
import operator
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vswin.config.load import DATA_DIR
from vswin.errors import InputError
from vswin.published import find_weights
from vswin.weights.dialects import OFFICIAL, VSWIN_EXPORT, Translation, saved_model_to_official, to_official
from vswin.weights.download import fetch
from vswin.weights.files import (
    BEST_AVERAGE,
    best_weights,
    is_saved_model,
    read_hdf5,
    read_safetensors,
    read_saved_model,
    read_sharded_safetensors,
    unpack_saved_model,
)
from vswin.weights.recognise import Recognised, fits, recognise
from vswin.weights.torch_file import read_torch_file
from vswin.zoo import SIZES, ModelSize, Triple

VSWIN = "vswin"
# Of what a file says that is quoted in an error.
_MAX_CHARS = 200
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# What weights are called in a folder that is not one of a run.
_IN_FOLDER = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """What a file or SavedModel holds, in official names.

    Args:
        path: the file or SavedModel folder.
        dialect: how it names its weights, see `vswin.weights.dialects`; `vswin` for our own checkpoints.
        tensors: official name -> values in official layout; those of an image network keep their two dimensions.
        ignored: what in the file was passed over.
        metadata: what a checkpoint of ours says beside its weights: `size`, `class_names` and so on.
        position_index: a buffer of the file that decides the attention window, if it has one.
    """

    path: Path
    dialect: str
    tensors: dict[str, np.ndarray]
    ignored: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    position_index: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def network(self) -> Recognised:
        """Which network the weights are of."""
        return recognise(self.tensors, self.position_index)

    @property
    def window(self) -> Triple | None:
        """The attention window where the file says it, not where rows of bias tables make it likely."""
        if "size" in self.metadata:
            return tuple(self.metadata["size"]["window_size"])
        return None if self.position_index is None else self.network.window_size


def open_weights(weights: str | os.PathLike[str], source: str | None = None) -> Checkpoint:
    """Opens weights by path or published name; a name is downloaded once.

    Args:
        weights: checkpoint file, SavedModel, run folder or published name.
        source: which copy of a published name, e.g. `torchvision`; None: the official one.

    Raises:
        InputError: if there are no such weights, they cannot be had, or they are damaged.
    """
    if os.path.lexists(weights):
        return open_checkpoint(weights)
    name = os.fspath(weights)
    try:
        published = find_weights(name)
    except InputError as error:
        raise InputError(f"{name}: there is no such file or folder, and {error}") from None
    checkpoint = open_checkpoint(fetch(name, source))
    size, names = SIZES[published.size], DATA_DIR / published.dataset / "classes.txt"
    known: dict[str, Any] = {} if fits(checkpoint.tensors, size) else {"size": dataclasses.asdict(size)}
    if names.is_file() and checkpoint.network.num_classes == published.num_classes:
        known["class_names"] = names.read_text(encoding="utf-8").splitlines()
    return dataclasses.replace(checkpoint, metadata={**known, **checkpoint.metadata})


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens weights; the values are read as they are used.

    Args:
            path: a `.safetensors` file or the index of several, a `.pth` file, `.h5` (ours or of the innat port), a
            SavedModel folder or an archive of one, a folder with `model.safetensors` or its index, or the folder of a
            run, which stands for its best checkpoint: raw or averaged weights, whichever were better in validation; of
            equals the averaged ones.

    Raises:
        InputError: if there is no such file, it is damaged or hostile, or its tensors are not those of one network.
    """
    given = Path(path)
    if given.is_dir():
        if is_saved_model(given):
            return _open_saved_model(given, given)
        average = best_weights(given, BEST_AVERAGE)
        if average.is_file():
            both = _open_file(average), open_checkpoint(best_weights(given))
            return max(both, key=lambda checkpoint: float(checkpoint.metadata.get("val_top1", -1)))
        found = [best_weights(given), *(given / name for name in _IN_FOLDER)]
        given = next((path for path in found if path.is_file()), found[0])
    if not given.is_file():
        kinds = {"does not exist": not given.exists(), "is a folder": given.is_dir(), "is a pipe": given.is_fifo()}
        what = next((kind for kind, is_kind in kinds.items() if is_kind), "is a socket or a device")
        if given.is_symlink() and not given.exists():
            what = f"is a link to {given.readlink()}, which is not there"
        raise InputError(
            f"{given} {what}; give a checkpoint file (.safetensors, .pth, .h5), a SavedModel (folder or .tar.gz), a "
            "folder with model.safetensors or its index, or the folder of a run"
        )
    return _open_file(given)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads weights in official names, of any format and dialect; never runs code from the file.

    Returns:
        Official name -> values in official layout (Linear [out, in], Conv3d [out, in, t, h, w]), as stored but
        bfloat16, which becomes float32. They may be read-only views of the file. An image network keeps its two
        dimensions, and has no head.

    Raises:
        InputError: if there is no such file, it is damaged or hostile, or its tensors are not those of one network.
    """
    return open_checkpoint(path).tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save_checkpoint` was given, with lists for tuples, and `vswin_version`; empty for files of others."""
    return dict(open_checkpoint(path).metadata)


def _open_file(path: Path) -> Checkpoint:
    """Opens a file in the format that its first bytes show."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
        with tempfile.TemporaryDirectory() as folder:
            return _open_saved_model(path, unpack_saved_model(path, Path(folder)))
    metadata = None
    if start.startswith(_HDF5_MAGIC):
        tensors, metadata = read_hdf5(path)
    elif start[8:9] == b"{":
        tensors, metadata = read_safetensors(path)
    elif start.startswith(b"{"):
        tensors = read_sharded_safetensors(path)
    else:
        tensors = read_torch_file(path)
    translation = to_official(tensors)
    if metadata is not None and translation.dialect == OFFICIAL:
        translation = dataclasses.replace(translation, dialect=VSWIN)
    return _described(path, translation, metadata)


def _open_saved_model(path: Path, folder: Path) -> Checkpoint:
    """Opens a SavedModel; one of our exports says in an asset what it is."""
    translation = saved_model_to_official(read_saved_model(folder))
    about, metadata = folder / "assets" / "vswin.json", None
    if translation.dialect == VSWIN_EXPORT and about.is_file():
        try:
            metadata = json.loads(about.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: assets/vswin.json is damaged ({error})") from None
    return _described(path, translation, metadata)


def _described(path: Path, translation: Translation, metadata: Any) -> Checkpoint:
    """Adds what a file says of its weights, if it is sound and true; None stands for an absent entry."""
    ignored, index = translation.ignored, translation.position_index
    checkpoint = Checkpoint(path, translation.dialect, translation.tensors, ignored, position_index=index)
    if metadata is None:
        return checkpoint
    try:
        known = {key: value for key, value in metadata.items() if value is not None}
        if "size" in known:
            known["size"] = _check_size(checkpoint, known["size"])
        names, num_classes = known.get("class_names", []), None
        if "class_names" in known or "num_classes" in known:
            num_classes = checkpoint.network.num_classes
        float(known.get("val_top1", 0))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: what it says of its model is damaged ({str(error)[:_MAX_CHARS]})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: its class_names are not a list of names")
    for key, count in (("class_names", len(names) or None), ("num_classes", known.get("num_classes"))):
        if None not in (count, num_classes) and count != num_classes:
            raise InputError(f"{path}: its {key} are {str(count)[:_MAX_CHARS]}, its head has {num_classes} classes")
    return dataclasses.replace(checkpoint, metadata=known)


def _check_size(checkpoint: Checkpoint, claimed: Mapping[str, Any]) -> dict[str, Any]:
    """Checks a claimed network against the tensors, before anything as large as it claims is made."""
    network = checkpoint.network
    found = {key: getattr(network, key) for key in ("embed_dim", "depths", "num_heads", "mlp_ratio", "patch_size")}
    for key, value in found.items():
        given = claimed.get(key, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise ValueError(f"{key} is {str(given)[:_MAX_CHARS]}, its tensors are of {value}")
    size = ModelSize.from_fields({**claimed, **found})
    if fits(checkpoint.tensors, size):
        raise ValueError(f"window_size is {size.window_size}, its bias tables are of another one")
    t, h, w = map(operator.index, size.window_size)
    return dataclasses.asdict(dataclasses.replace(size, window_size=(t, h, w)))
