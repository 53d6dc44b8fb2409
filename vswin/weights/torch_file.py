"""Reads checkpoint files of PyTorch without PyTorch: only tensors come out, and no code in the file is run.

Arrays are views of the memory-mapped file, so opening costs milliseconds, and values take memory only when used.
Source: the reductions of torch/_tensor.py, torch/_utils.py and torch/nn/parameter.py, and the persistent ids of
    torch/serialization.py.
"""

import math
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from vswin.errors import InputError

# Keys under which training programs store the state dict, beside optimizer states and settings.
_STATE_DICT_KEYS = ("state_dict", "model", "model_state")
# First bytes of a .pth file that a download or a clone left without its content.
_IMPOSTORS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    b"<": "it is a web page, as the download did not reach the file",
}
_DAMAGES = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, MemoryError),
    *(TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError),
)

_DTYPES = {
    **{f"{kind}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128", "bool")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_STORAGES = {
    **{"Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Byte": "uint8", "Untyped": "uint8"},
    **{"Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "Double": "float64", "Bool": "bool"},
    **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
}
_DTYPE_OF_STORAGE = {
    f"{module}.{name}Storage": _DTYPES[dtype]
    for name, dtype in _STORAGES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}

# Globals in the ignored parts of published and self-trained checkpoints: settings, histories, metrics, states of
# optimizers and schedules. They are neither imported nor created.
_HISTORY_BUFFER = "mmengine.logging.history_buffer.HistoryBuffer"
_PASSED_OVER = """
builtins.bytearray builtins.complex builtins.dict builtins.float builtins.frozenset builtins.int builtins.list
builtins.set builtins.slice builtins.str builtins.tuple _codecs.encode argparse.Namespace
collections.Counter collections.defaultdict collections.deque
pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath
numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar numpy.dtype numpy.ndarray
torch.Tensor torch.device torch.nn.parameter.Parameter torch.serialization._get_layout
addict.addict.Dict mmcv.utils.config.ConfigDict mmengine.config.config.ConfigDict yacs.config.CfgNode
"""
_INERT = {*_PASSED_OVER.split(), _HISTORY_BUFFER, *_DTYPE_OF_STORAGE, *(f"torch.{name}" for name in _DTYPES)}
# Module names of other versions -> the names used here.
_MODULES_TODAY = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "pathlib._local": "pathlib",
    "torch.tensor": "torch._tensor",
}
# Opcodes that torch.save writes. Some others create objects of any class, or buffers of any size.
_OPCODES = b"NKMJGXUTCB)t]ae}sucRbQ(01qrhj.\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x93\x94\x95"

# swin_base with its optimizer state takes about 90,000 reads; a million take two seconds.
_MAX_READS = 1_000_000
_MAX_LINE_BYTES = 1_024
_MAX_ARGUMENTS = 16
# NumPy 1.26 stops at 32 axes.
_MAX_AXES = 32
_MAX_COUNT = 2**58
# Tensors may share bytes, as tied and expanded ones do, up to this many times the stored bytes, plus a little.
_MAX_SHARING = 4
# Members compressed by another tool may inflate to this many times the file, plus a little: weights shrink by a tenth.
_MAX_INFLATION = 10
_ALWAYS_ALLOWED = 2**20
# A directory of this size lists about 50,000 members; `zipfile` makes an object of half a kilobyte for each.
_MAX_DIRECTORY = 4 * 2**20
_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_BIG_ENDIAN = "its byte order is not little-endian: load and save it with PyTorch on an ordinary computer"


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a `.pth`, `.pt` or `.pyth` file, in the zip format or the one before PyTorch 1.6.

    The state dict is under `state_dict`, `model` or `model_state`, or is the whole object of the file. Everything else
    in the file is ignored. Do not change the file in place while the arrays are in use; replacing it is safe.

    Returns:
        Name -> values, in the order of the file. Read-only views of the file, which may be strided and share memory;
        bfloat16 becomes float32, other dtypes stay.

    Raises:
        InputError: if it is damaged or hostile, names globals that weights do not need, or has no tensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
            if not start:
                raise InputError("it is empty")
            for mark, what in _IMPOSTORS.items():
                if start.lstrip().startswith(mark):
                    raise InputError(what)
            buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            tensors, contents = _read_zip(file, buffer) if start.startswith(b"PK") else _read_legacy(buffer)
            return _view_tensors(tensors, contents)
    except _RefusedError as error:
        raise InputError(
            f"{path} wants the global {str(error)[:200]!r}, which weights do not need; nothing was run. Take the file "
            "from its publisher or, if you trust it, load it with PyTorch and save the state_dict of its model alone"
        ) from None
    except _DAMAGES as error:
        reason = str(error) if isinstance(error, InputError) else f"it is damaged ({type(error).__name__}: {error})"
        raise InputError(f"{path} cannot be read: {reason[:300]}; copy or download it again, or use another") from error


def _state_dict(payload: Any) -> dict[str, "_Tensor"]:
    """Finds the state dict and keeps the tensors in it."""
    if not isinstance(payload, dict):
        raise InputError("it holds no dict of tensors, but a single object: save the state_dict of the model")
    for candidate in (*(payload.get(key) for key in _STATE_DICT_KEYS), payload):
        items = candidate.items() if isinstance(candidate, dict) else ()
        tensors = {name: value for name, value in items if isinstance(value, _Tensor)}
        if tensors:
            return tensors
    keys = ", ".join(repr(key[:40]) for key in list(payload)[:5]) or "none"
    raise InputError(f"it has no tensors under {', '.join(_STATE_DICT_KEYS)} or at its top, whose keys are {keys}")


class _RefusedError(Exception):
    """The file names this global, which weights do not need."""


class _Inert:
    """An unused value; operations on it do nothing."""

    __slots__ = ()

    def _pass(self, *args: object) -> None: ...

    __init__ = __setitem__ = add = append = extend = _pass


class _Dict(dict[str, Any]):
    """Keeps only items with text keys: hashing the other keys that a pickle can make may take forever."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is str:
            super().__setitem__(key, value)


class _Global(NamedTuple):
    """A global that a pickle names: `module.name` in the spelling of Python 3 and NumPy 1."""

    name: str


class _Storage(NamedTuple):
    """A contiguous block of elements in a file."""

    key: str
    dtype: np.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class _Tensor(NamedTuple):
    """A tensor as a file describes it; offset, shape and strides in elements."""

    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Source:
    """Gives an unpickler exactly the bytes that it asks for, in a limited number of reads."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.position = 0
        self.reads_left = _MAX_READS

    def read(self, size: int) -> bytes:
        self.reads_left -= 1
        end = self.position + size
        if self.reads_left < 0:
            raise InputError("its pickle has far more operations than weights need")
        if end > len(self.buffer):
            raise EOFError("it breaks off")
        taken = bytes(self.buffer[self.position : end])
        self.position = end
        return taken

    def readline(self) -> bytes:
        upcoming = bytes(self.buffer[self.position : self.position + _MAX_LINE_BYTES])
        return self.read(upcoming.find(b"\n") + 1 or _MAX_LINE_BYTES)


class _Unpickler(pickle._Unpickler):
    """Builds plain data and tensor descriptions: imports nothing, calls only `_FUNCTIONS`, sets no attributes."""

    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, source: _Source) -> None:
        # Python 2 wrote arbitrary bytes as text.
        super().__init__(source, encoding="utf-8", errors="backslashreplace")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> _Global:
        """Admits a global by its name, or refuses the file."""
        full_name = f"{_MODULES_TODAY.get(module, module)}.{name}"
        if full_name not in _FUNCTIONS and full_name not in _INERT:
            raise _RefusedError(full_name)
        return _Global(full_name)

    def persistent_load(self, persistent_id: Any) -> _Storage:
        """Reads ("storage", type, key, device, numel); the legacy format appends a view, None since 0.4."""
        kind, storage_type, key, _, numel, *view = persistent_id
        if kind != "storage" or type(key) is not str or not _are_counts([numel]):
            raise InputError("its pickle refers to something that is not a storage of a tensor")
        if view not in ([], [None]):
            raise InputError("it shares storages as PyTorch did before 0.4: load and save it with a newer one")
        storage = _Storage(key, _DTYPE_OF_STORAGE[storage_type.name], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise InputError(f"it describes the storage {key[:200]!r} in two ways")
        return storage

    def load_call(self) -> None:
        """Replaces a global and its arguments by the result of our function."""
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(args) is not tuple:
            raise InputError("its pickle calls something that is not a global")
        self.append(_FUNCTIONS.get(function.name, _Inert)(*args[:_MAX_ARGUMENTS]))

    dispatch: ClassVar[dict[int, Callable[[Any], object]]] = {  # type: ignore[assignment]
        **{code: pickle._Unpickler.dispatch[code] for code in _OPCODES},
        **dict.fromkeys((pickle.REDUCE[0], pickle.NEWOBJ[0]), load_call),
        # Tensors need no sets, and no states of objects.
        pickle.BUILD[0]: lambda self: self.stack.pop(),
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Dict()),
        pickle.EMPTY_SET[0]: lambda self: self.append(_Inert()),
        pickle.FROZENSET[0]: lambda self: (self.pop_mark(), self.append(_Inert())),
        pickle.FRAME[0]: lambda self: self.read(8),
    }


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """Takes the arguments of three versions; the last one names a dtype after two others."""
    dtype = _DTYPES[rest[2].name.removeprefix("torch.")] if rest[2:] and type(rest[2]) is _Global else storage.dtype
    is_sound = type(storage) is _Storage and type(shape) is type(strides) is tuple and len(shape) == len(strides)
    if not is_sound or len(shape) > _MAX_AXES or not _are_counts([offset, *shape, *strides]):
        raise InputError("its pickle rebuilds a tensor of an impossible shape, stride or offset")
    return _Tensor(storage, dtype, offset, shape, strides)


def _rebuild_from_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    """Takes (function, type, arguments of the function, attributes), the form of tensors with attributes."""
    return _REBUILD[function.name](*args[:_MAX_ARGUMENTS])


def _ordered_dict(pairs: Any = ()) -> _Dict:
    """Takes no argument, or from Python 2 one list of [key, value]."""
    made = _Dict()
    for key, value in pairs:
        made[key] = value
    if pairs:
        pairs.clear()  # a pickle can call this again and again with the same list; an empty one costs nothing
    return made


def _getattr(*args: Any) -> _Inert:
    """Accepts only the four calls by which MMEngine's history buffers name their own methods."""
    if args in [(_Global(_HISTORY_BUFFER), method) for method in ("min", "max", "mean", "current")]:
        return _Inert()
    raise _RefusedError("builtins.getattr")


def _are_counts(values: list[Any]) -> bool:
    return all(type(value) is int and 0 <= value < _MAX_COUNT for value in values)


_REBUILD: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_REBUILD,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda axes: axes,
    "collections.OrderedDict": _ordered_dict,
    "builtins.getattr": _getattr,
}


def _read_zip(file: BinaryIO, buffer: memoryview) -> tuple[dict[str, _Tensor], dict[str, memoryview]]:
    """Reads a file of version 1.6 or later, a zip archive: the tensors, and the bytes of their storages by key."""
    directory = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if directory and directory[zipfile._ECD_SIZE] > _MAX_DIRECTORY:  # type: ignore[attr-defined]
        raise InputError("its zip archive has a directory far larger than weights need")
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    inflated = sum(info.file_size for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED)
    if len(set(names)) < len(names):
        raise InputError("its zip archive has two members of one name")
    if inflated > _MAX_INFLATION * len(buffer) + _ALWAYS_ALLOWED:
        raise InputError(f"its {len(buffer)} bytes would inflate to {inflated}, over {_MAX_INFLATION} times as many")
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise InputError(
            f"it is a zip archive with {len(found)} members called data.pkl instead of one; unpack SavedModels"
        )
    prefix = found[0].removesuffix("data.pkl")
    if prefix + "constants.pkl" in names:
        raise InputError("it is a TorchScript program, not a checkpoint: save the state_dict of the model")
    if prefix + "byteorder" in names and _read_member(archive, prefix + "byteorder", buffer) != b"little":
        raise InputError(_BIG_ENDIAN)
    tensors = _state_dict(_Unpickler(_Source(_read_member(archive, found[0], buffer))).load())
    keys = {tensor.storage.key for tensor in tensors.values()}
    return tensors, {key: _read_member(archive, f"{prefix}data/{key}", buffer) for key in keys}


def _read_member(archive: zipfile.ZipFile, name: str, buffer: memoryview) -> memoryview:
    """Gives the bytes of a member, as a view of the file unless they are compressed."""
    if name not in archive.NameToInfo:
        raise InputError(f"it has no member {name[:200]!r} for one of its tensors")
    info = archive.getinfo(name)
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"its member {name[:200]!r} is encrypted or compressed in an unusual way")
    with archive.open(info) as member:  # it checks the local header
        if info.compress_type == zipfile.ZIP_DEFLATED:
            return memoryview(member.read(info.file_size))
    lengths = struct.unpack_from("<HH", buffer, info.header_offset + 26)
    start = info.header_offset + 30 + sum(lengths)
    return buffer[start : start + info.file_size]


def _read_legacy(buffer: memoryview) -> tuple[dict[str, _Tensor], dict[str, memoryview]]:
    """Reads a file from before version 1.6: five pickles, then the storages, each after its number of elements."""
    if buffer[0] != pickle.PROTO[0]:
        raise InputError("it is not a file of weights: no format that is known begins as it does")
    source = _Source(buffer)
    if _Unpickler(source).load() != _MAGIC_NUMBER or _Unpickler(source).load() != _PROTOCOL:
        raise InputError("it is a pickle, but not one of torch.save")
    if _Unpickler(source).load().get("little_endian") is not True:
        raise InputError(_BIG_ENDIAN)
    unpickler = _Unpickler(source)
    payload, keys = unpickler.load(), _Unpickler(source).load()
    contents: dict[str, memoryview] = {}
    position = source.position
    if not all(type(key) is str for key in keys):
        raise InputError("its list of storages is damaged")
    for key in keys:
        storage = unpickler.storages.pop(key)
        (numel,) = struct.unpack_from("<q", buffer, position)
        start, position = position + 8, position + 8 + storage.nbytes
        if numel != storage.numel:
            raise InputError(f"its storage {key[:200]!r} has {numel} elements instead of {storage.numel}")
        contents[key] = buffer[start:position]
    return _state_dict(payload), contents


def _view_tensors(tensors: dict[str, _Tensor], contents: dict[str, memoryview]) -> dict[str, np.ndarray]:
    """Makes views of storages (copies for bfloat16 and bool); none may reach outside its storage."""
    "".join(tensors).encode()  # fails on lone surrogates, which no terminal or file can take
    flats: dict[_Storage, np.ndarray] = {}
    for storage in {tensor.storage for tensor in tensors.values()}:
        content = contents[storage.key][: storage.nbytes]
        if len(content) < storage.nbytes:
            raise InputError(f"its storage {storage.key[:200]!r} has {len(content)} bytes instead of {storage.nbytes}")
        flats[storage] = np.frombuffer(content, np.uint8)
    # Tensors may repeat a few bytes so often that a copy of them fills the memory.
    stored, total = sum(map(len, flats.values())), 0
    for _, dtype, _, shape, _ in tensors.values():
        total += math.prod(shape) * (4 if dtype == _DTYPES["bfloat16"] else dtype.itemsize)
    if total > _MAX_SHARING * stored + _ALWAYS_ALLOWED:
        raise InputError(f"its tensors unfold {stored} stored bytes to {total}, over {_MAX_SHARING} times as many")
    arrays = {}
    for name, (storage, dtype, offset, shape, strides) in tensors.items():
        flat = flats[storage]
        flat = flat[: len(flat) // dtype.itemsize * dtype.itemsize].view(np.uint8 if dtype.kind == "b" else dtype)
        # The stride of an axis with one element is never used; PyTorch may write anything there.
        steps = [stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True)]
        last = offset + sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
        if 0 in shape:
            array = np.zeros(shape, dtype)
        elif last < len(flat):
            steps = [step * dtype.itemsize for step in steps]
            array = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)
        else:
            raise InputError(f"tensor {name[:200]!r} reaches element {last} of a storage that has {len(flat)}")
        copied_as = {_DTYPES["bfloat16"]: np.float32, _DTYPES["bool"]: bool}.get(dtype)
        arrays[name] = array.astype(copied_as) if copied_as else array
    return arrays
