"""Let the process end only when no thread is inside a decoder."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Read-ahead that has nothing to decode any more fills its buffers in milliseconds.
QUIET_SEC = 0.3
LONGEST_WAIT_SEC = 10.0


class ExitGate:
    """Delays the end of the interpreter until all threads have left a piece of code, and lets no more in.

    tf.data reads ahead in threads that nobody joins. A thread that returns from OpenCV to an interpreter which
    is shutting down aborts the process, so that a run stopped by an error message would end in a core dump; and
    TensorFlow waits for ever for a call that the shutdown has cut off. So threads inside finish, later
    callers are told to do nothing, and the process ends once their calls have died down.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0
        self._is_open = True
        self._last_call = 0.0
        atexit.register(self.close)

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Marks the guarded code; gives whether it may run, which is false once the process is ending."""
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
        """Lets no thread in any more, and waits until all are out and none asks again."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: self._num_inside == 0)
        deadline = time.monotonic() + LONGEST_WAIT_SEC
        while time.monotonic() < min(self._last_call + QUIET_SEC, deadline):
            time.sleep(0.01)
