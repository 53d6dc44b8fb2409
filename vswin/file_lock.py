"""Locks that processes take in turn; the system takes them back when a process dies."""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lets one process at a time into the block.

    Args:
        path: a file for the lock alone, made if it is not there; its folder exists.
        on_wait: called once before waiting for another process.

    Raises:
        OSError: if the file cannot be written to, or the system has no such locks.
    """
    with path.open("a") as file:
        try:
            import fcntl
        except ImportError as error:
            raise OSError(errno.ENOLCK, "this system has no file locks") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def file_lock_if_possible(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Does the same where the system and the file system have locks; elsewhere the block just runs.

    Args:
        path: as above.
        on_wait: as above; may raise instead of waiting.

    Raises:
        OSError: if the file cannot be written to.
    """
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(path, on_wait))
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
        yield
