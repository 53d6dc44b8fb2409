"""Load chosen frames of videos, from a decoder or from a cache that returns the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from vswin.config.schema import DatasetConfig
from vswin.data.cache import LONGEST_KEPT, DiskCache, RamCache, check_space
from vswin.data.decode import DECODER_VERSIONS
from vswin.data.decode_error import DecodeError
from vswin.data.isolated import IsolatedReader, IsolatedVideos
from vswin.data.stores import VIDEO_FILES, FrameReader, VideoStore
from vswin.data.transforms import resize_short_side

T = TypeVar("T")

_NUM_SIZES = 5
_LARGEST_SIDE = 1 << 14


class FrameLoader:
    """Loads frames and records which decoder read which video; the threads of an input pipeline share one loader."""

    def __init__(
        self,
        decoder: str = "auto",
        timeout_sec: float | None = None,
        cache: RamCache | DiskCache | None = None,
        store: VideoStore = VIDEO_FILES,
    ) -> None:
        """Configures how videos are read; see `VideoReader` for `decoder`.

        `timeout_sec` is the time limit per clip, None for no limit; the `cache` holds whole videos of this `store`.
        """
        self.has_cache = cache is not None
        self._decoder = decoder
        self._timeout_sec = timeout_sec
        self._cache = cache
        self._store = store
        self._decoders_used: dict[str, str] = {}
        self._short_sides: dict[str, int] = {}
        self._not_kept: set[str] = set()

    def run(self, path: str, job: Callable[[FrameReader], T]) -> T:
        """Runs a job on an open video, in the process that decodes it; for another process, the job is pickled.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        with self._store.open(path, self._decoder, self._timeout_sec) as reader:
            result = reader.run(job) if isinstance(reader, IsolatedReader) else job(reader)
            self._note(reader)
            return result

    def load(self, path: str | Path, size: int, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Loads frames of a video without their numbers, see `load_numbered`."""
        return self.load_numbered(path, size, choose)[1]

    def load_numbered(
        self, path: str | Path, size: int, choose: Callable[[int], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loads frames of a video.

        Args:
            path: Name of the video; for a file, its path.
            size: Pixels of the frames' shorter side.
            choose: Maps the number of frames in the file, >= 2, to the frame numbers to load, int64 [n]; called once.

        Returns:
            The numbers, and the frames, uint8 [n, H, W, 3] RGB with min(H, W) == size.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        video = self._load_whole(str(path), size)
        if video is not None:
            numbers = choose(len(video))
            return numbers, video[numbers]
        with self._store.open(str(path), self._decoder, self._timeout_sec) as reader:
            numbers = choose(reader.num_video_frames)
            frames = reader.read(numbers, partial(resize_short_side, size=size))
            self._note(reader)
            return numbers, frames

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

    def _note(self, reader: FrameReader) -> None:
        self._short_sides[reader.path] = min(reader.frame_size)
        self._decoders_used[reader.path] = reader.decoder

    def _load_whole(self, path: str, size: int) -> np.ndarray | None:
        """Returns all frames of a video from the cache, and caches them first if possible; otherwise None."""
        if self._cache is None:
            return None
        video = self._cache.get(path, size)
        if video is not None or path in self._not_kept:
            return video
        with suppress(DecodeError), self._store.open(path, self._decoder, self._timeout_sec) as reader:
            if reader.num_video_frames <= LONGEST_KEPT:
                video = reader.read(np.arange(reader.num_video_frames), partial(resize_short_side, size=size))
                self._note(reader)
                if self._cache.put(path, size, video):
                    return video
        # The requested frames of a truncated or slow video may still be readable; the whole video is not tried again.
        self._not_kept.add(path)
        return None


def open_store(dataset: DatasetConfig, store: VideoStore = VIDEO_FILES) -> VideoStore:
    """Returns the store; with `dataset.isolate`, wraps it so that separate processes open its videos.

    Raises:
        InputError: If the processes cannot be started.
    """
    return IsolatedVideos(store) if dataset.isolate else store


def open_frames(
    dataset: DatasetConfig, size: int, paths: Sequence[str], store: VideoStore = VIDEO_FILES
) -> FrameLoader:
    """Makes a loader for a data set that is read repeatedly, with the configured cache for `paths` at `size` pixels.

    Raises:
        InputError: If the videos do not fit into the cache, or decoding cannot be isolated.
    """
    store = open_store(dataset, store)
    cache: RamCache | DiskCache | None = None
    if dataset.cache == "ram":
        cache = RamCache(store)
    elif dataset.cache == "disk":
        cache = DiskCache(Path(dataset.cache_dir), dataset.decoder, store)
    if cache is not None:
        check_space(cache, paths, size, store)
    return FrameLoader(dataset.decoder, dataset.clip_timeout_sec, cache, store)
