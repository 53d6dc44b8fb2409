"""Decode in processes of their own, so that a decoder that crashes or hangs costs a clip and not the run.

Each process has a pipe to itself. In a pool of pebble 5.2 all share one, and a process that is killed while it sends a
clip (when memory runs out) holds up the others; `concurrent.futures` then gives up its whole pool.
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

from vswin.data.decode_error import DecodeError
from vswin.data.stores import FrameReader, VideoStore
from vswin.errors import InputError

T = TypeVar("T")

# Without a time limit a clip may take any time, but a decoder that hangs is not to hang the run.
LONGEST_SILENCE_SEC = 600.0
# A decoder that is merely slow notices its limit itself, between two frames, and lives on.
_GRACE_SEC = 1.0
_START_SEC = 120.0
_REAP_SEC = 5.0
# Much more than a clip of 8K frames needs; some files make a decoder take all the memory.
_MOST_BYTES = 8 << 30
_starting = threading.Lock()


class IsolatedVideos:
    """Opens the videos of another store in processes of their own; see `VideoStore`.

    There are as many processes as threads that decode at the same time. They import neither TensorFlow nor the main
    program, and they end with this object, and with this process however it ends.
    """

    def __init__(self, store: VideoStore) -> None:
        """Starts the first process, so that what keeps it from starting is known at once; `store` is pickled.

        Raises:
            InputError: If processes cannot be started, or do not work on this system.
        """
        self._store = store
        self._lock = threading.Lock()
        self._decoders: set[_Decoder] = set()
        self._idle: list[_Decoder] = []
        self.is_open = True
        if os.name != "posix":
            raise InputError("dataset.isolate=true: this needs Linux or macOS; set dataset.isolate=false")
        # Before the exit waits for the threads that decode: they need not wait for their processes.
        atexit.register(_close, weakref.ref(self))
        self.give_back(self.borrow(""))

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> IsolatedReader:
        """Opens a video, see `VideoStore.open`; without a time limit, opening and each `read` may take ten minutes.

        Raises:
            DecodeError: As the other store does; and with the cause "decoder crashed" if the process ends, or with
                "too slow" if the decoder hangs.
        """
        return IsolatedReader(self, path, decoder, timeout_sec)

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Does what the other store does."""
        return self._store.identify(path)

    def close(self) -> None:
        """Ends the processes; videos that are open, or opened later, give a `DecodeError`."""
        with self._lock:
            self.is_open = False
            for decoder in self._decoders:
                decoder.kill()
            idle, self._idle = self._idle, []
        for decoder in idle:
            self.discard(decoder)

    def __del__(self) -> None:
        self.close()

    def borrow(self, path: str) -> _Decoder:
        """Lends a process for a video, a new one where all are lent; it is to be given back or discarded."""
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
        """Takes a process back that is ready for the next video."""
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


class IsolatedReader:
    """Reads frames of a video that another process has open; see `FrameReader`.

    What is to run there is pickled: `prepare`, so that frames travel in the size they are wanted in, and whole jobs.
    """

    def __init__(self, videos: IsolatedVideos, path: str, decoder: str, timeout_sec: float | None) -> None:
        """Borrows a process and has it open the video; this and the rest raise errors as `IsolatedVideos.open` does."""
        self.path = path
        self._videos = videos  # which ends the processes when nobody needs it any more
        self._timeout_sec = timeout_sec
        self._start = time.monotonic()
        self._decoder: _Decoder | None = videos.borrow(path)
        try:
            self._ask(_OpenVideo(path, decoder, timeout_sec))
        except BaseException:
            self._release()
            raise

    def run(self, job: Callable[[FrameReader], T]) -> T:
        """Runs a job with the open video there, and gives what it returns."""
        return self._ask(job)

    def read(
        self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray], may_skip: bool = False
    ) -> np.ndarray:
        """Reads frames, see `VideoReader.read`."""
        return self._ask(methodcaller("read", frame_numbers, prepare, may_skip))

    def read_times(self) -> np.ndarray:
        """Gives when frames are shown, see `VideoReader.read_times`."""
        return self._ask(methodcaller("read_times"))

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the video; a decoder that only now crashes has done its work."""
        with suppress(DecodeError):
            self._ask(None)
        self._release()

    def _release(self) -> None:
        if self._decoder is not None:
            self._videos.give_back(self._decoder)
            self._decoder = None

    def _ask(self, request: _OpenVideo | Callable[[FrameReader], Any] | None) -> Any:
        """Has the process do something: open the video, run a job with it, or, for None, close it."""
        if self._decoder is None:
            raise DecodeError(self.path, "decoder crashed", "earlier")
        start, limit_sec = self._start, self._timeout_sec
        if limit_sec is None:
            start, limit_sec = time.monotonic(), LONGEST_SILENCE_SEC
        try:
            facts, result = self._decoder.ask(request, start + limit_sec + _GRACE_SEC)
        except (DecodeError, InputError):
            raise
        except BaseException as error:  # Ctrl-C, too, leaves a reply that nobody has read
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


class _OpenVideo(NamedTuple):
    path: str
    decoder: str
    timeout_sec: float | None


class _Decoder(SpawnProcess):
    """A process that has videos open, one at a time, for one thread at a time, and the pipe to it."""

    def __init__(self, store: VideoStore) -> None:
        """Starts it and waits until it is ready; raises an `InputError` if it does not start."""
        super().__init__(daemon=True)
        self._store = store
        ours, self._pipe = Pipe()
        resource_tracker.ensure_running()  # it unblocks signals
        try:
            # It starts without the main program, which would import TensorFlow, and hears none of the signals that
            # are for the run to handle: that ends its processes when the clips in hand are done.
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

    def ask(self, request: object, deadline: float) -> tuple[tuple[Any, ...], Any]:
        """Gives the facts of the open video and the result of a request.

        A `DecodeError` or `InputError` is the result of a request, too. After any other error the process is of no more
        use: it has ended (`OSError`, `EOFError`), or has not replied by the deadline of `time.monotonic`
        (`TimeoutError`).
        """
        self._pipe.send(request)
        self._wait(deadline)
        reply = self._pipe.recv()
        if isinstance(reply, Exception):
            raise reply
        facts, result, shape = reply
        if shape is not None:
            result = np.empty(shape, np.uint8)
            left = result.data.cast("B")
            while len(left) > 0:
                self._wait(deadline)
                num_bytes = os.readv(self._pipe.fileno(), [left])
                if num_bytes == 0:
                    raise EOFError
                left = left[num_bytes:]
        return facts, result

    def _wait(self, deadline: float) -> None:
        if not self._pipe.poll(max(deadline - time.monotonic(), 0)):
            raise TimeoutError

    def end(self, seconds: float = 0) -> str:
        """Ends it, if it does not by itself in some seconds, and says how it did: a signal or an exit code."""
        self._pipe.close()
        if self.pid is None:
            return "never"
        self.join(seconds)
        self.kill()
        self.join(_REAP_SEC)
        code = self.exitcode
        if code is None:
            return "does not end"  # stuck inside the system; reaped later
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"{name}, as where memory runs out" if -code == signal.SIGKILL else name

    def run(self) -> None:
        """Answers requests, in the process itself, until the other end of the pipe is closed."""
        os.setsid()  # Ctrl-Z does not stop it
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
                elif isinstance(request, _OpenVideo):
                    opened.close()
                    path = request.path
                    reader = opened.enter_context(self._store.open(*request))
                else:
                    result = request(reader)
            except (DecodeError, InputError) as error:
                self._pipe.send(error)
                continue
            except Exception as error:  # any failure of a decoder is a bad video
                self._pipe.send(DecodeError(path, "decoder crashed", f"{type(error).__name__}: {error}"))
                continue
            facts = reader.num_video_frames, reader.frame_rate, reader.decoder, reader.repeats, reader.frame_size
            is_pixels = isinstance(result, np.ndarray) and result.dtype == np.uint8
            self._pipe.send((facts, None, result.shape) if is_pixels else (facts, result, None))
            if is_pixels:  # several times faster than to pickle them
                left = np.ascontiguousarray(result).data.cast("B")
                while len(left) > 0:
                    left = left[os.write(self._pipe.fileno(), left) :]


def _limit_memory() -> None:
    """Lets a decoder that wants all memory fail before the system kills some process."""
    if sys.platform == "linux":
        import resource  # which Windows lacks

        with open("/proc/self/statm") as file:
            wanted = int(file.read().split()[0]) * resource.getpagesize() + _MOST_BYTES
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _end_with_parent() -> None:
    """Ends this process, however busy its decoder is, once the one that started it is gone."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


def _close(videos: weakref.ref[IsolatedVideos]) -> None:
    if (alive := videos()) is not None:
        alive.close()
