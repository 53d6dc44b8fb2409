"""Load chosen frames of videos, from a decoder or from a cache that returns the same bytes.

A cache holds decoded videos for later epochs: all frames, resized, before any random augmentation. It suits small sets
of short videos: ten seconds at 25 frames per second and 256 x 341 pixels take 65 MB.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil

from vswin.atomic import replacing
from vswin.config.schema import DatasetConfig
from vswin.data.decode import VIDEO_FILES, FrameReader, Prepare, VideoStore
from vswin.data.decoders import DECODER_VERSIONS
from vswin.data.isolated import IsolatedVideos
from vswin.data.samples import WHOLE, Part, Sample
from vswin.data.transforms import resize_short_side
from vswin.errors import DecodeError, InputError

T = TypeVar("T")

# Frames, about two minutes or 1 GB at 256 pixels: a whole video must fit into memory before it is cached.
LONGEST_KEPT = 3000
NUM_SAMPLED = 20
# The model, prefetched batches and other programs also need memory.
_USABLE_FRACTION = 0.7
_LEAST_FREE_FRACTION = 0.1
# Raise this number when the same video gives different frames than before.
_FRAMES_VERSION = 2
_NUM_SIZES = 5
_LARGEST_SIDE = 1 << 14


class RamCache:
    """Caches videos, uint8 [N, H, W, 3] RGB, by name in the memory of this process."""

    def __init__(self) -> None:
        self._videos: dict[str, np.ndarray] = {}

    def get(self, name: str) -> np.ndarray | None:
        """Returns all frames of a video; None if it is not cached."""
        return self._videos.get(name)

    def put(self, name: str, video: np.ndarray) -> bool:
        """Caches all frames of a video if 10 % of the memory stays free; returns whether it did."""
        memory = psutil.virtual_memory()
        if memory.available - video.nbytes < _LEAST_FREE_FRACTION * memory.total:
            return False
        self._videos[name] = video
        return True

    def free_bytes(self) -> int:
        """Returns the available memory in bytes."""
        return psutil.virtual_memory().available

    def __str__(self) -> str:
        return "of memory"


class DiskCache:
    """Caches videos by name as files, for all processes and later runs.

    Readers only see whole files. A file with a wrong header or length, truncated or foreign, counts as missing; flipped
    bits inside a file are not detected.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder, which may be shared; its files may be deleted at any time, but not shortened.

        Raises:
            InputError: If the folder cannot be made.
        """
        self._folder = folder.expanduser()
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"dataset.cache_dir={folder} cannot be made ({error.strerror}); name another") from error

    def get(self, name: str) -> np.ndarray | None:
        """Returns all frames of a video, see `RamCache.get`; the disk is only read for frames that are accessed."""
        file = self._folder / f"{name}.npy"
        try:
            video = np.lib.format.open_memmap(file, mode="r")
            is_whole = file.stat().st_size == video.offset + video.nbytes
        except (OSError, ValueError):
            return None
        is_video = video.ndim == 4 and video.shape[3] == 3 and video.dtype == np.uint8 and video.flags.c_contiguous
        return np.asarray(video) if is_whole and is_video else None

    def put(self, name: str, video: np.ndarray) -> bool:
        """Caches all frames of a video; returns whether the file could be written."""
        try:
            # Two threads may write the same video.
            with self._lock, replacing(self._folder / f"{name}.npy") as unfinished, unfinished.open("wb") as file:
                np.save(file, video)
        except OSError:
            return False
        return True

    def free_bytes(self) -> int:
        """Returns the free disk space in bytes."""
        return shutil.disk_usage(self._folder).free

    def __str__(self) -> str:
        return f"of disk in {self._folder}"


class _CachedVideo(FrameReader):
    """Reads frames of a video that is decoded and resized already."""

    def __init__(self, path: str, video: np.ndarray) -> None:
        self.path = path
        self.num_video_frames = len(video)
        self._video = video

    def read(self, frame_numbers: np.ndarray, prepare: Prepare, may_skip: bool = False) -> np.ndarray:
        return np.stack([prepare(self._video[number]) for number in frame_numbers])


class FrameLoader:
    """Loads frames and records which decoder read which video; the threads of an input pipeline share one loader."""

    def __init__(
        self,
        decoder: str = "auto",
        timeout_sec: float | None = None,
        cache: RamCache | DiskCache | None = None,
        store: VideoStore = VIDEO_FILES,
    ) -> None:
        """Configures how the videos of `store` are read; see `VideoReader` for `decoder`.

        `timeout_sec` is the time limit per clip, None for no limit; the `cache` holds whole videos.
        """
        self.has_cache = cache is not None
        self._decoder = decoder
        self._timeout_sec = timeout_sec
        self._cache = cache
        self._store = store
        self._decoders_used: dict[str, str] = {}
        self._short_sides: dict[str, int] = {}
        self._not_kept: set[str] = set()

    def run(self, path: str | Path, size: int, job: Callable[[FrameReader], T], part: Part = WHOLE) -> T:
        """Runs a job on an open part of a video, in the process that decodes it; for another, the job is pickled.

        With a cache, the frames may be resized already: their shorter side then has `size` pixels.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        with self._open(str(path), size, part) as reader:
            return reader.run(job)

    def load(self, path: str | Path, size: int, choose: Callable[[int], np.ndarray], part: Part = WHOLE) -> np.ndarray:
        """Loads frames of a part of a video.

        Args:
            path: Name of the video; for a file, its path.
            size: Pixels of the frames' shorter side.
            choose: Maps the number of frames in the part to the frame numbers to load, int64 [n]; called once.
            part: The part of the video; the numbers of its frames count from 0.

        Returns:
            Frames, uint8 [n, H, W, 3] RGB with min(H, W) == size.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        with self._open(str(path), size, part) as reader:
            return reader.read(choose(reader.num_video_frames), partial(resize_short_side, size=size))

    def check_space(self, samples: Sequence[Sample], size: int) -> None:
        """Estimates from a few samples whether all samples that are not cached yet will fit into the cache.

        Raises:
            InputError: If they need more than 70 % of the free space.
        """
        if self._cache is None:
            return
        names = {self._name(sample.path, size, sample.part): sample for sample in samples}
        missing = [sample for name, sample in names.items() if name is not None and self._cache.get(name) is None]
        sampled = missing[:: -(-len(missing) // NUM_SAMPLED)] if missing else []
        num_bytes = [self._count_bytes(sample, size) for sample in sampled]
        needed, free = len(missing) * sum(num_bytes) / max(1, len(num_bytes)), self._cache.free_bytes()
        if needed > _USABLE_FRACTION * free:
            raise InputError(
                f"dataset.cache: {len(missing):,} videos take about {needed / 1e9:.1f} GB as frames of {size} pixels, "
                f"and {free / 1e9:.1f} GB {self._cache} are free; use another dataset.cache (none, ram, disk), "
                "another dataset.cache_dir, or a smaller clip.resize"
            )

    def count_videos(self) -> Counter[str]:
        """Counts the videos read so far by decoder, e.g. {"opencv": 99, "pyav": 1}."""
        return Counter(self._decoders_used.copy().values())

    def count_short_sides(self, add_up: Callable[[np.ndarray], np.ndarray] = np.asarray) -> dict[str, int]:
        """Counts the videos read so far by the pixels of their shorter side: the five most frequent sizes and the rest.

        Copies of a data set differ in this size, which changes the accuracy by half a point. `add_up` adds the counts
        of other workers to this worker's counts, int32 [pixels].
        """
        sides = np.array([*self._short_sides.copy().values()], int).clip(max=_LARGEST_SIDE)
        totals = add_up(np.bincount(sides, minlength=_LARGEST_SIDE + 1).astype(np.int32))
        counts = Counter({str(pixels): int(totals[pixels]) for pixels in totals.nonzero()[0]}).most_common()
        rest = sum(count for _, count in counts[_NUM_SIZES:])
        return dict(counts[:_NUM_SIZES]) | ({"other": rest} if rest else {})

    def describe_decoders(self) -> dict[str, object]:
        """Returns the configured decoder, and for each decoder its version and the number of videos it has read."""
        counts = self.count_videos()
        used = {name: {"version": version, "videos": counts[name]} for name, version in DECODER_VERSIONS.items()}
        return {"configured": self._decoder, **used}

    def close(self) -> None:
        """Ends the decoding processes, if there are any."""
        if isinstance(self._store, IsolatedVideos):
            self._store.close()

    @contextmanager
    def _open(self, path: str, size: int, part: Part) -> Iterator[FrameReader]:
        """Opens a part of a video: from the cache, which then caches it if possible, or from the store."""
        if self._cache is not None and (video := self._load_whole(path, size, part)) is not None:
            yield _CachedVideo(path, video)
            return
        with self._store.open(path, self._decoder, self._timeout_sec, part) as reader:
            yield reader
            self._note(f"{path}{part}", reader)

    def _load_whole(self, path: str, size: int, part: Part) -> np.ndarray | None:
        """Returns all frames of a part of a video from the cache, and caches them first if possible; otherwise None."""
        assert self._cache is not None
        name = self._name(path, size, part)
        if name is None:
            return None
        video, sample = self._cache.get(name), f"{path}{part}"
        if video is not None or sample in self._not_kept:
            return video
        with suppress(DecodeError), self._store.open(path, self._decoder, self._timeout_sec, part) as reader:
            if reader.num_video_frames <= LONGEST_KEPT:
                video = reader.read(np.arange(reader.num_video_frames), partial(resize_short_side, size=size))
                self._note(sample, reader)
                if self._cache.put(name, video):
                    return video
        # The requested frames of a truncated or slow video may still be readable; the whole video is not tried again.
        self._not_kept.add(sample)
        return None

    def _note(self, sample: str, reader: FrameReader) -> None:
        self._short_sides[sample] = min(reader.frame_size)
        self._decoders_used[sample] = reader.decoder

    def _name(self, path: str, size: int, part: Part) -> str | None:
        """Names a part of a video, as the file is now, in a cache; None if the file is missing."""
        identity = self._store.identify(path)
        if identity is None:
            return None
        shown = [str(part)] if part != WHOLE else []
        parts = [*identity, *shown, size, _FRAMES_VERSION, self._decoder, DECODER_VERSIONS]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _count_bytes(self, sample: Sample, size: int) -> int:
        """Counts the bytes of a sample's frames; 0 if it is bad or too long to cache."""
        try:
            with self._store.open(sample.path, part=sample.part) as reader:
                if reader.num_video_frames > LONGEST_KEPT:
                    return 0
                frame = reader.read(np.array([0]), partial(resize_short_side, size=size))
                return reader.num_video_frames * frame.size
        except DecodeError:
            return 0


def open_store(dataset: DatasetConfig, store: VideoStore = VIDEO_FILES) -> VideoStore:
    """Returns the store; with `dataset.isolate`, wraps it so that separate processes open its videos.

    Raises:
        InputError: If the processes cannot be started.
    """
    return IsolatedVideos(store) if dataset.isolate else store


def open_frames(
    dataset: DatasetConfig, size: int, samples: Sequence[Sample], store: VideoStore = VIDEO_FILES
) -> FrameLoader:
    """Makes a loader for a data set that is read repeatedly, with the configured cache for `samples` at `size` pixels.

    Raises:
        InputError: If the videos do not fit into the cache, or decoding cannot be isolated.
    """
    store = open_store(dataset, store)
    cache: RamCache | DiskCache | None = None
    if dataset.cache == "ram":
        cache = RamCache()
    elif dataset.cache == "disk":
        cache = DiskCache(Path(dataset.cache_dir))
    loader = FrameLoader(dataset.decoder, dataset.clip_timeout_sec, cache, store)
    loader.check_space(samples, size)
    return loader
