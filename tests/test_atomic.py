import errno
import os
import resource
import subprocess
import sys
from contextlib import nullcontext

import pytest
from filelock import FileLock

from vswin import atomic
from vswin.atomic import locked, remove_partial, replacing, sync_folder

HOLD = """
import sys, pathlib
from vswin.atomic import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_becomes_too_large_leaves_the_old_one(tmp_path):
    """The system's limit on the file size fails in the middle of a write, as a full disk does."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"), replacing(path) as partial:
            partial.write_bytes(bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_contents_are_on_the_disk_before_the_name_and_then_the_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(atomic, "sync_file", lambda path: done.append(("contents", path.name[:10])))
    monkeypatch.setattr(atomic, "sync_folder", lambda path: done.append(("names", (path / "file.txt").exists())))
    with replacing(tmp_path / "file.txt") as partial:
        partial.write_text("new")
    assert done == [("contents", ".file.txt."), ("names", True)]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".best.h5.123.partial", ".best.h5.9.partial", ".other.h5.1.partial", "best.h5"):
        (tmp_path / name).touch()
    remove_partial(tmp_path / "best.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.h5.1.partial", "best.h5"]


def test_a_file_system_that_cannot_sync_folders_is_accepted_and_a_broken_one_is_not(tmp_path, monkeypatch):
    def fail(code):
        def fsync(descriptor):
            raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_one_process_at_a_time_and_the_lock_of_a_killed_one_is_free(tmp_path):
    path = tmp_path / "lock"
    waited = []
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with locked(path, lambda: (waited.append(1), holder.kill())):
            assert waited == [1]
    with locked(path, lambda: waited.append(2)):
        assert waited == [1]


@pytest.mark.parametrize("is_optional", [True, False])
def test_where_there_are_no_locks_a_block_runs_if_it_can_do_without(tmp_path, monkeypatch, is_optional):
    def refuse(lock):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    ran = []
    outcome = nullcontext() if is_optional else pytest.raises(OSError, match="No locks")
    with outcome, locked(tmp_path / "lock", is_optional=is_optional):
        ran.append(1)
    assert ran == [1] * is_optional
