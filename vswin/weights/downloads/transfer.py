"""Fetch one file over HTTPS: in parts if the line breaks, and never a part for the whole.

`requests` brings redirects, proxies, certificates and time-outs (TensorFlow depends on it, so it is always there);
what is ours is going on where a broken transfer stopped. Called by `vswin.weights.downloads.download`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import requests
from urllib3.exceptions import HTTPError

from vswin import __version__
from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.weights.downloads.cached_file import explain_disk_errors
from vswin.weights.downloads.progress import report_progress

# What a stalled line has brought of a chunk is lost.
CHUNK_BYTES = 1 << 16
CONNECT_SEC = 10.0
STALL_SEC = 30.0
# Pauses before new tries. They start anew when a try has brought the file further than all before it.
PAUSES_SEC = (1.0, 2.0, 4.0)

logger = logging.getLogger("vswin")


class TransferError(Exception):
    """Says why an address did not give its file; another address may."""


class _BrokenLineError(TransferError):
    """Says why a try failed after which another one makes sense."""


@dataclasses.dataclass(frozen=True)
class _Remote:
    """Identifies a file on a server; kept beside the part that is here."""

    url: str
    length: int | None
    etag: str
    last_modified: str

    @property
    def validator(self) -> str:
        """Gives what If-Range may carry: a strong ETag or a date; empty if the server gave neither."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def matches(self, part: _Remote) -> bool:
        """Says whether another answer is about the same file; headers that it leaves out say nothing."""
        return (
            part.length == self.length
            and part.etag in ("", self.etag)
            and part.last_modified in ("", self.last_modified)
        )


def download(url: str, partial: Path, allow_http: bool = False) -> None:
    """Fetches a file, going on where an earlier try or a killed process stopped.

    Args:
        url: address of the file; `https`.
        partial: where the bytes go. It stays after a failure, with what identifies the file on the server beside
            it. Nobody else writes to it meanwhile.
        allow_http: whether `url` and what it redirects to may be `http`.

    Raises:
        TransferError: if the address does not give the file.
        InputError: if the folder cannot hold it.
    """
    failures, furthest = 0, 0
    with _open_session(allow_http) as session:
        while True:
            try:
                return _continue(session, url, partial)
            except _BrokenLineError as error:
                num_bytes = partial.stat().st_size if partial.exists() else 0
                failures, furthest = (0, num_bytes) if num_bytes > furthest else (failures + 1, furthest)
                if failures >= len(PAUSES_SEC):
                    raise TransferError(f"{error} ({failures} tries in a row)") from error
                logger.warning("download: %s; trying again in %g s", error, PAUSES_SEC[failures])
                time.sleep(PAUSES_SEC[failures])


def discard(partial: Path) -> None:
    """Removes a part and what is kept about it."""
    partial.unlink(missing_ok=True)
    _note_path(partial).unlink(missing_ok=True)


def _open_session(allow_http: bool) -> requests.Session:
    """Opens a session that can speak nothing but HTTPS unless told otherwise, redirects included."""
    session = requests.Session()
    # Lengths and ranges count the bytes of the file itself.
    session.headers.update({"User-Agent": f"vswin/{__version__}", "Accept-Encoding": "identity"})
    if not allow_http:
        del session.adapters["http://"]
    return session


def _continue(session: requests.Session, url: str, partial: Path) -> None:
    """Makes one try to fetch what is missing."""
    known = _read_note(partial, url)
    start = partial.stat().st_size if known else 0
    if known and start == known.length:
        return
    headers = {"Range": f"bytes={start}-", "If-Range": known.validator} if known and start else {}
    try:
        with session.get(url, headers=headers, stream=True, timeout=(CONNECT_SEC, STALL_SEC)) as response:
            remote = _check_answer(response, url, known, partial)
            _receive(response, remote, start if response.status_code == 206 else 0, partial)
    except (requests.RequestException, HTTPError) as error:
        raise _explain(error) from error


def _check_answer(response: requests.Response, url: str, known: _Remote | None, partial: Path) -> _Remote:
    """Refuses every answer but the file or the part of it that is missing."""
    status, headers = response.status_code, response.headers
    answer = f"the server answered {status} {response.reason}"
    if status == 416:
        discard(partial)
        raise _BrokenLineError(f"{answer}; starting anew")
    if status in (408, 425, 429) or status >= 500:
        raise _BrokenLineError(answer)
    if status not in (200, 206):
        raise TransferError(answer)
    if headers.get("Content-Type", "").startswith("text/html"):
        raise TransferError("the server answered with a web page instead of the file")
    etag, date = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if status == 200:
        length = int(headers["Content-Length"]) if headers.get("Content-Length", "").isdigit() else None
        if length is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise TransferError("the server does not say how long the file is")
        return _Remote(url, length, etag, date)
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    part = found and _Remote(url, int(found[2]), etag, date)
    if not (found and part and known and known.matches(part) and int(found[1]) == partial.stat().st_size):
        discard(partial)
        raise _BrokenLineError("the server sent another part or another file than before; starting anew")
    return known


def _receive(response: requests.Response, remote: _Remote, start: int, partial: Path) -> None:
    """Writes the body behind the first `start` bytes of `partial`."""
    _check_space(remote, start, partial)
    with explain_disk_errors(partial.parent):
        # The old bytes go before the new note comes: a note must never stand beside bytes of another file.
        file = partial.open("ab" if start else "wb", buffering=0)
    with file, report_progress(partial.stem, start, remote.length) as advance:
        with explain_disk_errors(partial.parent):
            _write_note(partial, remote)
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            with explain_disk_errors(partial.parent):
                _write(file, chunk)
            advance(len(chunk))
    num_bytes = partial.stat().st_size
    if num_bytes == 0:
        raise TransferError("the server sent an empty file")
    if remote.length is None:
        # A chunked body has its own end mark, without which `stream` raises.
        _write_note(partial, dataclasses.replace(remote, length=num_bytes))
    elif num_bytes != remote.length:
        if num_bytes > remote.length:
            discard(partial)
        raise _BrokenLineError(f"the line broke after {num_bytes:,} of {remote.length:,} bytes")


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Writes all of a chunk to an unbuffered file, which may take it in pieces."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _check_space(remote: _Remote, start: int, partial: Path) -> None:
    """Refuses a file for which the disk has no room, before it is filled."""
    missing, free = (remote.length or 0) - start, shutil.disk_usage(partial.parent).free
    if missing > free:
        raise InputError(
            f"{missing / 1e6:,.0f} MB are to be downloaded to {partial.parent}, where {free / 1e6:,.0f} MB are free; "
            "make room or set VSWIN_CACHE to another folder"
        )


def _explain(error: Exception) -> TransferError:
    """Says in few words what `requests` reports at length, and whether another try makes sense."""
    innermost: BaseException = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    reason = str(innermost) or type(innermost).__name__
    if isinstance(error, requests.exceptions.InvalidSchema):
        return TransferError("refused: the address, or one it redirects to, is not https")
    if isinstance(error, requests.exceptions.ProxyError):
        return TransferError(f"the proxy does not let it through: {reason}")
    if isinstance(error, requests.exceptions.SSLError):
        return TransferError(f"no secure connection: {reason}")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return TransferError(f"no connection within {CONNECT_SEC:g} s")
    if type(innermost).__name__ == "gaierror":
        return TransferError(f"the host is not known, or there is no network: {reason}")
    if isinstance(error, requests.ConnectionError | requests.Timeout | HTTPError):
        return _BrokenLineError(f"the line broke: {reason}")
    return TransferError(reason)


def _note_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _write_note(partial: Path, remote: _Remote) -> None:
    """Keeps what identifies the file on the server."""
    with replacing(_note_path(partial)) as file:
        file.write_text(json.dumps(dataclasses.asdict(remote)))


def _read_note(partial: Path, url: str) -> _Remote | None:
    """Reads which file a part is of; None if it cannot be gone on with, so that the next bytes replace it."""
    with suppress(OSError, ValueError, TypeError):
        remote = _Remote(**json.loads(_note_path(partial).read_text()))
        if remote.url == url and remote.validator and partial.stat().st_size <= (remote.length or 0):
            return remote
    return None
