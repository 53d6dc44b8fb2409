"""What an HDF5 file holds, found out in a process of its own: `python hdf5_contents.py FILE`.

The HDF5 library does not survive damaged files: bytes that were changed on purpose make it write where it must not.
So it never reads in the process that trains. `vswin.weights.formats.hdf5_file` starts this script, which imports
nothing of vswin, and checks what it says.

Standard output: a line of JSON, `[[name, dtype, shape, offset or null], ...]` and the attributes of a file of ours
or null; then the values of those data sets that have no offset, one after another. Code 1, and the reason on
standard error, if the file is damaged.
"""

import json
import sys
from typing import Any, BinaryIO

import h5py

# The attribute that tells our files from other HDF5 files.
MARK = "vswin_version"
# Kinds of data that weights can be: floating point, integers and truth values.
NUMBERS = "fiub"
# Weights hardly compress; a file that claims more is made to fill the memory.
_MAX_COMPRESSION = 100


def main(path: str, output: BinaryIO) -> int:
    """Describes a file."""
    try:
        with h5py.File(path, "r") as file:
            items: list[h5py.Dataset] = []
            file.visititems(lambda name, item: _collect(items, name, item))
            entries = [[item.name.lstrip("/"), item.dtype.str, item.shape, _offset(item)] for item in items]
            attributes = {key: str(value) for key, value in file.attrs.items()} if MARK in file.attrs else None
            output.write(json.dumps([entries, attributes]).encode() + b"\n")
            for item, entry in zip(items, entries, strict=True):
                if entry[3] is None:
                    output.write(item[()].tobytes())
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _collect(items: list[h5py.Dataset], name: str, item: Any) -> None:
    """Adds a data set of numbers; visiting follows no links into other files."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in NUMBERS:
        return
    if item.external or item.is_virtual or item.nbytes > _MAX_COMPRESSION * item.id.get_storage_size():
        raise ValueError(f"the values of {name}, {item.nbytes} bytes, are not in the file")
    items.append(item)


def _offset(item: h5py.Dataset) -> int | None:
    """Finds values in one piece, which can be mapped; others are compressed, in chunks, or tiny ones in the header."""
    offset: int | None = item.id.get_offset()
    return offset if item.nbytes == item.id.get_storage_size() > 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.stdout.buffer))
