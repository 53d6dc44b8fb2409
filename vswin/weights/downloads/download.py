"""Get the file behind a published name: from the user's folder, the cache, a mirror or its owner's address."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from vswin.errors import InputError, nearest
from vswin.published import PublishedWeights, Source, find_weights
from vswin.weights.downloads.cached_file import (
    check_file,
    check_prefix,
    explain_disk_errors,
    hash_file,
    lock,
    record_file,
)
from vswin.weights.downloads.places import LocalCopy, cache_folder, find_copies, mirror_address, partial_path
from vswin.weights.downloads.transfer import TransferError, discard, download

logger = logging.getLogger("vswin")


def fetch(name: str, source: str | None = None) -> Path:
    """Finds or downloads published weights.

    Looked at in this order: the folder VSWIN_WEIGHTS_DIR, the cache, the mirror VSWIN_WEIGHTS_DIR, the addresses of
    the owners. Without `source` only copies of the very model are taken: the official one, then others of the same
    values with the head. What an owner trained anew, or offers without the head, must be asked for.

    Args:
        name: a published name, or its alias on the TF-Hub page.
        source: whose copy, e.g. `official` or `torchvision`; None for the first that can be had.

    Returns:
        The file; for a TF-Hub model its archive, or in the folder VSWIN_WEIGHTS_DIR also its unpacked folder.
        Files of the cache are whole and as their records say; whether they hold good weights is for the reader to see.

    Raises:
        InputError: if there is no such name or source, the file cannot be had or kept, or has changed.
    """
    weights = find_weights(name)
    sources = _choose_sources(weights, source)
    for copy in find_copies(weights, sources, by_name=source is None):
        _check_copy(copy, sources)
        logger.info("weights of %s: %s at %s", weights.name, _describe(copy.source), copy.path)
        return copy.path
    return _download_first(weights, sources)


def _choose_sources(weights: PublishedWeights, source: str | None) -> list[Source]:
    """Lists the sources whose copies will do, best first."""
    if source is None:
        return [candidate for candidate in weights.sources if candidate.is_same_model]
    chosen = [candidate for candidate in weights.sources if candidate.name == source]
    if not chosen:
        names = [candidate.name for candidate in weights.sources]
        raise InputError(f"source={source} does not offer {weights.name}: {nearest(source, names)}")
    return chosen


def _check_copy(copy: LocalCopy, sources: Sequence[Source]) -> None:
    """Checks a file that is here; the user's own files against their owner's hash alone."""
    prefix = next((source.sha256_prefix for source in sources if source.name == copy.source), "")
    with explain_disk_errors(copy.path.parent):
        if copy.is_cached:
            check_file(copy.path, prefix)
        elif prefix and copy.path.is_file():
            check_prefix(copy.path, hash_file(copy.path), prefix)


def _download_first(weights: PublishedWeights, sources: Sequence[Source]) -> Path:
    """Downloads from the first address that gives the file, all of a mirror before those of the owners."""
    mirror = mirror_address()
    candidates = [(source, f"{mirror}/{source.file_name}") for source in sources] if mirror else []
    candidates += [(source, source.url) for source in sources]
    failures = []
    for source, url in candidates:
        is_http_mirror = mirror is not None and url.startswith(f"{mirror}/") and mirror.lower().startswith("http://")
        try:
            path = _download(source, url, is_http_mirror)
        except TransferError as error:
            failures.append(f"{source.name}: {_without_password(url)}\n    {error}")
            logger.warning("weights of %s: %s gives none: %s", weights.name, _without_password(url), error)
        else:
            logger.info("weights of %s: %s at %s", weights.name, _describe(source.name), path)
            return path
    raise InputError(_explain_failures(weights, sources, failures))


def _download(source: Source, url: str, allow_http: bool) -> Path:
    """Downloads one file into the cache, unless another process is faster."""
    path = cache_folder() / source.file_name
    partial = partial_path(path)
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path):
        if path.is_file():
            check_file(path, source.sha256_prefix)
            return path
        logger.info("downloading %s to %s", _without_password(url), path)
        download(url, partial, allow_http)
        with explain_disk_errors(path.parent):
            digest = hash_file(partial)
            if not digest.startswith(source.sha256_prefix):
                discard(partial)
                raise TransferError(f"wrong file: its SHA-256 is {digest}, not {source.sha256_prefix}...")
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            discard(partial)
            record_file(path, digest, _without_password(url))
    return path


def _describe(source: str) -> str:
    return f"the copy of {source}" if source else "your own file"


def _explain_failures(weights: PublishedWeights, sources: Sequence[Source], failures: Sequence[str]) -> str:
    """Says what was tried and every way out."""
    source = sources[0]
    tried = "".join(f"\n  {failure}" for failure in failures)
    others = [other for other in weights.sources if other not in sources]
    lines = [
        f"fetch {source.url} by hand and put it at {cache_folder() / source.file_name}",
        f"or into a folder and set VSWIN_WEIGHTS_DIR to it; it may also be the address of a mirror that has "
        f"{source.file_name}",
        *(f"take another copy: source={other.name} ({other.describe() or 'the same model'})" for other in others),
        "give a file or a run folder: init_from=PATH",
        "start from random weights: init_from=null",
    ]
    ways_out = "".join(f"\n    - {line}" for line in lines)
    return f"the weights of {weights.name} cannot be downloaded; tried were{tried}\n  Ways out:{ways_out}"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]+@", "//", url)
