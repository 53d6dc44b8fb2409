import io
import zipfile

import pytest

from vswin.weights.formats.zip_directory import open_zip


def test_an_archive_opens_as_zipfile_opens_it():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a", b"content")
        made.comment = b"with a comment"
    archive = open_zip(memoryview(buffer.getvalue()))
    assert archive.namelist() == ["a"]
    assert archive.read("a") == b"content"


def test_a_directory_beyond_all_bounds_is_not_read():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(100):
            made.writestr(f"{number:060000d}", b"")
    assert len(buffer.getvalue()) > 8 * 2**20
    with pytest.raises(zipfile.BadZipFile, match="directory of 60"):
        open_zip(memoryview(buffer.getvalue()))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"PK\x05\x06" + b"\xff" * 18, bytes(100_000)])
def test_what_has_no_directory_is_no_archive(content):
    with pytest.raises((zipfile.BadZipFile, OSError)):
        open_zip(memoryview(content))
