"""Tests of `vswin.weights.downloads.cached_file`: records of files and locks."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from vswin.errors import InputError
from vswin.weights.downloads import cached_file
from vswin.weights.downloads.cached_file import check_file, explain_disk_errors, hash_file, lock, record_file

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "tiny.pth"
    file.write_bytes(CONTENT)
    return file


def read_record(path):
    return json.loads(path.with_name("tiny.pth.json").read_text())


def test_a_record_says_what_was_downloaded_from_where_and_when(path):
    assert hash_file(path) == DIGEST
    record_file(path, DIGEST, "https://somewhere/tiny.pth")
    record = read_record(path)
    assert (record["sha256"], record["size"], record["url"]) == (DIGEST, 7000, "https://somewhere/tiny.pth")
    assert record["date"].endswith("+00:00")


def test_an_untouched_file_is_not_read_again(path, monkeypatch):
    record_file(path, DIGEST, "https://somewhere/tiny.pth")
    monkeypatch.setattr(cached_file, "hash_file", lambda path: pytest.fail("it was hashed"))
    check_file(path)


def test_a_touched_file_is_read_once_and_its_record_brought_up_to_date(path, monkeypatch):
    record_file(path, DIGEST, "https://somewhere/tiny.pth")
    os.utime(path, ns=(1, 1))
    check_file(path)
    record = read_record(path)
    assert (record["sha256"], record["mtime_ns"], record["url"]) == (DIGEST, 1, "https://somewhere/tiny.pth")
    monkeypatch.setattr(cached_file, "hash_file", lambda path: pytest.fail("it was hashed"))
    check_file(path)


@pytest.mark.parametrize("content", [CONTENT[:-1], b"W" + CONTENT[1:], CONTENT + b"x"], ids=["cut", "edited", "longer"])
def test_a_changed_file_is_an_error_even_if_its_date_was_put_back(path, content):
    record_file(path, DIGEST, "https://somewhere/tiny.pth")
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(InputError, match=rf"tiny\.pth has changed since 20.*recorded was {DIGEST}.*Delete it"):
            check_file(path)


def test_a_file_put_there_by_hand_is_recorded_and_watched_from_then_on(path):
    check_file(path)
    assert read_record(path)["sha256"] == DIGEST
    path.write_bytes(b"other")
    with pytest.raises(InputError, match="has changed since it was put there"):
        check_file(path)


def test_a_file_put_there_by_hand_must_have_the_hash_its_owner_gives(path):
    check_file(path, DIGEST[:8])
    path.with_name("tiny.pth.json").unlink()
    with pytest.raises(InputError, match=rf"damaged or another file.*{DIGEST}, not 00000000"):
        check_file(path, "00000000")
    assert not path.with_name("tiny.pth.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_record_counts_as_none(path, text):
    path.with_name("tiny.pth.json").write_text(text)
    check_file(path)
    assert read_record(path)["sha256"] == DIGEST


def test_disk_errors_name_the_folder_and_the_way_out(tmp_path):
    with (
        pytest.raises(InputError, match=rf"{tmp_path} cannot keep weights \(No space left.*VSWIN_CACHE"),
        explain_disk_errors(tmp_path),
    ):
        raise OSError(28, "No space left on device")


def test_a_lock_is_free_again_after_an_error_and_after_a_death(path):
    with pytest.raises(KeyError), lock(path):
        raise KeyError
    code = "import os, sys, pathlib; from vswin.weights.downloads.cached_file import lock\n"
    code += "with lock(pathlib.Path(sys.argv[1])): os._exit(7)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 7
    with lock(path):
        pass


def test_a_lock_in_a_folder_that_is_none_is_a_clear_error(path):
    with pytest.raises(InputError, match=r"tiny\.pth cannot keep weights"), lock(path / "x.pth"):
        pass
