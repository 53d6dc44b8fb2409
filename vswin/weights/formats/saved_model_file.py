"""SavedModel folders: their variables, in order. Neither their graph nor any Python they name is run.

Of `saved_model.pb` only the object graph and the signatures are read: the rest, where a port of Video Swin keeps
200 MB of attention masks, is stepped over.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vswin.atomic import literal_folder
from vswin.errors import InputError

# Numbers of protocol buffer fields, from tensorflow/core/protobuf/{saved_model,meta_graph}.proto.
_META_GRAPHS = 2
_SIGNATURES = 5
_OBJECT_GRAPH = 7

# Where a checkpoint says which of its tensors belongs to which object.
_CHECKPOINT_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


def is_saved_model(folder: Path) -> bool:
    """Says whether a folder has the files of a SavedModel."""
    return (folder / "saved_model.pb").is_file() and (folder / "variables" / "variables.index").is_file()


def read_saved_model(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Reads the variables of a SavedModel.

    Args:
        folder: holds `saved_model.pb` and `variables/`.

    Returns:
        Names and values. Of an export of ours, the official names of all weights, in the layout of TensorFlow. Of
        others, names as they were when it was saved, without `:0`; in the order of
        `tf.saved_model.load(folder).variables` where the saved object has that list, as Keras models do, otherwise
        breadth first from the root.

    Raises:
        InputError: if the folder is no SavedModel or is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow import errors
    from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObjectGraph

    if not is_saved_model(folder):
        raise InputError(
            f"{folder} is not a SavedModel: it needs saved_model.pb and variables/variables.index; give the folder "
            "that holds them"
        )
    try:
        objects = SavedObjectGraph.FromString(_read_object_graph(folder / "saved_model.pb"))
        return _read_variables(folder, objects)
    except InputError:
        raise
    except (DecodeError, errors.OpError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise InputError(f"the SavedModel {folder} is damaged ({error}); copy it again or use another") from error


def read_input_shape(folder: Path) -> tuple[int, int, int, int, int] | None:
    """Reads for which clips a SavedModel in the layout of the TF-Hub collection was made.

    Args:
        folder: holds `saved_model.pb`.

    Returns:
        (-1, 3, T, H, W), the shape of the only input of `serving_default`; None where that is another one.

    Raises:
        InputError: if the file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    path = folder / "saved_model.pb"
    try:
        # An entry of a map is read by itself, as the map of an otherwise empty message.
        signatures = MetaGraphDef()
        for entry in _read_fields(path, _SIGNATURES):
            signatures.MergeFromString(b"".join([bytes([_SIGNATURES << 3 | 2]), _write_varint(len(entry)), entry]))
        inputs = list(signatures.signature_def["serving_default"].inputs.values())
        sides = [[side.size for side in tensor.tensor_shape.dim] for tensor in inputs]
    except (DecodeError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again or use another") from error
    match sides:
        case [[-1, 3, num_frames, height, width]] if min(num_frames, height, width) > 0:
            return -1, 3, num_frames, height, width
    return None


def _read_object_graph(path: Path) -> bytes:
    """Cuts the serialised object graph out of a saved_model.pb."""
    for content in _read_fields(path, _OBJECT_GRAPH):
        return content
    raise InputError(f"{path} has no object graph: it was saved by TensorFlow 1; save it again with TensorFlow 2")


def _read_fields(path: Path, wanted: int) -> Iterator[bytes]:
    """Cuts the fields of a number out of the meta graphs of a saved_model.pb."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, start, stop in _walk_fields(content, 0, len(content)):
            if number != _META_GRAPHS:
                continue
            for inner, inner_start, inner_stop in _walk_fields(content, start, stop):
                if inner == wanted:
                    yield content[inner_start:inner_stop]


def _write_varint(value: int) -> bytes:
    """Writes a number as a protocol buffer does, seven bits a byte, the lowest first."""
    written = []
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _walk_fields(content: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Steps through the fields of a protocol buffer message, yielding number, first byte and past the last byte."""
    at = start
    while at < stop:
        tag, at = _read_varint(content, at)
        number, wire_type = tag >> 3, tag & 7
        first = at
        if wire_type == 0:
            _, at = _read_varint(content, at)
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        elif wire_type == 2:
            length, first = _read_varint(content, at)
            at = first + length
        else:
            raise ValueError(f"byte {first} of saved_model.pb cannot be read")
        if at > stop:
            raise ValueError("saved_model.pb is cut off")
        yield number, first, at


def _read_varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """Reads a number of up to 64 bits; returns it and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at} of saved_model.pb cannot be read")


def _read_variables(folder: Path, objects: Any) -> list[tuple[str, np.ndarray]]:
    """Reads the values of all variables of an object graph from the checkpoint beside it."""
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    with literal_folder(folder) as literal:
        reader = tf.train.load_checkpoint(str(literal / "variables" / "variables"))
        saved = TrackableObjectGraph.FromString(reader.get_tensor(_CHECKPOINT_OBJECTS))
        _check_references(objects)
        _check_references(saved)
        places = _pair_nodes(objects, saved)
        keys = []
        for name, node in _list_variables(objects):
            attributes = [a for a in saved.nodes[places[node]].attributes if a.name == "VARIABLE_VALUE"]
            keys.append((name, attributes[0].checkpoint_key))
        _check_sizes(folder, reader, [key for _, key in keys])
        return [(name, reader.get_tensor(key)) for name, key in keys]


def _check_references(graph: Any) -> None:
    """Checks that objects refer to objects of their graph; a negative number would quietly count from the end."""
    for node in graph.nodes:
        if any(not 0 <= child.node_id < len(graph.nodes) for child in node.children):
            raise LookupError("an object refers to one that is not there")


def _pair_nodes(objects: Any, saved: Any) -> dict[int, int]:
    """Maps the nodes of an object graph to those of its checkpoint, walking both along the same attribute names."""
    pairs = {0: 0}
    waiting = [0]
    for node in waiting:
        places = {child.local_name: child.node_id for child in saved.nodes[pairs[node]].children}
        for child in objects.nodes[node].children:
            if child.local_name in places and child.node_id not in pairs:
                pairs[child.node_id] = places[child.local_name]
                waiting.append(child.node_id)
    return pairs


def _list_variables(objects: Any) -> list[tuple[str, int]]:
    """Lists names and nodes of the variables: those of a list of the root, else all within reach of the root."""
    roots = {child.local_name: objects.nodes[child.node_id] for child in objects.nodes[0].children}
    if "weights" in roots and roots["weights"].user_object.identifier == "trackable_dict_wrapper":
        return [(entry.local_name, entry.node_id) for entry in roots["weights"].children]
    if "variables" in roots:
        entries = sorted(roots["variables"].children, key=lambda entry: int(entry.local_name))
        nodes = [entry.node_id for entry in entries]
    else:
        nodes = [node for node in _reachable(objects) if objects.nodes[node].HasField("variable")]
    return [(objects.nodes[node].variable.name, node) for node in nodes]


def _reachable(objects: Any) -> list[int]:
    """Lists the nodes that hang on the root, breadth first."""
    reached = {0: None}
    waiting = [0]
    for node in waiting:
        new = [child.node_id for child in objects.nodes[node].children if child.node_id not in reached]
        reached.update(dict.fromkeys(new))
        waiting.extend(dict.fromkeys(new))
    return list(reached)


def _check_sizes(folder: Path, reader: Any, keys: list[str]) -> None:
    """Refuses tensors that are no numbers, or claim more bytes than the files have; reading would allocate those."""
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    claimed = 0
    for key in set(keys):
        if not (dtypes[key].is_floating or dtypes[key].is_integer):
            raise InputError(f"{folder}: variable {key} is {dtypes[key].name}; weights are numbers")
        elements = 1
        for extent in shapes[key]:
            elements *= extent
        claimed += elements * dtypes[key].size
    present = sum(path.stat().st_size for path in (folder / "variables").glob("variables.data-*"))
    if claimed > present:
        raise InputError(
            f"{folder}: its variables claim {claimed} bytes, but variables/ holds {present}; the SavedModel is damaged"
        )
