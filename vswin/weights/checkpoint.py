"""Reads weights from files of any format and dialect, gives them official names, and describes them in words.

The content of a file decides its format, the names in it decide its dialect; the file's own name decides neither. No
code in a file is run.
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
from vswin.config.schema import MONITORS, MULTI_LABEL, SINGLE_LABEL
from vswin.console import NARROW, Console, printable, say
from vswin.errors import InputError
from vswin.models.zoo import SIZES, ModelSize, Triple
from vswin.weights.dialects import IMAGE_2D, OFFICIAL, VSWIN_EXPORT, Translation, saved_model_to_official, to_official
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
from vswin.weights.names import Recognised, fits, recognise
from vswin.weights.published import find_weights
from vswin.weights.torch_file import read_torch_file

VSWIN = "vswin"
# Longest quotation from a file in an error, in characters.
_MAX_CHARS = 200
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Column at which the values of a description start.
_VALUE_COLUMN = 16
_NUM_CLASSES_SHOWN = 8
# File names of weights in a folder that is not a run folder.
_IN_FOLDER = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file or SavedModel, under official names."""

    path: Path
    dialect: str  # how the file names its weights, see `vswin.weights.dialects`; `vswin` for our own checkpoints
    tensors: dict[str, np.ndarray]  # in official layout; the tensors of an image network have no time axis
    ignored: tuple[str, ...] = ()  # names of tensors in the file that are not used
    metadata: Mapping[str, Any] = field(default_factory=dict)  # `size`, `class_names` and so on, if we wrote the file
    position_index: np.ndarray | None = field(default=None, repr=False)  # decides the attention window

    @cached_property
    def network(self) -> Recognised:
        """The network that the weights belong to."""
        return recognise(self.tensors, self.position_index)

    @property
    def window(self) -> Triple | None:
        """The attention window if the file states it; None if only the rows of the bias tables suggest one."""
        if "size" in self.metadata:
            return tuple(self.metadata["size"]["window_size"])
        return None if self.position_index is None else self.network.window_size


def open_weights(weights: str | os.PathLike[str], source: str | None = None) -> Checkpoint:
    """Opens weights by path or by published name; the weights of a name are downloaded once, from `source` if given.

    Raises:
        InputError: if the weights do not exist, cannot be fetched, or are damaged.
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
    """Opens the weights at a path.

    It is a `.safetensors` file or the index of several; a `.pth` file; an `.h5` file (ours or of the innat port); a
    SavedModel folder or its archive; a folder with `model.safetensors`, its index or `pytorch_model.bin`; or a run
    folder, which stands for its best checkpoint: the raw or the averaged weights, whichever have the better figure of
    `monitor` in validation, in a tie the averaged ones.

    Raises:
        InputError: if the file does not exist, is damaged or hostile, or its tensors do not form one network.
    """
    given = Path(path)
    if given.is_dir():
        if is_saved_model(given):
            return _open_saved_model(given, given)
        average = best_weights(given, BEST_AVERAGE)
        if average.is_file():
            both = _open_file(average), open_checkpoint(best_weights(given))
            key = str(both[0].metadata.get("monitor", "val_top1"))
            better = MONITORS[key].better if key in MONITORS else max
            return better(both, key=lambda checkpoint: float(checkpoint.metadata.get(key, -1)))
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
    """Reads weights of any format and dialect under official names; no code in the file is run.

    Returns:
        Official name -> values in official layout (Linear [out, in], Conv3d [out, in, t, h, w]), with the stored dtype
        except bfloat16, which becomes float32. Arrays may be read-only views of the file. An image network has no time
        axis and no head.

    Raises:
        InputError: if the file does not exist, is damaged or hostile, or its tensors do not form one network.
    """
    return open_checkpoint(path).tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata of a file, with `vswin_version` and lists for tuples; empty for files not written by vswin."""
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
    """Opens a SavedModel; our exports have an asset with metadata."""
    translation = saved_model_to_official(read_saved_model(folder))
    about, metadata = folder / "assets" / "vswin.json", None
    if translation.dialect == VSWIN_EXPORT and about.is_file():
        try:
            metadata = json.loads(about.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: assets/vswin.json is damaged ({error})") from None
    return _described(path, translation, metadata)


def _described(path: Path, translation: Translation, metadata: Any) -> Checkpoint:
    """Adds the metadata of a file after checking it against the tensors; an entry of None counts as absent."""
    ignored, index = translation.ignored, translation.position_index
    checkpoint = Checkpoint(path, translation.dialect, translation.tensors, ignored, position_index=index)
    if metadata is None:
        return checkpoint
    try:
        known = {key: value for key, value in metadata.items() if value is not None}
        if "size" in known:
            known["size"] = _check_size(checkpoint, known["size"])
        names, num_classes = known.get("class_names", []), None
        if known.keys() & {"class_names", "num_classes", "thresholds"}:
            num_classes = checkpoint.network.num_classes
        float(known.get(str(known.get("monitor", "val_top1")), 0))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: what it says of its model is damaged ({str(error)[:_MAX_CHARS]})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: its class_names are not a list of names")
    thresholds = known.get("thresholds", [])
    if known.get("task") not in (None, SINGLE_LABEL, MULTI_LABEL) or not (
        isinstance(thresholds, list) and all(isinstance(value, int | float) and 0 <= value <= 1 for value in thresholds)
    ):
        raise InputError(f"{path}: its task or its thresholds are not what vswin writes")
    for key, count in (
        *(("class_names", len(names) or None), ("num_classes", known.get("num_classes"))),
        ("thresholds", len(thresholds) or None),
    ):
        if None not in (count, num_classes) and count != num_classes:
            raise InputError(f"{path}: its {key} are {str(count)[:_MAX_CHARS]}, its head has {num_classes} classes")
    return dataclasses.replace(checkpoint, metadata=known)


def _check_size(checkpoint: Checkpoint, claimed: Mapping[str, Any]) -> dict[str, Any]:
    """Checks a claimed network against the tensors, before anything of the claimed size is allocated."""
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


def print_checkpoint(checkpoint: Checkpoint, is_long: bool = False) -> None:
    """Prints the lines of `describe_checkpoint`, wrapped to the window."""
    console = Console(soft_wrap=True)
    hanging = _VALUE_COLUMN if console.width >= NARROW else 2
    for line in describe_checkpoint(checkpoint, is_long):
        say(console, line, hanging=hanging)


def describe_checkpoint(checkpoint: Checkpoint, is_long: bool = False) -> list[str]:
    """Describes weights, a line per fact; `is_long` lists every tensor."""
    network, metadata = checkpoint.network, checkpoint.metadata
    # The known sizes that match, and what the weights can be used for.
    near = " or ".join(network.sizes_but_window)
    size = near and f"{near} but for {'time, a 2D image network' if network.is_2d else 'the window'}"
    windows = [str(list(window)) for window in network.window_candidates]
    if checkpoint.dialect == IMAGE_2D:
        use = "training starts from them (inflated in time, a new head): init_from=<file>"
    elif network.num_classes is None:
        use = "training starts from them: init_from=<file> (a new head)"
    else:
        use = f"training starts from them: init_from=<file>; evaluation, on data of these {network.num_classes} classes"
    names = metadata.get("class_names", []) if network.num_classes else []
    shown = ", ".join([*names[:_NUM_CLASSES_SHOWN], *(["..."] if len(names) > _NUM_CLASSES_SHOWN else [])])
    dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in checkpoint.tensors.values()}))
    more = f", {len(checkpoint.ignored)} more are no weights" if checkpoint.ignored else ""
    rows = {
        "file": str(checkpoint.path),
        "dialect": checkpoint.dialect,
        "model": network.size_name or size or "none of the known sizes",
        "network": f"embed_dim {network.embed_dim}, depths {list(network.depths)}, heads {list(network.num_heads)}, "
        f"patches {list(network.patch_size)}",
        "window": f"one of {', '.join(windows)}" if network.window_size is None else str(list(network.window_size)),
        "tensors": f"{len(checkpoint.tensors)} ({dtypes}){more}",
        "parameters": f"{network.num_parameters:,}",
        "classes": f"{network.num_classes or 'none, there is no head'}{f': {shown}' if shown else ''}",
        "use": use,
    }
    described = {"size", "class_names", "num_classes", "model", "videos", "thresholds"}
    rows |= {key: str(value) for key, value in metadata.items() if key not in described}
    lines = [f"{key + ':':<{_VALUE_COLUMN}}{value}" for key, value in rows.items()]
    if is_long:
        lines += [f"  {name} {list(tensor.shape)} {tensor.dtype}" for name, tensor in checkpoint.tensors.items()]
        lines += [f"  {name} (no weight)" for name in checkpoint.ignored]
    return list(map(printable, lines))
