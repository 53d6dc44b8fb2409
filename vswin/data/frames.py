"""Load chosen frames of videos: decoded, or from a cache that gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from vswin.config import DatasetConfig
from vswin.data.cache import LONGEST_KEPT, DiskCache, RamCache, check_space
from vswin.data.decode import DECODER_VERSIONS, VideoReader
from vswin.data.decode_error import DecodeError
from vswin.data.transforms import resize_short_side


class FrameLoader:
    """Loads frames and knows which decoder read which video; the threads of an input pipeline share one."""

    def __init__(
        self,
        decoder: str = "auto",
        timeout_sec: float | None = None,
        cache: RamCache | DiskCache | None = None,
    ) -> None:
        """Sets up how videos are read.

        Args:
            decoder: "auto", "opencv" or "pyav", see `VideoReader`.
            timeout_sec: Time for a clip, > 0; None for any.
            cache: Keeps whole videos; None decodes every time.
        """
        self._decoder = decoder
        self._timeout_sec = timeout_sec
        self._cache = cache
        self._decoders_used: dict[str, str] = {}
        self._not_kept: set[str] = set()

    def load(self, path: str | Path, size: int, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Loads frames of a video.

        Args:
            path: Video file.
            size: Pixels of the frames' shorter side.
            choose: From the number of frames in the file, >= 2, to the numbers of those to load, int64 [n]; is
                called once.

        Returns:
            Frames, uint8 [n, H, W, 3] RGB with min(H, W) == size.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        frames = None
        if self._cache is not None:
            self._keep(self._cache, str(path), size)
            frames = self._cache.load(str(path), size, choose)
        return self._decode(str(path), size, choose) if frames is None else frames

    def count_videos(self) -> Counter[str]:
        """Counts the videos that each decoder has read so far, e.g. {"opencv": 99, "pyav": 1}."""
        return Counter(self._decoders_used.copy().values())

    def describe_decoders(self) -> dict[str, object]:
        """Says what was configured, and of each decoder its version and the number of videos it has read."""
        counts = self.count_videos()
        used = {name: {"version": version, "videos": counts[name]} for name, version in DECODER_VERSIONS.items()}
        return {"configured": self._decoder, **used}

    def _decode(self, path: str, size: int, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        with VideoReader(path, self._decoder, self._timeout_sec) as reader:
            return self._read(reader, choose(reader.num_video_frames), size)

    def _read(self, reader: VideoReader, numbers: np.ndarray, size: int) -> np.ndarray:
        frames = reader.read(numbers, partial(resize_short_side, size=size))
        self._decoders_used[reader.path] = reader.decoder
        return frames

    def _keep(self, cache: RamCache | DiskCache, path: str, size: int) -> None:
        """Puts a video into the cache unless it is there already.

        A video that cannot be read whole, truncated or too slow, may still have the frames that are asked for; it
        is not tried again, nor is one that is too long or finds no place.
        """
        if path in self._not_kept or cache.has(path, size):
            return
        is_kept = False
        with suppress(DecodeError), VideoReader(path, self._decoder, self._timeout_sec) as reader:
            if reader.num_video_frames <= LONGEST_KEPT:
                video = self._read(reader, np.arange(reader.num_video_frames), size)
                is_kept = cache.put(path, size, video)
        if not is_kept:
            self._not_kept.add(path)


def open_frames(dataset: DatasetConfig, size: int, paths: Sequence[str]) -> FrameLoader:
    """Sets up the reading of a data set that is read again and again.

    Args:
        dataset: Decoder, time limit and cache.
        size: Pixels of the frames' shorter side, for the cache.
        paths: All videos.

    Returns:
        The loader.

    Raises:
        InputError: If the videos do not fit into the cache.
    """
    cache: RamCache | DiskCache | None
    match dataset.cache:
        case "ram":
            cache = RamCache()
        case "disk":
            cache = DiskCache(Path(dataset.cache_dir), dataset.decoder)
        case _:
            cache = None
    if cache is not None:
        check_space(cache, paths, size)
    return FrameLoader(dataset.decoder, dataset.clip_timeout_sec, cache)
