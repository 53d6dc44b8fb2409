"""Files that are replaced as a whole, locks that a dying process releases, and checks of outputs."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vswin.errors import InputError

# As a path of an output: standard output.
STDOUT = Path("-")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path`, whose folder exists; the new file replaces `path` if the block ends without an error.

    Readers see the old file or the new one, never a part, whatever fails; after the block, the new one survives a
    power cut.
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
    """Gives a folder a path without pattern characters: TensorFlow reads `[1]` in a checkpoint's path as `1`."""
    if not set(str(folder)) & set("[\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch, "link")
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def remove_partial(path: Path) -> None:
    """Removes the files of processes that were killed inside `replacing(path)`."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink()


def sync_file(path: Path) -> None:
    """Waits until the contents of a file are on the disk; some file systems report a failed write only now."""
    # Windows syncs only files that are open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, if the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems sync only files.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None, is_optional: bool = False) -> Iterator[None]:
    """Lets one process at a time into the block; `path` is a file that is only the lock.

    `on_wait` is called before waiting for another process, and may raise instead. Where the file system has no locks,
    as some network ones, the block runs without if `is_optional`; otherwise it is an `OSError`.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s, too long for `--help`

    with ExitStack() as held:
        try:
            try:
                held.enter_context(FileLock(path, timeout=0))
            except Timeout:
                on_wait()
                held.enter_context(FileLock(path))
        except OSError as error:
            if not is_optional or error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
        yield


def check_outputs(paths: Iterable[Path], is_overwriting: bool) -> None:
    """Checks before the work starts that files can be written, and creates their folders; skips `STDOUT`."""
    for path in paths:
        if path == STDOUT:
            continue
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it")
        if path.exists() and not is_overwriting:
            raise InputError(f"{path} exists; name another file, or give --overwrite to replace it")
        make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Creates a folder if there is none; an `InputError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made ({error.strerror}); name another one") from error
