"""Where the files of published weights are on this machine: the folder VSWIN_WEIGHTS_DIR, then the cache."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vswin.errors import InputError
from vswin.published import PublishedWeights, Source, find_weights
from vswin.weights.downloads.cached_file import explain_disk_errors

# Beside the file names of the sources, the folder of VSWIN_WEIGHTS_DIR may hold `<name><suffix>`; a bare name is a
# SavedModel.
_SUFFIXES = (".pth", ".safetensors", ".h5", ".weights.h5", ".tar.gz", "")


@dataclass(frozen=True)
class LocalCopy:
    """Says which copy of published weights is here.

    Args:
        source: name of the source; empty for a file of the user's own under the published name.
        path: a file, or the folder of a SavedModel.
        num_bytes: size of the file; of a folder, of all its files.
        is_cached: whether it is in the cache, not in the user's folder.
        is_whole: whether it is more than the beginning of a download.
    """

    source: str
    path: Path
    num_bytes: int
    is_cached: bool
    is_whole: bool = True


def cache_folder() -> Path:
    """Names the folder of downloaded weights.

    Returns:
        `$VSWIN_CACHE/weights`, else `$XDG_CACHE_HOME/vswin/weights`, else `~/.cache/vswin/weights`; it need not exist.
    """
    if own := os.environ.get("VSWIN_CACHE"):
        return Path(own).expanduser().absolute() / "weights"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(xdg) if os.path.isabs(xdg) else Path("~/.cache").expanduser()
    return base / "vswin" / "weights"


def weights_folder() -> Path | None:
    """Gives the user's folder of weights; None if VSWIN_WEIGHTS_DIR is not set or is a mirror.

    Raises:
        InputError: if it is not there.
    """
    value = os.environ.get("VSWIN_WEIGHTS_DIR", "")
    if not value or mirror_address():
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"VSWIN_WEIGHTS_DIR={value} is neither a folder nor an http(s) address; correct or unset it")
    return folder


def mirror_address() -> str | None:
    """Gives the address that VSWIN_WEIGHTS_DIR names, without a slash at its end; None if it is not set or a folder."""
    value = os.environ.get("VSWIN_WEIGHTS_DIR", "")
    return value.rstrip("/") if value.lower().startswith(("http://", "https://")) else None


def partial_path(path: Path) -> Path:
    """Names the file that holds a download until it is whole."""
    return path.with_name(f"{path.name}.partial")


def find_copies(weights: PublishedWeights, sources: Sequence[Source], by_name: bool) -> Iterator[LocalCopy]:
    """Looks for whole copies, best first: the user's folder before the cache, in each the sources in order.

    Args:
        weights: what is looked for.
        sources: whose copies will do.
        by_name: whether files under the published name will do, too, whoever they come from.

    Yields:
        What is there.

    Raises:
        InputError: if VSWIN_WEIGHTS_DIR names no folder, or a folder cannot be read.
    """
    folder = weights_folder()
    if folder:
        named = [(source.name, file) for source in sources for file in _file_names(source)]
        if by_name:
            named += [("", name + suffix) for name in weights.names for suffix in _SUFFIXES]
        for source_name, file_name in named:
            yield from _measure(source_name, folder / file_name, is_cached=False)
    for source in sources:
        yield from _measure(source.name, cache_folder() / source.file_name, is_cached=True)


def local_copies(name: str) -> list[LocalCopy]:
    """Lists every copy of published weights that is here, and downloads that stopped half-way.

    Args:
        name: a published name.

    Raises:
        InputError: if there is no such name, or a folder cannot be read.
    """
    weights = find_weights(name)
    copies: dict[Path, LocalCopy] = {}
    for copy in find_copies(weights, weights.sources, by_name=True):
        copies.setdefault(copy.path, copy)
    for source in weights.sources:
        partial = partial_path(cache_folder() / source.file_name)
        for copy in _measure(source.name, partial, is_cached=True, is_whole=False):
            copies[partial] = copy
    return list(copies.values())


def local_state(name: str) -> str:
    """Says which copies of published weights are here, e.g. "cached: official 110 MB" or "not here".

    Args:
        name: a published name.

    Raises:
        InputError: if there is no such name, or a folder cannot be read.
    """
    found: dict[str, list[str]] = {}
    for copy in local_copies(name):
        place = "cached" if copy.is_cached else "in VSWIN_WEIGHTS_DIR"
        key = place if copy.is_whole else "begun"
        label = copy.source or copy.path.name
        found.setdefault(key, []).append(f"{label} {copy.num_bytes / 1e6:,.0f} MB")
    return "; ".join(f"{key}: {', '.join(copies)}" for key, copies in found.items()) or "not here"


def _file_names(source: Source) -> tuple[str, ...]:
    """Names what a copy may be called in the user's folder; a TF-Hub archive may be unpacked."""
    archive = source.file_name
    return (archive, archive.removesuffix(".tar.gz")) if archive.endswith(".tar.gz") else (archive,)


def _measure(source: str, path: Path, is_cached: bool, is_whole: bool = True) -> Iterator[LocalCopy]:
    """Gives the copy at a path if there is one: a file, or outside the cache the folder of a SavedModel."""
    with explain_disk_errors(path.parent):
        if path.is_file():
            num_bytes = path.stat().st_size
        elif not is_cached and (path / "saved_model.pb").is_file():
            num_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        else:
            return
    yield LocalCopy(source, path, num_bytes, is_cached, is_whole)
