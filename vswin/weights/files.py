"""Reads weights from safetensors (the format of runs), HDF5, SavedModels and their archives; writes the first two.

No code in a file is run. Metadata of the model is stored as JSON beside the weights.
"""

import gzip
import io
import json
import math
import os
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import h5py
import ml_dtypes  # teaches NumPy bfloat16
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from vswin import __version__
from vswin.atomic import literal_folder, replacing
from vswin.errors import InputError

# Files of a run: its best weights, and the best average of its weights if it computes one.
BEST_CHECKPOINT = Path("checkpoints") / "best.safetensors"
BEST_AVERAGE = Path("checkpoints") / "best_ema.safetensors"

# Our safetensors files have all metadata in one JSON text. HDF5 files, and earlier safetensors files, have a text for
# each entry; there the entry with our version identifies our files.
_METADATA = "vswin"
_VERSION = "vswin_version"
# Weights hardly compress; an HDF5 file that claims a higher ratio is made to fill the memory.
_MAX_COMPRESSION = 100
_MAX_INDEX_BYTES = 4 * 2**20
# Weights shrink by a tenth, graphs to a tenth: an archive that grows more than this is made to fill the disk.
_MAX_INFLATION = 20
_ALWAYS_ALLOWED = 64 * 2**20
_MAX_MEMBERS = 1_000
# Headers of a tar archive may claim any size, and some versions of `tarfile` take quadratic time on them.
_MAX_HEADER_BYTES = 1_024
# Key under which a TensorFlow checkpoint maps its tensors to objects.
_CHECKPOINT_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


def best_weights(run: Path, name: Path = BEST_CHECKPOINT) -> Path:
    """Finds the file of the best weights of a run, or of their average; runs of earlier versions have an `.h5` file."""
    path = run / name
    earlier = path.with_suffix(".h5")
    return earlier if earlier.is_file() and not path.exists() else path


def save_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes weights, official name -> values in official layout, and metadata, anything that JSON can hold.

    The file is HDF5 if its name ends in `.h5`, else safetensors; its folder is created. A reader sees the old file or
    the new one, never a part. `vswin_version` is added to the metadata.
    """
    target = Path(path)
    described = {**metadata, _VERSION: __version__}
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix != ".h5":
        write_safetensors(target, tensors, {_METADATA: json.dumps(described)})
        return
    # HDF5 is written to memory first: on a full disk it ends the process with a segmentation fault.
    contents = io.BytesIO()
    with h5py.File(contents, "w") as file:
        for name, tensor in tensors.items():
            file.create_dataset(name, data=tensor)
        for key, value in described.items():
            file.attrs[key] = json.dumps(value)
    with replacing(target) as partial:
        partial.write_bytes(contents.getbuffer())


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file, whole or not at all; `texts` are its metadata."""
    # The library copies the memory of an array and ignores its strides. We write the file, since its own writer, if
    # killed, leaves a file of another name that only its owner may read.
    content = safetensors.numpy.save(
        {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, dict(texts)
    )
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads a `.safetensors` file; an `InputError` if it is damaged.

    Returns:
        Name -> values, bfloat16 as float32; and the metadata given to `save_checkpoint`, with lists for tuples, or None
        if vswin did not write the file.
    """
    try:
        with safe_open(path, "np") as file:
            texts, names = file.metadata() or {}, file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if _METADATA in texts:
            metadata = json.loads(texts[_METADATA])
        else:
            metadata = {key: json.loads(texts[key]) for key in sorted(texts)} if _VERSION in texts else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no sound safetensors file: {str(error)[:200]}; copy or download it again, or use another file"
        ) from error
    wide = {name: tensor.astype(np.float32) for name, tensor in tensors.items() if tensor.dtype == ml_dtypes.bfloat16}
    return tensors | wide, metadata


def read_sharded_safetensors(index: Path) -> dict[str, np.ndarray]:
    """Reads the shards that an index such as `model.safetensors.index.json` lists, from the folder of the index."""
    try:
        with index.open("rb") as file:
            parts = json.loads(file.read(_MAX_INDEX_BYTES))["weight_map"]
        tensors: dict[str, np.ndarray] = {}
        for part in sorted(set(parts.values())):
            if Path(part).name != part:
                raise ValueError("a part of it is not beside it")
            tensors |= read_safetensors(index.with_name(part))[0]
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is no index of safetensors files that belong together: {error}") from error
    if differing := ", ".join(sorted(parts.keys() ^ tensors.keys())[:5]):
        raise InputError(f"{index} and its parts do not hold the same tensors: {differing} is in one alone")
    return tensors


def read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads all numbers in an HDF5 file by the paths of its data sets, and its metadata, see `read_safetensors`.

    A file that crashes the HDF5 library crashes this process; other damage is an `InputError`.
    """
    tensors: dict[str, np.ndarray] = {}
    bytes_left = _MAX_COMPRESSION * path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            texts, names = dict(file.attrs), list[str]()
            file.visit(names.append)  # it follows no links into other files
            for name in names:
                item = file[name]
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
                    bytes_left -= item.nbytes
                    if item.external or item.is_virtual or bytes_left < 0:
                        raise ValueError(f"the values of {name}, {item.nbytes} bytes, are not in the file")
                    tensors[name] = np.asarray(item[()])
        metadata = {key: json.loads(text) for key, text in texts.items()} if _VERSION in texts else None
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again or use another") from error
    return tensors, metadata


def unpack_saved_model(path: Path, folder: Path) -> Path:
    """Unpacks a SavedModel from a `.tar.gz` or `.tar`, as TF-Hub publishes it, into an empty folder.

    Returns:
        The folder with `saved_model.pb`: `folder` or one below it.

    Raises:
        InputError: if the archive is damaged, has no SavedModel or several, holds anything but plain files and folders
            below its root, or would take more than 20 times its size plus 64 MiB.
    """
    limit = _MAX_INFLATION * path.stat().st_size + _ALWAYS_ALLOWED
    try:
        with path.open("rb") as packed:
            is_gzip = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            stream: Any = gzip.GzipFile(fileobj=packed) if is_gzip else packed
            bounded: Any = _Bounded(stream)
            with tarfile.TarFile(fileobj=bounded, copybufsize=_MAX_HEADER_BYTES) as archive:
                # Older Python has no filters; the filters of 3.10.12 and 3.11.4 follow links, but no link is extracted.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                for number, member in enumerate(archive):
                    limit -= member.size
                    is_plain = (member.isfile() and not member.issparse()) or member.isdir()
                    if not is_plain or member.size < 0 or {"..", "/"} & set(Path(member.name).parts):
                        raise InputError(f"its member {member.name[:200]!r} is no plain file or folder below its own")
                    if limit < 0 or number >= _MAX_MEMBERS:
                        raise InputError(f"it has over {_MAX_MEMBERS} members, or over {_MAX_INFLATION} times its size")
                    archive.extract(member, folder, set_attrs=False)
            # Read to the end, where gzip has its checksum.
            while content := stream.read(2**16):
                limit -= len(content)
                if limit < 0:
                    raise InputError(f"it unpacks to over {_MAX_INFLATION} times its size")
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is not unpacked: {str(error)[:300]}; copy or download it again") from error
    found = [file.parent for file in sorted(folder.rglob("saved_model.pb")) if file.is_file()]
    if len(found) != 1:
        raise InputError(f"{path} has {len(found)} files called saved_model.pb instead of one; use another")
    return found[0]


class _Bounded:
    """A file for `tarfile` that limits the size and the number of headers."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell
        self.headers_left = 4 * _MAX_MEMBERS

    def read(self, size: int = -1) -> bytes:
        """Reads a header, or a part of a member."""
        self.headers_left -= size == tarfile.BLOCKSIZE
        if not 0 <= size <= _MAX_HEADER_BYTES or self.headers_left < 0:
            raise InputError("its headers are larger than those of many files")
        return self.file.read(size)


def is_saved_model(folder: Path) -> bool:
    """Says whether a folder has the files of a SavedModel."""
    return (folder / "saved_model.pb").is_file() and (folder / "variables" / "variables.index").is_file()


def read_input_shape(folder: Path) -> tuple[int, int, int, int, int] | None:
    """Reads the clip shape (-1, 3, T, H, W) of a SavedModel of the TF-Hub collection; None for another form."""
    inputs = _read_graph(folder).signature_def["serving_default"].inputs.values()
    match [[side.size for side in tensor.tensor_shape.dim] for tensor in inputs]:
        case [[-1, 3, num_frames, height, width]] if min(num_frames, height, width) > 0:
            return -1, 3, num_frames, height, width
    return None


def read_saved_model(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Reads the variables of a SavedModel. Neither its graph nor any Python that it names is run.

    Returns:
        Names and values. For our exports, the official names of all weights, in the layout of TensorFlow. For others,
        the names at the time of saving, without `:0`, in the order of `tf.saved_model.load(folder).variables` if the
        saved object has that list, as Keras models do, otherwise breadth first from the root.

    Raises:
        InputError: if the folder is no SavedModel or is damaged.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    if not is_saved_model(folder):
        raise InputError(f"{folder} is no SavedModel, which has saved_model.pb and variables/variables.index")
    graph = _read_graph(folder)
    if not graph.HasField("object_graph_def"):
        raise InputError(f"{folder} was saved by TensorFlow 1; save it again with TensorFlow 2")
    try:
        with literal_folder(folder) as literal:
            reader = tf.train.load_checkpoint(str(literal / "variables" / "variables"))
            saved = TrackableObjectGraph.FromString(reader.get_tensor(_CHECKPOINT_OBJECTS))
            variables = _list_variables(graph.object_graph_def, saved)
            # Checked first, since reading allocates the claimed sizes.
            shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
            kinds = {dtypes[key] for _, key in variables}
            if not all(kind.is_floating or kind.is_integer for kind in kinds):
                raise InputError(
                    f"{folder} has variables of {', '.join(kind.name for kind in kinds)}; weights are numbers"
                )
            claimed = sum(math.prod(shapes[key]) * dtypes[key].size for key in {key for _, key in variables})
            present = sum(path.stat().st_size for path in (folder / "variables").glob("variables.data-*"))
            if claimed > present:
                raise InputError(
                    f"the variables of {folder} claim {claimed} bytes, and it holds {present}; it is damaged"
                )
            return [(name, reader.get_tensor(key)) for name, key in variables]
    except InputError:
        raise
    except (DecodeError, tf.errors.OpError, OSError, ValueError, LookupError, RuntimeError, MemoryError) as error:
        raise InputError(f"the SavedModel {folder} is damaged ({error}); copy it again or use another") from error


def _read_graph(folder: Path) -> Any:
    """Reads the first graph in `saved_model.pb`, with its signatures and objects."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = folder / "saved_model.pb"
    try:
        return SavedModel.FromString(path.read_bytes()).meta_graphs[0]
    except (DecodeError, OSError, LookupError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again or use another") from error


def _list_variables(objects: Any, saved: Any) -> list[tuple[str, str]]:
    """Lists the names of variables, and the keys of their values in the checkpoint of the SavedModel."""
    for graph in (objects, saved):  # a negative number would silently count from the end
        if any(not 0 <= child.node_id < len(graph.nodes) for node in graph.nodes for child in node.children):
            raise LookupError("an object refers to one that is not there")
    # Both graphs have the same attribute names but different node numbers: walk them together, breadth first.
    nodes, pairs, waiting = objects.nodes, {0: 0}, [0]
    for node in waiting:
        there = {child.local_name: child.node_id for child in saved.nodes[pairs[node]].children}
        for child in nodes[node].children:
            if child.local_name in there and child.node_id not in pairs:
                pairs[child.node_id] = there[child.local_name]
                waiting.append(child.node_id)
    # Our exports name all weights in a dict; Keras models list their variables; otherwise take all that were found.
    lists = {child.local_name: nodes[child.node_id] for child in nodes[0].children}
    if "weights" in lists and lists["weights"].user_object.identifier == "trackable_dict_wrapper":
        named = [(entry.local_name, entry.node_id) for entry in lists["weights"].children]
    elif "variables" in lists:
        entries = sorted(lists["variables"].children, key=lambda entry: int(entry.local_name))
        named = [(nodes[entry.node_id].variable.name, entry.node_id) for entry in entries]
    else:
        named = [(nodes[node].variable.name, node) for node in pairs if nodes[node].HasField("variable")]
    if not named:
        raise LookupError("it has no variables")
    keys = {}
    for _, node in named:
        values = [value for value in saved.nodes[pairs[node]].attributes if value.name == "VARIABLE_VALUE"]
        keys[node] = values[0].checkpoint_key
    return [(name, keys[node]) for name, node in named]
