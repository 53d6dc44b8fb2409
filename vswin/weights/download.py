"""Finds published weights on this machine or downloads them once, checks them, and notices changes.

The search goes through the folder VSWIN_WEIGHTS_DIR, the cache, the mirror VSWIN_WEIGHTS_DIR and the owners' addresses,
in this order. Beside `<file>` the cache has its record `<file>.sha256`; a download uses `<file>.lock` and
`<file>.partial`.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from vswin import __version__
from vswin.atomic import locked, replacing, sync_file
from vswin.console import Console, logger
from vswin.errors import InputError, nearest
from vswin.weights.published import Source, find_weights

if TYPE_CHECKING:
    import requests

CONNECT_SEC, STALL_SEC = 10.0, 30.0
# Pauses before each retry of a broken transfer.
PAUSES_SEC = (1.0, 2.0, 4.0)
SECONDS_BETWEEN_LINES = 10.0
_CHUNK_BYTES = 1 << 16
# The server may answer better in a moment.
_IN_TROUBLE = (408, 425, 429, 500, 502, 503, 504)


class TransferError(Exception):
    """An address did not deliver its file; another address may."""


@dataclass(frozen=True)
class LocalCopy:
    """A copy of published weights on this machine, in the cache or in the user's folder."""

    source: str
    path: Path  # may be a SavedModel folder in the user's folder
    num_bytes: int
    is_cached: bool


def fetch(name: str, source: str | None = None) -> Path:
    """Finds or downloads the weights of a published name, or of its alias on the TF-Hub page.

    Without `source`, only copies of the same model are taken: the official one, then others with the same values and
    the head. A copy that its owner trained anew, or offers without the head, must be requested by its `source`.

    Returns:
        The file; for a TF-Hub model its archive or, in the folder VSWIN_WEIGHTS_DIR, its unpacked folder. Files of the
        cache are complete and match their records; the caller checks whether they hold sound weights.

    Raises:
        InputError: if there is no such name or source, or the file cannot be fetched or stored, or has changed.
    """
    weights = find_weights(name)
    sources = [one for one in weights.sources if (one.is_same_model if source is None else one.name == source)]
    if not sources:
        near = nearest(str(source), [one.name for one in weights.sources])
        raise InputError(f"source={source} does not offer {weights.name}: {near}")
    if copies := _find_copies(sources):
        copy = copies[0]
        prefix = next(one.sha256_prefix for one in sources if one.name == copy.source)
        if copy.is_cached or (prefix and copy.path.is_file()):
            check_file(copy.path, prefix, copy.is_cached)
        logger.info("weights of %s: the copy of %s at %s", weights.name, copy.source, copy.path)
        return copy.path

    mirror = weights_place()
    addresses = [(one, f"{mirror}/{one.file_name}") for one in sources] if isinstance(mirror, str) else []
    failures = ""
    for one, url in [*addresses, *((one, one.url) for one in sources)]:
        try:
            path = _download_once(one, url)
        except TransferError as error:
            failures += f"\n  {one.name}: {_without_password(url)}\n    {error}"
            logger.warning("weights of %s: %s failed: %s", weights.name, _without_password(url), error)
        else:
            logger.info("weights of %s: the copy of %s at %s", weights.name, one.name, path)
            return path
    file_name = sources[0].file_name
    others = [other for other in weights.sources if other not in sources]
    ways_out = [
        f"fetch {sources[0].url} by hand and put it at {cache_folder() / file_name}",
        f"or into a folder and set VSWIN_WEIGHTS_DIR to it, or to the address of a mirror that has {file_name}",
        *(f"take another copy: source={other.name} ({other.describe() or 'the same model'})" for other in others),
        "give a file or a run folder: init_from=PATH",
        "start from random weights: init_from=null",
    ]
    ways = "".join(f"\n    - {way}" for way in ways_out)
    raise InputError(f"the weights of {weights.name} cannot be downloaded. vswin tried{failures}\n  Ways out:{ways}")


def cache_folder() -> Path:
    """Names the folder of downloaded weights, which need not exist.

    It is `$VSWIN_CACHE/weights`, else `vswin/weights` in the user's cache folder: on Linux in `$XDG_CACHE_HOME` or
    `~/.cache`.
    """
    if own := os.environ.get("VSWIN_CACHE"):
        return Path(own).expanduser().absolute() / "weights"
    from platformdirs import user_cache_path

    return user_cache_path("vswin", appauthor=False) / "weights"


def weights_place() -> Path | str | None:
    """Reads VSWIN_WEIGHTS_DIR: a folder, the address of a mirror without a final slash, or None if it is not set.

    Raises:
        InputError: if the value is neither a folder nor an http(s) address.
    """
    value = os.environ.get("VSWIN_WEIGHTS_DIR", "")
    if value.lower().startswith(("http://", "https://")):
        return value.rstrip("/")
    folder = Path(value).expanduser()
    if value and not folder.is_dir():
        raise InputError(f"VSWIN_WEIGHTS_DIR={value} is neither a folder nor an http(s) address; correct or unset it")
    return folder if value else None


def local_copies(name: str) -> list[LocalCopy]:
    """Lists all copies of published weights on this machine."""
    return _find_copies(find_weights(name).sources)


def local_state(name: str) -> str:
    """Says which copies of published weights are on this machine, e.g. "cached: official 110 MB" or "not here"."""
    found: dict[str, list[str]] = {}
    for copy in local_copies(name):
        size = f"{copy.source} {copy.num_bytes / 1e6:,.0f} MB"
        found.setdefault("cached" if copy.is_cached else "in VSWIN_WEIGHTS_DIR", []).append(size)
    return "; ".join(f"{place}: {', '.join(sizes)}" for place, sizes in found.items()) or "not here"


def _find_copies(sources: Sequence[Source]) -> list[LocalCopy]:
    """Finds the files of sources, in their order, in the user's folder and then in the cache."""
    places = [(source.name, cache_folder() / source.file_name, True) for source in sources]
    if isinstance(folder := weights_place(), Path):
        # A TF-Hub archive may be unpacked.
        names = [(one.name, name) for one in sources for name in (one.file_name, one.file_name.removesuffix(".tar.gz"))]
        places = [*((source, folder / name, False) for source, name in dict.fromkeys(names)), *places]
    copies = []
    for source, path, is_cached in places:
        with _explain_disk_errors(path.parent):
            files = [path] if path.is_file() else []
            if not is_cached and (path / "saved_model.pb").is_file():
                files = [file for file in path.rglob("*") if file.is_file()]
            if files:
                copies.append(LocalCopy(source, path, sum(file.stat().st_size for file in files), is_cached))
    return copies


@contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turns disk errors, e.g. of a full or read-only disk, into an `InputError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{folder} cannot store weights ({reason}); fix that, or set VSWIN_CACHE to another folder"
        ) from error


def check_file(path: Path, sha256_prefix: str = "", is_cached: bool = True) -> None:
    """Checks the SHA-256 of a file against its owner's prefix and, in the cache, against the record beside it.

    A file that was put into the cache by hand gets a record, if the cache can be written to.

    Raises:
        InputError: if the file has changed, or is another one.
    """
    # Records of earlier versions are `.json` files.
    records = [path.with_name(f"{path.name}{suffix}") for suffix in (".sha256", ".json")] if is_cached else []
    record = next((file for file in records if file.is_file()), None)
    with _explain_disk_errors(path.parent):
        digest = _hash(path)
    recorded = digest
    with suppress(OSError, UnicodeDecodeError):
        found = re.search("[0-9a-f]{64}", record.read_text()) if record else None
        recorded = found[0] if found else digest
    if record and digest != recorded:
        raise InputError(
            f"{path} has changed since vswin recorded it: its SHA-256 is {digest}, recorded was {recorded}. Delete it "
            f"to download it again; if the change is wanted, delete {record.name} beside it"
        )
    if not digest.startswith(sha256_prefix):
        raise InputError(f"{path} is damaged or another file: its SHA-256 is {digest}, not {sha256_prefix}...")
    with suppress(OSError):
        if is_cached and not record:
            _write_record(path, digest)


def _write_record(path: Path, digest: str) -> None:
    """Records a file as `sha256sum --check` reads it."""
    with replacing(path.with_name(f"{path.name}.sha256")) as file:
        file.write_text(f"{digest}  {path.name}\n")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download_once(source: Source, url: str) -> Path:
    """Downloads one file into the cache, unless another process has done so meanwhile."""
    path = cache_folder() / source.file_name
    partial = path.with_name(f"{path.name}.partial")
    with _explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock")
        with locked(lock, lambda: logger.info("another process downloads %s; waiting for it", path)):
            if path.is_file():
                check_file(path, source.sha256_prefix)
                return path
            logger.info("downloading %s to %s", _without_password(url), path)
            try:
                download(url, partial, can_resume=bool(source.sha256_prefix))
                digest = _hash(partial)
                if not digest.startswith(source.sha256_prefix):
                    partial.unlink()
                    raise TransferError(f"wrong file: its SHA-256 is {digest}, not {source.sha256_prefix}...")
                sync_file(partial)
                os.replace(partial, path)
            finally:
                # Without a hash, nobody could tell whether two parts belong together.
                if not source.sha256_prefix:
                    partial.unlink(missing_ok=True)
            _write_record(path, digest)
    return path


def download(url: str, partial: Path, can_resume: bool) -> None:
    """Downloads a file to `partial`, and tries again if the connection breaks.

    An https address may redirect to https only; a user's own mirror may be http. `can_resume` keeps the bytes that are
    already there and requests only the rest: check the hash of the whole file afterwards.

    Raises:
        TransferError: if the address does not deliver the file.
        OSError: if the folder cannot hold it.
    """
    import requests
    from urllib3.exceptions import ProtocolError, ReadTimeoutError

    with requests.Session() as session:
        # Without compression, lengths and ranges count the bytes of the file itself.
        session.headers.update({"User-Agent": f"vswin/{__version__}", "Accept-Encoding": "identity"})
        if url.lower().startswith("https://"):
            del session.adapters["http://"]
        for pause in (*PAUSES_SEC, None):
            start = partial.stat().st_size if can_resume and partial.exists() else 0
            headers = {"Range": f"bytes={start}-"} if start else {}
            try:
                response = session.get(url, headers=headers, stream=True, timeout=(CONNECT_SEC, STALL_SEC))
            except requests.RequestException as error:
                # Only a server that was reached is asked again: otherwise the next address may work.
                if not any(isinstance(cause, ProtocolError | ReadTimeoutError) for cause in error.args):
                    raise TransferError(_explain(error)) from error
                problem = f"the connection broke before an answer: {_explain(error)}"
            else:
                with response:
                    problem = _receive(response, start, partial)
            if not problem:
                return
            if pause is not None:
                logger.warning("download: %s; trying again in %g s", problem, pause)
                time.sleep(pause)
        raise TransferError(f"{problem} ({len(PAUSES_SEC) + 1} tries)")


def _receive(response: "requests.Response", start: int, partial: Path) -> str:
    """Writes a response after the first `start` bytes; gives the reason to try again, empty if the file is complete."""
    import requests

    status, headers = response.status_code, response.headers
    is_rest = status == 206 and headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if status == 416 or (status == 206 and not is_rest):
        partial.unlink(missing_ok=True)
        return "the server has no such part of the file; starting anew"
    if status in _IN_TROUBLE:
        return f"the server answered {status} {response.reason}"
    if status not in (200, 206):
        raise TransferError(f"the server answered {status} {response.reason}")
    if headers.get("Content-Type", "").startswith("text/html"):
        raise TransferError("the server answered with a web page instead of the file")
    announced = headers.get("Content-Length", "")
    length = int(announced) if re.fullmatch("[0-9]{1,18}", announced) else 0
    if not length and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise TransferError("the server sent an empty file, or does not say how long it is")
    start = start if is_rest else 0
    try:
        with partial.open("ab" if start else "wb") as file:
            chunks = response.iter_content(_CHUNK_BYTES)
            file.writelines(_show_progress(chunks, partial.stem, start, start + length if length else None))
    except requests.RequestException as error:
        return f"the connection broke: {_explain(error)}"
    if length and response.raw.tell() != length:
        return f"the connection broke after {response.raw.tell():,} of {length:,} bytes"
    if not partial.stat().st_size:
        raise TransferError("the server sent an empty file")
    return ""


def _show_progress(chunks: Iterable[bytes], title: str, done: int, total: int | None) -> Iterator[bytes]:
    """Passes chunks on and shows progress: a bar on a terminal, a line every ten seconds in a log."""
    console = Console(is_stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    last_line = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done)
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(task, completed=done)
            if not console.is_terminal and time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                of_total = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
                logger.info("%s: %s%s", title, f"{done / 1e6:,.1f}", of_total)


def _explain(error: Exception) -> str:
    """Says in few words what `requests` reports in many."""
    from requests import exceptions

    innermost: BaseException = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    reason = str(innermost) or type(innermost).__name__
    kinds = {
        exceptions.InvalidSchema: "refused: the address, or one it redirects to, is not https: ",
        exceptions.ProxyError: "the proxy does not let it through: ",
        exceptions.SSLError: "no secure connection: ",
    }
    return next((words for kind, words in kinds.items() if isinstance(error, kind)), "") + reason


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]+@", "//", url)
