"""Finds published weights on this machine or downloads them once, checks them, and notices changes.

The search goes through the folder VSWIN_WEIGHTS_DIR, the cache, the mirror VSWIN_WEIGHTS_DIR and the owners' addresses,
in this order. Beside `<file>` the cache has the record `<file>.json` with the SHA-256; a download uses `<file>.lock`
and `<file>.partial`.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from vswin import __version__
from vswin.atomic import locked, replacing, sync_file
from vswin.console import Console, logger
from vswin.errors import InputError, nearest
from vswin.weights.published import PublishedWeights, Source, find_weights

if TYPE_CHECKING:
    import requests

CONNECT_SEC, STALL_SEC = 10.0, 30.0
# Pauses before each retry of a broken transfer.
PAUSES_SEC = (1.0, 2.0, 4.0)
SECONDS_BETWEEN_LINES = 10.0
_CHUNK_BYTES = 1 << 16
_IN_TROUBLE = (408, 425, 429, 500, 502, 503, 504)
# The folder VSWIN_WEIGHTS_DIR may hold files called as in the sources, or `<name><suffix>`; a name without a suffix is
# a SavedModel.
_SUFFIXES = (".pth", ".safetensors", ".h5", ".weights.h5", ".tar.gz", "")


class TransferError(Exception):
    """An address did not deliver its file; another address may."""


@dataclass(frozen=True)
class LocalCopy:
    """A copy of published weights on this machine, in the cache or in the user's folder.

    `path` may be a SavedModel folder; `source` is empty for the user's own file under the published name.
    """

    source: str
    path: Path
    num_bytes: int
    is_cached: bool


def fetch(name: str, source: str | None = None) -> Path:
    """Finds or downloads published weights.

    Without `source`, only copies of the same model are taken: the official one, then others with the same values and
    the head. A copy that its owner trained anew, or offers without the head, must be requested.

    Args:
        name: a published name, or its alias on the TF-Hub page.
        source: whose copy, e.g. `official` or `torchvision`; None for the first that is available.

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
    for copy in _find_copies(weights, sources, by_name=source is None):
        prefix = next((one.sha256_prefix for one in sources if one.name == copy.source), "")
        if copy.is_cached or (prefix and copy.path.is_file()):
            check_file(copy.path, prefix, copy.is_cached)
        whose = f"the copy of {copy.source}" if copy.source else "your own file"
        logger.info("weights of %s: %s at %s", weights.name, whose, copy.path)
        return copy.path

    mirror = weights_place()
    addresses = [(one, f"{mirror}/{one.file_name}") for one in sources] if isinstance(mirror, str) else []
    failures = ""
    for one, url in [*addresses, *((one, one.url) for one in sources)]:
        try:
            path = _download_once(one, url)
        except TransferError as error:
            failures += f"\n  {one.name}: {_without_password(url)}\n    {error}"
            logger.warning("weights of %s: %s gives none: %s", weights.name, _without_password(url), error)
        else:
            logger.info("weights of %s: the copy of %s at %s", weights.name, one.name, path)
            return path
    first = sources[0]
    others = [other for other in weights.sources if other not in sources]
    ways_out = [
        f"fetch {first.url} by hand and put it at {cache_folder() / first.file_name}",
        f"or into a folder and set VSWIN_WEIGHTS_DIR to it; it may also be the address of a mirror that has "
        f"{first.file_name}",
        *(f"take another copy: source={other.name} ({other.describe() or 'the same model'})" for other in others),
        "give a file or a run folder: init_from=PATH",
        "start from random weights: init_from=null",
    ]
    ways = "".join(f"\n    - {way}" for way in ways_out)
    raise InputError(f"the weights of {weights.name} cannot be downloaded; tried were{failures}\n  Ways out:{ways}")


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
    weights = find_weights(name)
    copies: dict[Path, LocalCopy] = {}
    for copy in _find_copies(weights, weights.sources, by_name=True):
        copies.setdefault(copy.path, copy)
    return list(copies.values())


def local_state(name: str) -> str:
    """Says which copies of published weights are on this machine, e.g. "cached: official 110 MB" or "not here"."""
    found: dict[str, list[str]] = {}
    for copy in local_copies(name):
        size = f"{copy.source or copy.path.name} {copy.num_bytes / 1e6:,.0f} MB"
        found.setdefault("cached" if copy.is_cached else "in VSWIN_WEIGHTS_DIR", []).append(size)
    return "; ".join(f"{place}: {', '.join(sizes)}" for place, sizes in found.items()) or "not here"


def _find_copies(weights: PublishedWeights, sources: Sequence[Source], by_name: bool) -> Iterator[LocalCopy]:
    """Yields copies in `sources` order, user folder before cache; `by_name` adds user files called `<name><suffix>`."""
    places = []
    if isinstance(folder := weights_place(), Path):
        for source in sources:
            # A TF-Hub archive may be unpacked.
            archive = source.file_name
            places += [(source.name, folder / file, False) for file in (archive, archive.removesuffix(".tar.gz"))]
        if by_name:
            places += [("", folder / f"{name}{suffix}", False) for name in weights.names for suffix in _SUFFIXES]
    places += [(source.name, cache_folder() / source.file_name, True) for source in sources]
    for source_name, path, is_cached in dict.fromkeys(places):
        with _explain_disk_errors(path.parent):
            if path.is_file():
                num_bytes = path.stat().st_size
            elif not is_cached and (path / "saved_model.pb").is_file():
                num_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            else:
                continue
        yield LocalCopy(source_name, path, num_bytes, is_cached)


@contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turns disk errors, e.g. of a full or read-only disk, into an `InputError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot keep weights ({error.strerror or error}); mend that, or set VSWIN_CACHE to another folder"
        ) from error


def check_file(path: Path, sha256_prefix: str = "", is_cached: bool = True) -> None:
    """Checks a file against its record, and records a file that was put into the cache by hand.

    Size and times of the last change (of content and of status) are compared each time; if one of them differs, the
    SHA-256 decides. This notices changes by any program without reading 350 MB at every start.

    Raises:
        InputError: if the file has changed, or its SHA-256 does not begin with `sha256_prefix`.
    """
    record: dict[str, Any] = {}
    beside = path.with_name(f"{path.name}.json")
    with suppress(OSError, ValueError, TypeError):
        record = dict(json.loads(beside.read_text())) if is_cached else {}
    with _explain_disk_errors(path.parent):
        if _stamp(path).items() <= record.items():
            return
        digest = _hash(path)
    recorded = record.get("sha256", digest)
    if digest != recorded:
        raise InputError(
            f"{path} has changed since {record.get('date', 'it was put there')}: its SHA-256 is {digest}, recorded was "
            f"{recorded}. Delete it to download it again; if the change is wanted, delete {beside.name} beside it"
        )
    if not digest.startswith(sha256_prefix):
        raise InputError(f"{path} is damaged or another file: its SHA-256 is {digest}, not {sha256_prefix}...")
    # The cache of another user may be read-only: then the file is hashed each time.
    with suppress(OSError):
        if is_cached:
            _record(path, {**record, "sha256": digest})


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _record(path: Path, facts: dict[str, Any]) -> None:
    with replacing(path.with_name(f"{path.name}.json")) as file:
        file.write_text(json.dumps({**facts, **_stamp(path)}, indent=1))


def _download_once(source: Source, url: str) -> Path:
    """Downloads one file into the cache, unless another process has done so meanwhile."""
    path = cache_folder() / source.file_name
    partial = path.with_name(f"{path.name}.partial")
    with ExitStack() as held:
        with _explain_disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_name(f"{path.name}.lock")
            held.enter_context(locked(lock, lambda: logger.info("another process downloads %s; waiting for it", path)))
        if path.is_file():
            check_file(path, source.sha256_prefix)
            return path
        logger.info("downloading %s to %s", _without_password(url), path)
        if not source.sha256_prefix:
            held.callback(partial.unlink, missing_ok=True)
        download(url, partial, bool(source.sha256_prefix))
        with _explain_disk_errors(path.parent):
            digest = _hash(partial)
            if not digest.startswith(source.sha256_prefix):
                partial.unlink()
                raise TransferError(f"wrong file: its SHA-256 is {digest}, not {source.sha256_prefix}...")
            sync_file(partial)
            os.replace(partial, path)
            date = datetime.now(timezone.utc).isoformat(timespec="seconds")
            _record(path, {"sha256": digest, "url": _without_password(url), "date": date})
    return path


def download(url: str, partial: Path, can_resume: bool) -> None:
    """Downloads a file, and tries again if the connection breaks.

    Args:
        url: address of the file. An https address may redirect to https only; a user's own mirror may be http.
        partial: file to write. No other process writes to it meanwhile.
        can_resume: whether to keep bytes that are already there and request only the rest. Only the hash of the whole
            file shows whether such parts belong together: check it afterwards.

    Raises:
        TransferError: if the address does not deliver the file.
        InputError: if the folder cannot hold it.
    """
    import requests
    from urllib3 import Retry

    # A server that reports trouble is asked again. One that cannot be reached is not: the next address may work.
    retry = Retry(
        total=len(PAUSES_SEC),
        connect=0,
        other=0,
        status_forcelist=_IN_TROUBLE,
        backoff_factor=PAUSES_SEC[0],
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    with requests.Session() as session:
        # Without compression, lengths and ranges count the bytes of the file itself.
        session.headers.update({"User-Agent": f"vswin/{__version__}", "Accept-Encoding": "identity"})
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
        if url.lower().startswith("https://"):
            del session.adapters["http://"]
        for pause in (*PAUSES_SEC, None):
            start = partial.stat().st_size if can_resume and partial.exists() else 0
            headers = {"Range": f"bytes={start}-"} if start else {}
            try:
                response = session.get(url, headers=headers, stream=True, timeout=(CONNECT_SEC, STALL_SEC))
            except requests.RequestException as error:
                raise TransferError(_explain(error)) from error
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
    if status not in (200, 206):
        raise TransferError(f"the server answered {status} {response.reason}")
    if headers.get("Content-Type", "").startswith("text/html"):
        raise TransferError("the server answered with a web page instead of the file")
    length = int(headers["Content-Length"]) if headers.get("Content-Length", "").isdigit() else None
    if length is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise TransferError("the server does not say how long the file is")
    free = shutil.disk_usage(partial.parent).free
    if length is not None and length > free:
        raise InputError(
            f"{length / 1e6:,.0f} MB are to be downloaded to {partial.parent}, where {free / 1e6:,.0f} MB are free; "
            "make room or set VSWIN_CACHE to another folder"
        )

    start = start if is_rest else 0
    total = None if length is None else start + length
    with _explain_disk_errors(partial.parent):
        try:
            with partial.open("ab" if start else "wb") as file:
                chunks = response.iter_content(_CHUNK_BYTES)
                file.writelines(_show_progress(chunks, partial.stem, start, total))
        except requests.RequestException as error:
            return f"the line broke: {_explain(error)}"
    if length is not None and response.raw.tell() != length:
        return f"the line broke after {response.raw.tell():,} of {length:,} bytes"
    if partial.stat().st_size == 0:
        raise TransferError("the server sent an empty file")
    return ""


def _show_progress(chunks: Iterable[bytes], title: str, start: int, total: int | None) -> Iterator[bytes]:
    """Passes chunks on and shows progress: a bar on a terminal, a line every ten seconds in a log."""
    console = Console(is_stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    began = last_line = time.monotonic()
    done = start
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=start)
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(task, completed=done)
            now = time.monotonic()
            if not console.is_terminal and now - last_line >= SECONDS_BETWEEN_LINES:
                last_line = now
                of_total = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
                speed = (done - start) / (now - began) / 1e6
                logger.info("%s: %s%s, %.1f MB/s", title, f"{done / 1e6:,.1f}", of_total, speed)


def _explain(error: Exception) -> str:
    """Says in few words what `requests` reports in many."""
    from requests import exceptions

    innermost: BaseException = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    reason = str(innermost) or type(innermost).__name__
    kinds = {
        exceptions.InvalidSchema: "refused: the address, or one it redirects to, is not https",
        exceptions.ProxyError: "the proxy does not let it through",
        exceptions.SSLError: "no secure connection",
    }
    words = next((f"{words}: " for kind, words in kinds.items() if isinstance(error, kind)), "")
    return f"{words}{reason}"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]+@", "//", url)
