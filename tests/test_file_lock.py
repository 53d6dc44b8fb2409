"""Tests of `vswin.file_lock` with real processes."""

import subprocess
import sys

import pytest

from vswin.file_lock import file_lock

HOLD = """
import sys, pathlib
from vswin.file_lock import file_lock
with file_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_one_process_at_a_time_and_the_lock_of_a_killed_one_is_free(tmp_path):
    path = tmp_path / "lock"
    waited = []
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with file_lock(path, lambda: (waited.append(1), holder.kill())):
            assert waited == [1]
    with file_lock(path, lambda: waited.append(2)):
        assert waited == [1]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), file_lock(tmp_path / "absent" / "lock"):
        pass
