"""Processes that decode: how they are started, asked, ended, and lent to the threads that want one."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from vswin.data.decode_error import DecodeError
from vswin.data.decode_process import LENGTH_BYTES, Request
from vswin.errors import InputError

START_SEC = 120.0
_REAP_SEC = 5.0
# Those signals are for the run to handle: it ends its processes when the clips in hand are done.
_START = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
sys.path[:] = {path!r}
from vswin.data.decode_process import serve
serve({descriptor})
"""


class WorkerDied(Exception):  # noqa: N818 - what happened, not what is wrong
    """The process is gone; the text says how, e.g. "SIGSEGV"."""


class DecodeWorker:
    """A process that runs `vswin.data.decode_process.serve`. One thread at a time uses it; any may end it.

    It is neither a fork, which TensorFlow's threads would not survive, nor one of `multiprocessing`, which would
    import the program's main module again, and TensorFlow with it.
    """

    def __init__(self, store: bytes) -> None:
        """Starts a process and waits until it is ready.

        Args:
            store: The pickled `VideoStore` it reads from.

        Raises:
            InputError: If it does not start.
        """
        self._socket, theirs = socket.socketpair()
        code = _START.format(path=sys.path, descriptor=theirs.fileno())
        try:
            with theirs:
                # In a session of its own, Ctrl-C does not reach it even while it starts.
                # S603: what is started is this very Python.
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-c", code],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            self._socket.close()
            raise InputError(f"dataset.isolate=true: a decoding process cannot be started ({error.strerror})") from None
        try:
            self._exchange(store, time.monotonic() + START_SEC)
        except (WorkerDied, TimeoutError) as error:
            self.end()
            raise InputError(f"dataset.isolate=true: a decoding process did not start ({error})") from None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, request: Request, deadline: float) -> tuple[Mapping[str, Any], np.ndarray | None]:
        """Has the process do something; when this raises, it is of no more use.

        Args:
            request: What to do.
            deadline: When to give up, in the time of `time.monotonic`.

        Returns:
            The facts of the reply, and the frames where there are some.

        Raises:
            WorkerDied: If the process ends.
            TimeoutError: If there is no whole reply by then.
        """
        return self._exchange(pickle.dumps(request), deadline)

    def kill(self) -> None:
        """Ends the process while another thread may be waiting for it."""
        self._process.kill()

    def end(self) -> str:
        """Ends the process, if it has not ended, and says how it did: a signal or an exit code."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.kill()
            code = self._process.wait(_REAP_SEC)
            return _name_signal(-code) if code < 0 else f"exit code {code}"
        return "does not end"  # stuck inside the system; reaped later

    def _exchange(self, request: bytes, deadline: float) -> tuple[Mapping[str, Any], np.ndarray | None]:
        try:
            self._socket.settimeout(_time_left(deadline))
            self._socket.sendall(request)
            length = int.from_bytes(self._receive(bytearray(LENGTH_BYTES), deadline), "little")
            facts = json.loads(self._receive(bytearray(length), deadline))
            if "shape" not in facts:
                return facts, None
            frames = np.empty(facts["shape"], np.uint8)
            self._receive(frames.data.cast("B"), deadline)
            return facts, frames
        except TimeoutError:
            raise
        except (EOFError, OSError, ValueError):
            with suppress(subprocess.TimeoutExpired):  # its own end, not ours
                self._process.wait(_REAP_SEC)
            raise WorkerDied(self.end()) from None

    def _receive(self, buffer: Any, deadline: float) -> Any:
        """Fills a buffer."""
        view = memoryview(buffer)
        while len(view) > 0:
            self._socket.settimeout(_time_left(deadline))
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return buffer


class WorkerPool:
    """Lends processes, each to one thread at a time; there come to be as many as threads decode at once."""

    def __init__(self, store: bytes) -> None:
        """Starts the first one, so that what keeps it from starting is known at once.

        Args:
            store: The pickled `VideoStore` they read from.

        Raises:
            InputError: If it does not start.
        """
        self._store = store
        self._lock = threading.Lock()
        self._lent: set[DecodeWorker] = set()
        self._idle = [DecodeWorker(store)]
        self._is_open = True

    def borrow(self, path: str) -> DecodeWorker:
        """Lends a process for a video, a new one where all are lent; it is to be given back or discarded.

        Raises:
            DecodeError: If the pool is closed.
            InputError: If a process does not start.
        """
        worker = None
        while worker is None:
            with self._lock:
                if not self._is_open:
                    raise DecodeError(path, "interrupted", "the program ends")
                worker = self._idle.pop() if self._idle else None
            worker = worker or DecodeWorker(self._store)
            if not worker.is_alive:  # killed from outside while it was idle
                worker.end()
                worker = None
        with self._lock:
            self._lent.add(worker)
            is_open = self._is_open
        if not is_open:
            worker.kill()
        return worker

    def give_back(self, worker: DecodeWorker) -> None:
        """Takes a process back that is ready for the next video."""
        with self._lock:
            self._lent.discard(worker)
            if self._is_open:
                self._idle.append(worker)
                return
        worker.end()

    def discard(self, worker: DecodeWorker) -> None:
        """Ends a process."""
        with self._lock:
            self._lent.discard(worker)
        worker.end()

    def close(self) -> None:
        """Ends all processes; whoever waits for one gets an error instead, as does whoever comes later."""
        with self._lock:
            self._is_open = False
            idle, self._idle = self._idle, []
            for worker in self._lent:
                worker.kill()
        for worker in idle:
            worker.end()


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _name_signal(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}, as where memory runs out" if number == signal.SIGKILL else name
