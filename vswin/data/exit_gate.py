"""Let the process exit only when no thread is inside a decoder."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Once nothing is decoded any more, read-ahead threads fill their buffers in milliseconds.
QUIET_SEC = 0.3
LONGEST_WAIT_SEC = 10.0


class ExitGate:
    """Delays the interpreter's exit until all threads have left the guarded code, and admits no new threads.

    tf.data reads ahead in threads that nobody joins. A thread that returns from OpenCV into an interpreter that is
    shutting down aborts the process: a run that stopped with an error message would end in a core dump. TensorFlow also
    waits for ever for a call that the shutdown cut off. Therefore threads inside finish, later callers do nothing, and
    the process exits once no more calls arrive.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0
        self._is_open = True
        self._last_call = 0.0
        atexit.register(self.close)

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Marks the guarded code; yields whether it may run, which is false once the process exits."""
        with self._changed:
            is_open = self._is_open
            self._last_call = time.monotonic()
            self._num_inside += is_open
        try:
            yield is_open
        finally:
            with self._changed:
                self._num_inside -= is_open
                self._changed.notify_all()

    def close(self) -> None:
        """Admits no more threads, and waits until all have left and no more calls arrive."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: self._num_inside == 0)
        deadline = time.monotonic() + LONGEST_WAIT_SEC
        while time.monotonic() < min(self._last_call + QUIET_SEC, deadline):
            time.sleep(0.01)
