"""What a PyTorch file may name, and what the reader makes of it: descriptions of tensors, and nothing else.

Source: the reductions of torch/_tensor.py, torch/_utils.py and torch/nn/parameter.py, and the persistent ids of
torch/serialization.py.
"""

from typing import Any

from vswin.weights.formats.raw_tensor import STORED_AS, MalformedError, RawTensor, Storage, is_count
from vswin.weights.formats.restricted_pickle import Global, Inert, RefusedGlobalError, Vocabulary

_MAX_AXES = 64
_STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "UntypedStorage": "untyped",
}
_ELEMENT_OF_STORAGE = {
    f"{module}.{name}": element
    for name, element in _STORAGES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
_METHODS_OF_HISTORY = ("min", "max", "mean", "current")
_HISTORY_BUFFER = "mmengine.logging.history_buffer.HistoryBuffer"

# Names in the parts of published and self-trained checkpoints that are passed over: settings, histories, metrics,
# states of optimizers and schedules. Nothing is imported or made for them.
_INERT = frozenset(
    {
        "_codecs.encode",
        "addict.addict.Dict",
        "argparse.Namespace",
        *(f"builtins.{name}" for name in ("bytearray", "complex", "dict", "float", "frozenset", "int", "list")),
        *(f"builtins.{name}" for name in ("set", "slice", "str", "tuple")),
        "collections.Counter",
        "collections.defaultdict",
        "collections.deque",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.config.ConfigDict",
        _HISTORY_BUFFER,
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        *(f"torch.{element}" for element in STORED_AS),
        "yacs.config.CfgNode",
        *_ELEMENT_OF_STORAGE,
    }
)


def _storage_of(persistent_id: Any) -> Storage:
    """Reads ("storage", type, key, device, numel), behind which the legacy format adds a view, None since 0.4."""
    if not isinstance(persistent_id, tuple) or len(persistent_id) not in (5, 6) or persistent_id[0] != "storage":
        raise MalformedError("its pickle refers to something that is not a storage of a tensor")
    _, kind, key, _, numel = persistent_id[:5]
    element = _ELEMENT_OF_STORAGE.get(kind.name) if isinstance(kind, Global) else None
    if element is None or not isinstance(key, str) or not is_count(numel):
        raise MalformedError("its pickle refers to a storage without type, key or size")
    if persistent_id[5:] not in ((), (None,)):
        raise MalformedError("it shares storages as PyTorch did before 0.4: load and save it with a newer one")
    return Storage(key, element, numel)


def _rebuild_tensor(args: tuple[Any, ...]) -> RawTensor:
    """Takes (storage, offset, shape, strides, ...); what follows is for gradients."""
    storage, offset, shape, strides = _first(args, 4)
    if not isinstance(storage, Storage) or storage.element == "untyped":
        raise MalformedError("its pickle rebuilds a tensor from something that is not a typed storage")
    return _raw_tensor(storage, storage.element, offset, shape, strides)


def _rebuild_tensor_v3(args: tuple[Any, ...]) -> RawTensor:
    """Takes (storage, offset, shape, strides, requires_grad, hooks, dtype, ...), the storage being bytes."""
    storage, offset, shape, strides, _, _, dtype = _first(args, 7)
    element = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if not isinstance(storage, Storage) or element not in STORED_AS:
        raise MalformedError("its pickle rebuilds a tensor of an unknown dtype")
    return _raw_tensor(storage, element, offset, shape, strides)


def _raw_tensor(storage: Storage, element: str, offset: Any, shape: Any, strides: Any) -> RawTensor:
    for axes in (shape, strides):
        if not isinstance(axes, tuple) or len(axes) > _MAX_AXES or not all(is_count(count) for count in axes):
            raise MalformedError("its pickle rebuilds a tensor with an impossible shape or strides")
    if not is_count(offset):
        raise MalformedError("its pickle rebuilds a tensor with an impossible offset")
    return RawTensor(storage, element, offset, shape, strides)


def _rebuild_parameter(args: tuple[Any, ...]) -> RawTensor:
    """Takes (tensor, requires_grad, hooks, ...)."""
    (tensor,) = _first(args, 1)
    if not isinstance(tensor, RawTensor):
        raise MalformedError("its pickle makes a parameter of something that is not a tensor")
    return tensor


def _rebuild_from_type(args: tuple[Any, ...]) -> RawTensor:
    """Takes (function, type, its arguments, attributes), as tensors with attributes are written."""
    function, _, inner_args, _ = _first(args, 4)
    rebuild = _REBUILD.get(function.name) if isinstance(function, Global) else None
    if rebuild is None or not isinstance(inner_args, tuple):
        raise MalformedError("its pickle rebuilds a tensor by something else than a rebuild function")
    return rebuild(inner_args)


def _ordered_dict(args: tuple[Any, ...]) -> dict[str, Any]:
    """Takes (), and from Python 2 ([[key, value], ...],)."""
    if not args:
        return {}
    pairs = args[0]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise MalformedError("its pickle makes an OrderedDict of something else than pairs")
    made = {key: value for key, value in pairs if isinstance(key, str)}
    # A pickle can call this over and over with the same list; emptied, that costs nothing.
    pairs.clear()
    return made


def _size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Takes (axes,)."""
    (axes,) = _first(args, 1)
    if not isinstance(axes, tuple):
        raise MalformedError("its pickle makes a torch.Size of something that is not a tuple")
    return axes


def _getattr(args: tuple[Any, ...]) -> Inert:
    """Stands for the four functions by which MMEngine's history buffers name their own methods, and no others."""
    if args in [(Global(_HISTORY_BUFFER), method) for method in _METHODS_OF_HISTORY]:
        return Inert()
    raise RefusedGlobalError("builtins.getattr")


def _first(args: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    if len(args) < count:
        raise MalformedError("its pickle rebuilds a tensor from too few arguments")
    return args[:count]


_REBUILD = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}

TORCH = Vocabulary(
    functions={
        **_REBUILD,
        "torch._tensor._rebuild_from_type": _rebuild_from_type,
        "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
        "torch.tensor._rebuild_from_type": _rebuild_from_type,
        "torch.tensor._rebuild_from_type_v2": _rebuild_from_type,
        "torch.Size": _size,
        "collections.OrderedDict": _ordered_dict,
        "builtins.getattr": _getattr,
    },
    inert=_INERT,
    storage_of=_storage_of,
)
