"""Errors that a user can fix, and how they reach the terminal."""

import difflib
import errno
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple, TextIO

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_LOST = (errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)


class InputError(ValueError):
    """An error that the user can fix; it names the thing, the value and the way out."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class DecodeError(Exception):
    """A video that cannot be used: its fault in a word or two, e.g. "truncated", and what was found, if anything."""

    def __init__(self, path: str, cause: str, detail: str = "") -> None:
        super().__init__(path, cause, detail)
        self.path, self.cause, self.detail = path, cause, detail

    @property
    def reason(self) -> str:
        """Cause and detail, e.g. "truncated (77 of 164 frames are there)"."""
        return f"{self.cause} ({self.detail})" if self.detail else self.cause

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@contextmanager
def clean_errors() -> Iterator[None]:
    """Ends the program with a line on Ctrl-C, and with one paragraph on an `InputError`, a full disk or lack of memory.

    Other errors keep their traceback, below a line that calls them bugs. With `VSWIN_DEBUG=1` every error keeps it, and
    TensorFlow says what it finds on the machine. Behind `| head`, the program ends silently.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # Characters that the encoding lacks are escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    is_debugging = os.environ.get("VSWIN_DEBUG", "0") not in ("", "0")
    # Without standard error (2>&-) there is nothing to keep quiet.
    is_loud = is_debugging or os.name != "posix" or sys.stderr is None
    if not is_loud and "tensorflow" not in sys.modules and _QUIET not in sys.meta_path:
        sys.meta_path.insert(0, _QUIET)
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        drop_output()
        if is_debugging:
            raise
        is_term = isinstance(stop, _Terminated)
        print("\nended by SIGTERM" if is_term else "\ninterrupted", file=sys.stderr)
        # As shells report it: 128 + the signal's number.
        raise SystemExit(128 + (signal.SIGTERM if is_term else signal.SIGINT)) from None
    except Exception as error:
        from vswin.console import printable_lines

        text = _explain(error)
        if drop_output() and isinstance(error, BrokenPipeError):
            raise SystemExit(1) from None
        # An error may pass through several of these contexts.
        if text is None and not getattr(error, "is_called_bug", False):
            error.is_called_bug = True  # type: ignore[attr-defined]
            what = "error: vswin did not foresee this, which makes it a bug; please report it with everything below"
            print(what, "(CONTRIBUTING.md):", file=sys.stderr)
        if text is None or is_debugging:
            raise
        raise SystemExit(f"error: {printable_lines(text)}") from None


def end_on_sigterm() -> None:
    """Makes SIGTERM end the program inside `clean_errors` as Ctrl-C does, unless it was told to ignore the signal."""

    def end(number: int, frame: object) -> None:
        raise _Terminated

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, end)


class _QuietTensorFlow(MetaPathFinder):
    """Makes Python load TensorFlow by `_load_quietly`, whichever module imports it first."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(_load_quietly, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


_QUIET = _QuietTensorFlow()


def _load_quietly(load: Callable[[ModuleType], None], module: Any) -> None:
    """Loads TensorFlow and lists its devices; shows what it writes to standard error only if it fails or crashes."""
    # A process of its own keeps the text, and prints it even if this process crashes.
    command = ["/bin/sh", "-c", 'text=$(cat); [ -z "$text" ] || printf "%s\\n" "$text" >&2']
    # S603: fixed words.
    stderr, keeper = os.dup(2), subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603
    assert keeper.stdin is not None
    with keeper.stdin as pipe:
        os.dup2(pipe.fileno(), 2)
    try:
        load(module)
        # If TensorFlow cannot use a GPU of this machine, its text says why.
        if module.config.list_physical_devices("GPU") or not os.path.exists("/dev/nvidia0"):
            keeper.kill()
    except KeyboardInterrupt:
        keeper.kill()
        raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        keeper.wait()


def _explain(error: Exception) -> str | None:
    """Says what a user needs to know about an error; None for an unforeseen one."""
    if isinstance(error, InputError):
        return str(error)
    if is_out_of_memory(error):
        reason = str(error).partition("\n")[0]
        return f"not enough memory ({reason}); fewer or smaller clips need less, see clip in --help"
    fault = disk_fault(error)
    return None if fault is None else f"{error}; {fault.way_out}, then start again"


def drop_output(stream: TextIO | None = None) -> bool:
    """Tells whether a stream's reader is gone or its disk is full, and then redirects it to the null device.

    Otherwise, Python would complain at its exit.
    """
    stream = stream or sys.stdout
    try:
        stream.flush()
        output = stream.fileno()
        events = select.poll()
        events.register(output, select.POLLOUT)
        is_over = any(event & select.POLLERR for _, event in events.poll(0))
    except io.UnsupportedOperation:  # a test has replaced the stream
        return False
    except OSError:
        output, is_over = stream.fileno(), True
    if is_over:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return is_over


def nearest(name: str, choices: Sequence[str], otherwise: str = "see --help") -> str:
    """Suggests the choices closest to a name, e.g. "did you mean 'swin_base'? (choices: ...)", or gives `otherwise`."""
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    listed = f"(choices: {', '.join(choices)})" if len(choices) <= 12 else ""
    return (hint + listed).strip() or otherwise


class DiskFault(NamedTuple):
    """Why a file could not be written, in the system's words, and what a user can do about it."""

    reason: str
    way_out: str


def disk_fault(error: BaseException) -> DiskFault | None:
    """Finds out whether an error is about a disk; TensorFlow and HDF5 pass the reason on only as text."""
    for codes, way_out in ((_DISK_FULL, "make room"), (_DISK_LOST, "see to the disk")):
        for code in codes:
            if os.strerror(code) in str(error):
                return DiskFault(os.strerror(code), way_out)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error is about the memory of a device or of the machine."""
    # TensorFlow has one class for memory and disks; XLA and the CUDA libraries have their own texts.
    texts = ("OOM when allocating", "Out of memory", "out of memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
