"""A reader of pickles that builds plain data and cannot run anything.

Python's own unpickler calls what a file names. This one is a small machine over the opcodes that `torch.save`
writes: it imports nothing, calls nothing but the functions its caller gives it under admitted names, and sets no
attribute of anything. Used by the readers of PyTorch files.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vswin.weights.formats.raw_tensor import MalformedError

# swin_base with its optimizer state needs about 45,000 operations; half a million take less than a second.
_MAX_OPERATIONS = 500_000
# Longer texts are no names of tensors, and longer integers no sizes: they are passed over.
_MAX_TEXT_BYTES = 65_536
_MAX_INTEGER_BYTES = 64
_MAX_NAME_BYTES = 1_024
_STOP = ord(".")
_INST = ord("i")
_BYTE, _UINT16, _UINT32, _UINT64 = (struct.Struct(layout) for layout in ("<B", "<H", "<I", "<Q"))
_INT32, _FLOAT64 = struct.Struct("<i"), struct.Struct(">d")


class RefusedGlobalError(MalformedError):
    """Says which global a file names that weights do not need."""


class Inert:
    """A value that nobody needs; operations on it do nothing."""

    __slots__ = ()


@dataclass(frozen=True)
class Global:
    """A global that a pickle names. It stands for its name alone.

    Args:
        name: module and qualified name, joined by a dot, in the spelling of Python 3 and NumPy 1.
    """

    name: str


@dataclass(frozen=True)
class Vocabulary:
    """What a pickle may name.

    Args:
        functions: name -> our function of the tuple of arguments, whose result stands for the object.
        inert: names of which nothing is needed: whatever is made of them is `Inert`.
        storage_of: our function that turns a persistent id into a value.
    """

    functions: Mapping[str, Callable[[tuple[Any, ...]], Any]]
    inert: frozenset[str]
    storage_of: Callable[[Any], Any]


def unpickle(buffer: memoryview, start: int, vocabulary: Vocabulary) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
        buffer: bytes that hold it.
        start: where it starts.
        vocabulary: what it may name.

    Returns:
        The object, of None, bool, int, float, str, list, tuple, dict with the items under str keys, `Global`,
        `Inert` and what the functions of the vocabulary return; and the position behind the pickle.

    Raises:
        RefusedGlobalError: if it names another global; nothing was run.
        MalformedError: if it is damaged, too large, or no pickle that `torch.save` could have written.
    """
    machine = _Machine(buffer, start, vocabulary)
    try:
        return machine.run(), machine.position
    except (IndexError, KeyError, struct.error) as error:
        raise MalformedError(f"its pickle breaks off or is damaged near byte {machine.position}") from error


class _Machine:
    """The stack machine of the pickle format.

    Items above the last mark stand in `stack`, those below in `outer`, one list per mark. So an operation that
    wants more items than stand above the mark fails.
    """

    def __init__(self, buffer: memoryview, start: int, vocabulary: Vocabulary) -> None:
        self.buffer = buffer
        self.position = start
        self.vocabulary = vocabulary
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Runs up to the STOP and returns the object left on the stack."""
        for _ in range(_MAX_OPERATIONS):
            opcode = self.buffer[self.position]
            self.position += 1
            if opcode == _STOP:
                return self.stack.pop()
            if opcode not in _OPERATIONS:
                self.refuse_opcode(opcode)
            _OPERATIONS[opcode](self)
        raise MalformedError(f"its pickle has over {_MAX_OPERATIONS} operations, far more than weights need")

    def push(self, item: Any) -> None:
        """Puts an item on the stack of the moment."""
        self.stack.append(item)

    def take(self, count: int) -> memoryview:
        """Reads `count` bytes."""
        end = self.position + count
        if count < 0 or end > len(self.buffer):
            raise IndexError
        taken = self.buffer[self.position : end]
        self.position = end
        return taken

    def number(self, layout: struct.Struct) -> Any:
        """Reads a number."""
        (value,) = layout.unpack_from(self.buffer, self.position)
        self.position += layout.size
        return value

    def line(self) -> str:
        """Reads text up to the next newline."""
        upcoming = bytes(self.buffer[self.position : self.position + _MAX_NAME_BYTES])
        return _text(self.take(upcoming.find(b"\n") + 1 or -1)[:-1])

    def pop_mark(self) -> list[Any]:
        """Takes the items above the last mark, and the mark."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def refuse_opcode(self, opcode: int) -> None:
        """Raises for an opcode that no file of tensors contains, naming the global if it carries one."""
        if opcode == _INST:
            raise RefusedGlobalError(f"{self.line()}.{self.line()}")
        name = next((known.name for known in pickletools.opcodes if ord(known.code) == opcode), f"0x{opcode:02x}")
        raise MalformedError(f"its pickle has the opcode {name}, which torch.save never writes")

    def push_text(self, layout: struct.Struct) -> None:
        """Pushes text whose length comes first."""
        raw = self.take(self.number(layout))
        self.push(_text(raw) if len(raw) <= _MAX_TEXT_BYTES else Inert())

    def push_bytes(self, layout: struct.Struct) -> None:
        """Passes over bytes whose length comes first."""
        self.take(self.number(layout))
        self.push(Inert())

    def push_integer(self, layout: struct.Struct) -> None:
        """Pushes an integer of any size, whose length comes first."""
        raw = self.take(self.number(layout))
        self.push(int.from_bytes(raw, "little", signed=True) if len(raw) <= _MAX_INTEGER_BYTES else Inert())

    def push_global(self, module: Any, name: Any) -> None:
        """Pushes an admitted global, or refuses the file."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise MalformedError("its pickle names a global by something else than text")
        full_name = f"{_MODULES_TODAY.get(module, module)}.{name}"
        if full_name not in self.vocabulary.functions and full_name not in self.vocabulary.inert:
            raise RefusedGlobalError(full_name)
        self.push(Global(full_name))

    def push_stack_global(self) -> None:
        """Pushes the global whose module and name are on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.push_global(module, name)

    def push_tuple(self, count: int) -> None:
        """Wraps the last `count` items."""
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def call(self) -> None:
        """Replaces a global and its arguments by what the vocabulary makes of them."""
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise MalformedError("its pickle calls something that is not a global")
        known = self.vocabulary.functions.get(function.name)
        self.push(Inert() if known is None else known(args))

    def build(self) -> None:
        """Passes over the state of an object: of dicts, arrays and tensors nothing in it is needed."""
        self.stack.pop()
        if isinstance(self.stack[-1], Global | list | tuple | str | int | float | None):
            raise MalformedError("its pickle sets the state of something that has none")

    def append_items(self, items: list[Any]) -> None:
        """Appends to the list below."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], Inert):
            raise MalformedError("its pickle appends to something that is not a list")

    def set_items(self, items: list[Any]) -> None:
        """Fills the dict below. No tensor has a name that is not text, so other keys are passed over."""
        if len(items) % 2:
            raise MalformedError("its pickle has a key without a value")
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, str))
        elif not isinstance(self.stack[-1], Inert):
            raise MalformedError("its pickle sets an item of something that is not a dict")

    def set_item(self) -> None:
        """Puts the last two items into the dict below them."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def open_mark(self) -> None:
        """Sets a mark."""
        self.outer.append(self.stack)
        self.stack = []

    def remember(self, key: int) -> None:
        """Puts the last item into the memo."""
        self.memo[key] = self.stack[-1]


def _text(raw: memoryview) -> str:
    """Decodes text, and never fails: Python 2 wrote bytes of any kind as text."""
    return str(raw, "utf-8", "backslashreplace")


# Modules by older and newer names.
_MODULES_TODAY = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "pathlib._local": "pathlib",
}

_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    # Values.
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.number(_BYTE)),
    ord("M"): lambda m: m.push(m.number(_UINT16)),
    ord("J"): lambda m: m.push(m.number(_INT32)),
    ord("G"): lambda m: m.push(m.number(_FLOAT64)),
    0x8A: lambda m: m.push_integer(_BYTE),
    0x8B: lambda m: m.push_integer(_INT32),
    0x8C: lambda m: m.push_text(_BYTE),
    ord("X"): lambda m: m.push_text(_UINT32),
    0x8D: lambda m: m.push_text(_UINT64),
    ord("U"): lambda m: m.push_text(_BYTE),  # Python 2
    ord("T"): lambda m: m.push_text(_INT32),  # Python 2
    ord("C"): lambda m: m.push_bytes(_BYTE),
    ord("B"): lambda m: m.push_bytes(_UINT32),
    0x8E: lambda m: m.push_bytes(_UINT64),
    0x96: lambda m: m.push_bytes(_UINT64),
    # Containers.
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append_items([m.stack.pop()]),
    ord("e"): lambda m: m.append_items(m.pop_mark()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_item(),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    0x8F: lambda m: m.push(Inert()),
    0x90: lambda m: m.append_items(m.pop_mark()),
    0x91: lambda m: m.push(tuple(m.pop_mark())),  # a frozenset, whose like no tensor needs
    # Objects.
    ord("c"): lambda m: m.push_global(m.line(), m.line()),
    0x93: lambda m: m.push_stack_global(),
    ord("R"): lambda m: m.call(),
    0x81: lambda m: m.call(),
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.push(m.vocabulary.storage_of(m.stack.pop())),
    # The machine itself.
    ord("("): lambda m: m.open_mark(),
    ord("0"): lambda m: m.stack.pop(),
    ord("1"): lambda m: m.pop_mark(),
    ord("q"): lambda m: m.remember(m.number(_BYTE)),
    ord("r"): lambda m: m.remember(m.number(_UINT32)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.push(m.memo[m.number(_BYTE)]),
    ord("j"): lambda m: m.push(m.memo[m.number(_UINT32)]),
    0x80: lambda m: m.take(1),
    0x95: lambda m: m.take(8),
}
