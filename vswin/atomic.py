"""Files that are replaced whole: a failed write, as on a full disk, leaves the earlier file as it was."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path`, whose folder exists; the file takes its place if the block ends without an error.

    Readers see the old file or the new one, never a part, and after the block even a power cut leaves the new one.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync_file(partial)
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def literal_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder a name that is no pattern: TensorFlow reads checkpoints by patterns, in which `[1]` means `1`."""
    if not set(str(folder)) & set("[\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch, "link")
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def remove_partial(path: Path) -> None:
    """Removes what processes that were killed inside `replacing(path)` have left behind."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink()


def sync_file(path: Path) -> None:
    """Waits until the contents of a file are on the disk; some file systems say only now that they cannot be."""
    # Windows syncs only what is open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems sync files alone.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
