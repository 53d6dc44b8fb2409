"""Keep decoded videos for later epochs: all frames, resized, before anything random happens to them.

For small sets of short videos: ten seconds at 25 frames per second and 256 x 341 pixels take 65 MB.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil

from vswin.atomic import replacing
from vswin.data.decode import DECODER_VERSIONS
from vswin.data.decode_error import DecodeError
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.data.transforms import resize_short_side
from vswin.errors import InputError

# Two minutes, about 1 GB at 256 pixels: whole videos pass through memory on their way into a cache.
LONGEST_KEPT = 3000
NUM_SAMPLED = 20
# The model, the batches read ahead and other programs need memory, too.
USABLE_SHARE = 0.7
LEAST_FREE_SHARE = 0.1
# To be raised when the same video gives other frames than before.
_FRAMES_VERSION = 2

Choose = Callable[[int], np.ndarray]


class RamCache:
    """Keeps videos in the memory of this process."""

    def __init__(self, store: VideoStore = VIDEO_FILES) -> None:
        """Takes the store whose videos are kept."""
        self._store = store
        self._videos: dict[str, np.ndarray] = {}

    def has(self, path: str, size: int) -> bool:
        """Says whether a video is kept as it is now, with min(H, W) == size."""
        return _name(self._store, path, size) in self._videos

    def load(self, path: str, size: int, choose: Choose) -> np.ndarray | None:
        """Gives frames of a video, uint8 [n, H, W, 3] RGB with min(H, W) == size.

        Args:
            path: Video file.
            size: Pixels of the frames' shorter side.
            choose: From the number of frames of the video to the numbers of those to give, int64 [n]; is called
                once if the video is kept, otherwise not.

        Returns:
            The frames; None if the video is not kept.
        """
        video = self._videos.get(_name(self._store, path, size))
        return None if video is None else video[choose(len(video))]

    def put(self, path: str, size: int, video: np.ndarray) -> bool:
        """Keeps all frames of a video, see `load`, while 10 % of the memory stays free; says whether it did."""
        memory = psutil.virtual_memory()
        if self._store.identify(path) is None or memory.available - video.nbytes < LEAST_FREE_SHARE * memory.total:
            return False
        self._videos[_name(self._store, path, size)] = video
        return True

    def free_bytes(self) -> int:
        """Says how much may be kept."""
        return psutil.virtual_memory().available

    def __str__(self) -> str:
        return "of memory"


class DiskCache:
    """Keeps videos as files, for all processes and later runs.

    A file is named after the video (for a file its path, time of change and size), the size of the frames and the
    decoders, so nothing needs to be declared outdated. Readers see whole files only. One whose header or length is
    wrong, cut off or put there by others, counts as not there; bits that flip inside it are not noticed.
    """

    def __init__(self, folder: Path, decoder: str, store: VideoStore = VIDEO_FILES) -> None:
        """Makes the folder.

        Args:
            folder: Place of the files, shared or not; may be deleted at any time.
            decoder: As configured; what it reads is kept apart from what others read.
            store: Whose videos are kept.

        Raises:
            InputError: If it cannot be made.
        """
        self._folder = folder.expanduser()
        self._decoder = decoder
        self._store = store
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"dataset.cache_dir={folder} cannot be made ({error.strerror}); name another") from error

    def has(self, path: str, size: int) -> bool:
        """Says whether a video is kept as it is now, with min(H, W) == size."""
        return self._read(path, size, lambda num_frames: np.zeros(0, np.int64)) is not None

    def load(self, path: str, size: int, choose: Choose) -> np.ndarray | None:
        """Gives frames of a video, see `RamCache.load`; reads only these from the disk."""
        return self._read(path, size, choose)

    def put(self, path: str, size: int, video: np.ndarray) -> bool:
        """Keeps all frames of a video, see `load`; says whether it could be written."""
        if self._store.identify(path) is None:
            return False
        try:
            # Two threads may have read the same video.
            with self._lock, replacing(self._file(path, size)) as partial, partial.open("wb") as file:
                np.save(file, video)
        except OSError:
            return False
        return True

    def free_bytes(self) -> int:
        """Says how much may be kept."""
        return shutil.disk_usage(self._folder).free

    def __str__(self) -> str:
        return f"of disk in {self._folder}"

    def _file(self, path: str, size: int) -> Path:
        return self._folder / f"{_name(self._store, path, size, self._decoder, DECODER_VERSIONS)}.npy"

    def _read(self, path: str, size: int, choose: Choose) -> np.ndarray | None:
        try:
            with self._file(path, size).open("rb") as file:
                shape = _read_shape(file, size)
                return None if shape is None else _read_frames(file, shape, choose(shape[0]))
        except OSError:
            return None


def check_space(cache: RamCache | DiskCache, paths: Sequence[str], size: int, store: VideoStore = VIDEO_FILES) -> None:
    """Refuses a cache in which the videos will not fit, by the sizes of a few of them.

    Args:
        cache: What it holds already is not counted.
        paths: The videos.
        size: Pixels of the shorter side of the frames.
        store: Where the videos are.

    Raises:
        InputError: If they need more than 70 % of what is free.
    """
    missing = [path for path in paths if store.identify(path) is not None and not cache.has(path, size)]
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
    """Names a video as it is now; one that is gone has a name that nothing is kept under."""
    identity = store.identify(path) or ()
    return hashlib.sha256(json.dumps([*identity, size, _FRAMES_VERSION, *more]).encode()).hexdigest()


def _count_bytes(store: VideoStore, path: str, size: int) -> int:
    """Counts the bytes of a video's frames; 0 for a bad one, or one that is too long to be kept."""
    try:
        with store.open(path) as reader:
            if reader.num_video_frames > LONGEST_KEPT:
                return 0
            frame = reader.read(np.array([0]), partial(resize_short_side, size=size))
            return reader.num_video_frames * frame.size
    except DecodeError:
        return 0


def _read_shape(file: BinaryIO, size: int) -> tuple[int, ...] | None:
    """Reads the header of a NumPy file of frames and goes to the first one; None if it is anything else."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return None
    is_video = len(shape) == 4 and min(shape[1:3]) == size and shape[3] == 3 and dtype == np.uint8 and not is_fortran
    is_whole = os.fstat(file.fileno()).st_size == file.tell() + np.prod(shape, dtype=np.int64)
    return shape if is_video and is_whole and shape[0] > 0 else None


def _read_frames(file: BinaryIO, shape: tuple[int, ...], numbers: np.ndarray) -> np.ndarray | None:
    """Reads frames from behind the header, each distinct one once. A mapped file that shrinks would kill us."""
    start, frame_bytes = file.tell(), int(np.prod(shape[1:]))
    wanted, places = np.unique(numbers, return_inverse=True)
    frames = np.empty((len(wanted), *shape[1:]), np.uint8)  # [distinct, H, W, 3]
    for frame, number in zip(frames, wanted.tolist(), strict=True):
        file.seek(start + number * frame_bytes)
        if file.readinto(frame.data) != frame_bytes:  # type: ignore[attr-defined]
            return None
    return frames[places]  # [n, H, W, 3]
