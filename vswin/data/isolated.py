"""Decode in separate processes, so that a decoder that crashes or hangs costs one clip and not the run.

Each process has its own pipe. In a pool of pebble 5.2, all processes share one pipe, and a process that is killed while
it sends a clip (when memory runs out) blocks the others; `concurrent.futures` then gives up its whole pool.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import Pipe, parent_process, resource_tracker
from multiprocessing.context import SpawnProcess
from operator import methodcaller
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vswin.data.decode import FrameReader, Prepare, VideoStore
from vswin.data.samples import WHOLE, Part
from vswin.errors import DecodeError, InputError

T = TypeVar("T")

# Clips without a time limit may be slow, but a decoder that hangs must not hang the run.
LONGEST_SILENCE_SEC = 600.0
# A slow decoder checks its limit itself, between two frames, and its process survives.
_GRACE_SEC = 1.0
_START_SEC = 120.0
_REAP_SEC = 5.0
# Much more than a clip of 8K frames needs; some files make a decoder use all memory.
_MOST_BYTES = 8 << 30
_starting = threading.Lock()


class IsolatedVideos:
    """Opens the videos of another store in separate processes; see `VideoStore`.

    There are as many processes as threads that decode at the same time. They import neither TensorFlow nor the main
    program. They end with this object, or when this process ends for any reason.
    """

    def __init__(self, store: VideoStore) -> None:
        """Starts the first process, so that problems show at once; `store` is pickled.

        Raises:
            InputError: If processes cannot be started, or the system does not support them.
        """
        self._store = store
        self._lock = threading.Lock()
        self._decoders: set[_Decoder] = set()
        self._idle: list[_Decoder] = []
        self.is_open = True
        if os.name != "posix":
            raise InputError("dataset.isolate=true: this needs Linux or macOS; set dataset.isolate=false")
        # Runs before the exit waits for the decoding threads, so that they need not wait for their processes.
        atexit.register(_close, weakref.ref(self))
        self.give_back(self.borrow(""))

    def open(
        self, path: str, decoder: str = "auto", timeout_sec: float | None = None, part: Part = WHOLE
    ) -> IsolatedReader:
        """Opens a part of a video; without a time limit, opening and each `read` may take ten minutes.

        A `DecodeError` has the cause "decoder crashed" if the process ends, and "too slow" if the decoder hangs.
        """
        return IsolatedReader(self, path, decoder, timeout_sec, part)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Identifies a video as the wrapped store does."""
        return self._store.identify(path)

    def close(self) -> None:
        """Ends the processes; open videos, and videos opened later, raise a `DecodeError`."""
        with self._lock:
            self.is_open = False
            for decoder in self._decoders:
                decoder.kill()
            idle, self._idle = self._idle, []
        for decoder in idle:
            self.discard(decoder)

    __del__ = close

    def borrow(self, path: str) -> _Decoder:
        """Lends a process for a video, a new one if all are in use; the caller gives it back or discards it."""
        while True:
            with self._lock:
                if not self.is_open:
                    raise DecodeError(path, "interrupted", "the program ends")
                decoder = self._idle.pop() if self._idle else None
            if decoder is None:
                decoder = _Decoder(self._store)
                with self._lock:
                    self._decoders.add(decoder)
                    if not self.is_open:
                        decoder.kill()
            if decoder.is_alive():
                return decoder
            self.discard(decoder)  # killed from outside while it was idle

    def give_back(self, decoder: _Decoder) -> None:
        """Takes back a process that is ready for the next video."""
        with self._lock:
            if self.is_open:
                self._idle.append(decoder)
                return
        self.discard(decoder)

    def discard(self, decoder: _Decoder, seconds: float = 0) -> str:
        """Ends a process, see `_Decoder.end`."""
        with self._lock:
            self._decoders.discard(decoder)
        return decoder.end(seconds)


class IsolatedReader(FrameReader):
    """Reads frames of a video that is open in another process.

    `prepare` and whole jobs are pickled and run in that process, so only frames of the final size are sent back.
    """

    def __init__(self, videos: IsolatedVideos, path: str, decoder: str, timeout_sec: float | None, part: Part) -> None:
        """Borrows a process that opens the video; all methods raise errors as `IsolatedVideos.open` does."""
        self.path = path
        self._videos = videos  # ends the processes when it is garbage collected
        self._timeout_sec = timeout_sec
        self._start = time.monotonic()
        self._decoder: _Decoder | None = videos.borrow(path)
        try:
            self._ask((path, decoder, timeout_sec, part))
        except BaseException:
            self._release()
            raise

    def run(self, job: Callable[[FrameReader], T]) -> T:
        """Runs a job in the other process and returns its result."""
        return self._ask(job)

    def read(self, frame_numbers: np.ndarray, prepare: Prepare, may_skip: bool = False) -> np.ndarray:
        """Reads frames, see `VideoReader.read`."""
        return self._ask(methodcaller("read", frame_numbers, prepare, may_skip))

    def read_times(self) -> np.ndarray:
        """Returns the display times of the frames, see `VideoReader.read_times`."""
        return self._ask(methodcaller("read_times"))

    def close(self) -> None:
        """Closes the video; ignores a crash at this point, because the work is done."""
        with suppress(DecodeError):
            self._ask(None)
        self._release()

    def _release(self) -> None:
        if self._decoder is not None:
            self._videos.give_back(self._decoder)
            self._decoder = None

    def _ask(self, request: Any) -> Any:
        """Sends a request, see `_Decoder.run`, and returns its result."""
        if self._decoder is None:
            raise DecodeError(self.path, "decoder crashed", "earlier")
        start, limit_sec = self._start, self._timeout_sec
        if limit_sec is None:
            start, limit_sec = time.monotonic(), LONGEST_SILENCE_SEC
        try:
            facts, result = self._decoder.ask(request, start + limit_sec + _GRACE_SEC)
        except (DecodeError, InputError):
            raise
        except BaseException as error:  # Ctrl-C also leaves an unread reply in the pipe
            has_ended = isinstance(error, OSError | EOFError) and not isinstance(error, TimeoutError)
            decoder, self._decoder = self._decoder, None
            end = self._videos.discard(decoder, _REAP_SEC if has_ended else 0)
            if isinstance(error, TimeoutError):
                detail = f"not read within {limit_sec:g} s, its decoder was ended"
                raise DecodeError(self.path, "too slow", detail) from None
            if not has_ended:
                raise
            if not self._videos.is_open:
                raise DecodeError(self.path, "interrupted", "the program ends") from None
            raise DecodeError(self.path, "decoder crashed", end) from None
        self.num_video_frames, self.frame_rate, self.decoder, self.repeats, self.frame_size = facts
        return result


class _Shape(NamedTuple):
    """Stands for pixels in a reply; their bytes follow."""

    shape: tuple[int, ...]


class _Decoder(SpawnProcess):
    """A decoding process and the pipe to it; it serves one thread and one video at a time."""

    def __init__(self, store: VideoStore) -> None:
        """Starts the process and waits until it is ready; raises an `InputError` if it does not start."""
        super().__init__(daemon=True)
        self._store = store
        ours, self._pipe = Pipe()
        resource_tracker.ensure_running()  # must run before the signals are blocked: it unblocks them
        try:
            # The process starts without the main program, which would import TensorFlow. It blocks the signals that
            # the run handles; the run ends its processes after the current clips.
            with self._pipe, _starting:
                main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
                blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
                try:
                    self.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                    sys.modules["__main__"] = main
            self._pipe = ours
            self._wait(time.monotonic() + _START_SEC)
            ours.recv()
        except (OSError, EOFError):
            raise InputError(
                f"dataset.isolate=true: a decoding process did not start ({self.end(_REAP_SEC)})"
            ) from None

    def ask(self, request: Any, deadline: float) -> tuple[tuple[Any, ...], Any]:
        """Returns the open video's facts and the request's result, or raises its `DecodeError` or `InputError`.

        Other errors make the process unusable: it has ended (OSError, EOFError), or has not replied by the deadline of
        `time.monotonic` (TimeoutError).
        """
        self._pipe.send(request)
        self._wait(deadline)
        reply = self._pipe.recv()
        if isinstance(reply, Exception):
            raise reply
        facts, kind, parts = reply
        for position, part in enumerate(parts):
            if isinstance(part, _Shape):
                parts[position] = pixels = np.empty(part.shape, np.uint8)
                left = pixels.data.cast("B")
                while len(left) > 0:
                    self._wait(deadline)
                    num_bytes = os.readv(self._pipe.fileno(), [left])
                    if num_bytes == 0:
                        raise EOFError
                    left = left[num_bytes:]
        return facts, parts[0] if kind is None else kind(*parts)

    def _reply(self, facts: tuple[Any, ...], result: Any) -> None:
        """Sends a result; its pixels follow as plain bytes, which is several times faster than pickling them."""
        kind = type(result) if isinstance(result, tuple) else None
        parts = [result] if kind is None else list(result)
        is_pixels = [isinstance(part, np.ndarray) and part.dtype == np.uint8 for part in parts]
        sent = [_Shape(part.shape) if is_array else part for part, is_array in zip(parts, is_pixels, strict=True)]
        self._pipe.send((facts, kind, sent))
        for part, is_array in zip(parts, is_pixels, strict=True):
            left = np.ascontiguousarray(part).data.cast("B") if is_array else b""
            while len(left) > 0:
                left = left[os.write(self._pipe.fileno(), left) :]

    def _wait(self, deadline: float) -> None:
        if not self._pipe.poll(max(deadline - time.monotonic(), 0)):
            raise TimeoutError

    def end(self, seconds: float = 0) -> str:
        """Ends the process, after some seconds to end by itself; returns the signal or exit code as text."""
        self._pipe.close()
        if self.pid is None:
            return "never"
        self.join(seconds)
        self.kill()
        self.join(_REAP_SEC)
        if self.exitcode is None:
            return "does not end"  # stuck inside the system; reaped later
        if self.exitcode >= 0:
            return f"exit code {self.exitcode}"
        name = next((known.name for known in signal.Signals if known == -self.exitcode), f"signal {-self.exitcode}")
        return f"{name}, as where memory runs out" if name == "SIGKILL" else name

    def run(self) -> None:
        """Answers requests inside the process, until the other end of the pipe is closed.

        A request is the arguments of `VideoStore.open`, a job on the open video, or None to close the video.
        """
        os.setsid()  # so that Ctrl-Z does not stop this process
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _limit_memory()
        self._pipe.send("ready")
        opened = ExitStack()
        while True:
            try:
                request = self._pipe.recv()
            except EOFError:
                return
            result: Any = None
            try:
                if request is None:
                    opened.close()
                elif isinstance(request, tuple):
                    opened.close()
                    path = request[0]
                    reader = opened.enter_context(self._store.open(*request))
                else:
                    result = request(reader)
            except (DecodeError, InputError) as error:
                self._pipe.send(error)
            except Exception as error:  # any failure of a decoder is a bad video
                self._pipe.send(DecodeError(path, "decoder crashed", f"{type(error).__name__}: {error}"))
            else:
                facts = reader.num_video_frames, reader.frame_rate, reader.decoder, reader.repeats, reader.frame_size
                self._reply(facts, result)


def _limit_memory() -> None:
    """Limits the decoder's memory, so that it fails before the system kills some process."""
    if sys.platform == "linux":
        import resource  # missing on Windows

        with open("/proc/self/statm") as file:
            wanted = int(file.read().split()[0]) * resource.getpagesize() + _MOST_BYTES
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _end_with_parent() -> None:
    """Ends this process, even if its decoder is busy, once its parent process has ended."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


def _close(videos: weakref.ref[IsolatedVideos]) -> None:
    if (alive := videos()) is not None:
        alive.close()
