"""Files of a cache that several processes share: who may write, and whether a file is still what was downloaded.

Beside `<file>` stands `<file>.json` with its SHA-256, and `<file>.lock` for whoever downloads it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.file_lock import file_lock

logger = logging.getLogger("vswin")


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turns errors of a disk, as when it is full or must not be written to, into one that says what to do.

    Raises:
        InputError: if the block fails with an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot keep weights ({error.strerror or error}); mend that, or set VSWIN_CACHE to another folder"
        ) from error


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lets one process at a time download a file; the others wait until it is done or dead.

    Args:
        path: the file to download, whose folder exists.

    Raises:
        InputError: if the folder cannot be written to or its file system has no locks.
    """
    with ExitStack() as held:
        with explain_disk_errors(path.parent):
            held.enter_context(
                file_lock(
                    path.with_name(f"{path.name}.lock"),
                    lambda: logger.info("another process downloads %s; waiting for it", path),
                )
            )
        yield


def check_file(path: Path, sha256_prefix: str = "") -> None:
    """Checks that a file is the one that was recorded, and records one that was put there by hand.

    Size and times of the last change (of content and of status) are compared each time; if one of them differs,
    the SHA-256 decides. So a change by any program is noticed without reading 350 MB at every start.

    Args:
        path: the file.
        sha256_prefix: first digits of its hash, if known.

    Raises:
        InputError: if it is another file.
    """
    record, stamp = _read_record(path), _stamp(path)
    if stamp.items() <= record.items():
        return
    digest = hash_file(path)
    recorded = record.get("sha256", digest)
    if digest != recorded:
        date = record.get("date", "it was put there")
        raise InputError(
            f"{path} has changed since {date}: its SHA-256 is {digest}, recorded was {recorded}. "
            f"Delete it to download it again; if the change is wanted, delete {_record_path(path).name} beside it"
        )
    check_prefix(path, digest, sha256_prefix)
    # A cache that others own may be read-only: then the file is hashed each time.
    with suppress(OSError):
        _write_record(path, {**record, "sha256": digest, **stamp})


def check_prefix(path: Path, digest: str, sha256_prefix: str) -> None:
    """Checks a file's SHA-256 against the digits its owner gives.

    Raises:
        InputError: if they differ.
    """
    if not digest.startswith(sha256_prefix):
        raise InputError(f"{path} is damaged or another file: its SHA-256 is {digest}, not {sha256_prefix}...")


def record_file(path: Path, digest: str, url: str) -> None:
    """Records what was downloaded: SHA-256, size, address and date."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _write_record(path, {"sha256": digest, "url": url, "date": date, **_stamp(path)})


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    status = os.stat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_record(path: Path) -> dict[str, Any]:
    """Reads the record of a file; empty if there is none."""
    with suppress(OSError, ValueError):
        record = json.loads(_record_path(path).read_text())
        return record if isinstance(record, dict) else {}
    return {}


def _write_record(path: Path, record: dict[str, Any]) -> None:
    with replacing(_record_path(path)) as file:
        file.write_text(json.dumps(record, indent=1))
