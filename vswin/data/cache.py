"""Cache decoded videos for later epochs: all frames, resized, before any random augmentation.

The cache suits small sets of short videos: ten seconds at 25 frames per second and 256 x 341 pixels take 65 MB.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from vswin.atomic import replacing
from vswin.data.decode import DECODER_VERSIONS
from vswin.data.decode_error import DecodeError
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.data.transforms import resize_short_side
from vswin.errors import InputError

# Frames, about two minutes or 1 GB at 256 pixels: a whole video must fit into memory before it is cached.
LONGEST_KEPT = 3000
NUM_SAMPLED = 20
# The model, prefetched batches and other programs also need memory.
USABLE_SHARE = 0.7
LEAST_FREE_SHARE = 0.1
# Raise this number when the same video gives different frames than before.
_FRAMES_VERSION = 2


class RamCache:
    """Caches videos in the memory of this process."""

    def __init__(self, store: VideoStore = VIDEO_FILES) -> None:
        self._store = store
        self._videos: dict[str, np.ndarray] = {}

    def get(self, path: str, size: int) -> np.ndarray | None:
        """Returns all frames of a video, uint8 [N, H, W, 3] RGB with min(H, W) == size; None if it is not cached."""
        return self._videos.get(_name(self._store, path, size))

    def put(self, path: str, size: int, video: np.ndarray) -> bool:
        """Caches all frames of a video if 10 % of the memory stays free; returns whether it did."""
        memory = psutil.virtual_memory()
        if self._store.identify(path) is None or memory.available - video.nbytes < LEAST_FREE_SHARE * memory.total:
            return False
        self._videos[_name(self._store, path, size)] = video
        return True

    def free_bytes(self) -> int:
        """Returns the available memory in bytes."""
        return psutil.virtual_memory().available

    def __str__(self) -> str:
        return "of memory"


class DiskCache:
    """Caches videos as files, for all processes and later runs.

    A cache file's name depends on the video (for a file: path, modification time and size), the frame size and the
    decoders, so outdated files are never read. Readers only see whole files. A file with a wrong header or length,
    truncated or foreign, counts as missing; flipped bits inside a file are not detected.
    """

    def __init__(self, folder: Path, decoder: str, store: VideoStore = VIDEO_FILES) -> None:
        """Makes the folder, which may be shared; its files may be deleted at any time, but not shortened.

        Each configured `decoder` has its own cache files.

        Raises:
            InputError: If the folder cannot be made.
        """
        self._folder = folder.expanduser()
        self._decoder = decoder
        self._store = store
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"dataset.cache_dir={folder} cannot be made ({error.strerror}); name another") from error

    def get(self, path: str, size: int) -> np.ndarray | None:
        """Returns all frames of a video, see `RamCache.get`; the disk is only read for frames that are accessed."""
        file = self._file(path, size)
        try:
            video = np.lib.format.open_memmap(file, mode="r")
            is_whole = file.stat().st_size == video.offset + video.nbytes
        except (OSError, ValueError):
            return None
        is_video = video.ndim == 4 and min(video.shape[1:3]) == size and video.shape[3] == 3
        is_usable = is_whole and is_video and video.dtype == np.uint8 and video.flags.c_contiguous
        return np.asarray(video) if is_usable else None

    def put(self, path: str, size: int, video: np.ndarray) -> bool:
        """Caches all frames of a video; returns whether the file could be written."""
        if self._store.identify(path) is None:
            return False
        try:
            # Two threads may write the same video.
            with self._lock, replacing(self._file(path, size)) as partial, partial.open("wb") as file:
                np.save(file, video)
        except OSError:
            return False
        return True

    def free_bytes(self) -> int:
        """Returns the free disk space in bytes."""
        return shutil.disk_usage(self._folder).free

    def __str__(self) -> str:
        return f"of disk in {self._folder}"

    def _file(self, path: str, size: int) -> Path:
        return self._folder / f"{_name(self._store, path, size, self._decoder, DECODER_VERSIONS)}.npy"


def check_space(cache: RamCache | DiskCache, paths: Sequence[str], size: int, store: VideoStore = VIDEO_FILES) -> None:
    """Estimates from a few videos whether all videos that are not cached yet will fit into the cache.

    Raises:
        InputError: If they need more than 70 % of the free space.
    """
    missing = [path for path in paths if store.identify(path) is not None and cache.get(path, size) is None]
    sampled = missing[:: -(-len(missing) // NUM_SAMPLED)] if missing else []
    num_bytes = [_count_bytes(store, path, size) for path in sampled]
    needed, free = len(missing) * sum(num_bytes) / max(1, len(num_bytes)), cache.free_bytes()
    if needed > USABLE_SHARE * free:
        raise InputError(
            f"dataset.cache: {len(missing):,} videos take about {needed / 1e9:.1f} GB as frames of {size} pixels, "
            f"and {free / 1e9:.1f} GB {cache} are free; use another dataset.cache (none, ram, disk), "
            "another dataset.cache_dir, or a smaller clip.resize"
        )


def _name(store: VideoStore, path: str, size: int, *more: object) -> str:
    """Names the current version of a video; the name of a missing video is never cached."""
    identity = store.identify(path) or ()
    return hashlib.sha256(json.dumps([*identity, size, _FRAMES_VERSION, *more]).encode()).hexdigest()


def _count_bytes(store: VideoStore, path: str, size: int) -> int:
    """Counts the bytes of a video's frames; 0 if the video is bad or too long to cache."""
    try:
        with store.open(path) as reader:
            if reader.num_video_frames > LONGEST_KEPT:
                return 0
            frame = reader.read(np.array([0]), partial(resize_short_side, size=size))
            return reader.num_video_frames * frame.size
    except DecodeError:
        return 0
