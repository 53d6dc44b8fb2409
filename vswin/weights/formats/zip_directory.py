"""Opens zip archives without trusting the size they announce for their directory."""

import io
import zipfile

# A directory of this size lists about 50,000 members; large models have 1,500. Nothing else is read in one piece.
_MAX_READ = 4 * 2**20


def open_zip(buffer: memoryview) -> zipfile.ZipFile:
    """Opens an archive.

    `zipfile` reads the directory of an archive whole and keeps an object of half a kilobyte for each entry of 46
    bytes, so a large file that is all directory would fill the memory.

    Args:
        buffer: the archive's bytes, mapped.

    Raises:
        zipfile.BadZipFile: if the directory is too large, or there is none. Other damages show up as other errors of
            `zipfile`, too.
    """
    return zipfile.ZipFile(_Frugal(buffer))


class _Frugal(io.RawIOBase):
    """A file over mapped bytes that refuses to copy large parts of them."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._position = 0

    def seekable(self) -> bool:
        """Says that it can be read in any order."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._buffer)}[whence]
        if start + offset < 0:
            raise OSError("a position before the start of the file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Says where it is."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Copies the next bytes."""
        left = max(len(self._buffer) - self._position, 0)
        count = left if size is None or size < 0 else min(size, left)
        if count > _MAX_READ:
            raise zipfile.BadZipFile(f"a directory of {count} bytes, far more than weights need")
        content = bytes(self._buffer[self._position : self._position + count])
        self._position += count
        return content
