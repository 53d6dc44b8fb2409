"""Load chosen frames of videos: decoded, or from a cache that gives the same bytes; and cut clips out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from vswin.data.cache import LONGEST_KEPT, DiskCache, RamCache, check_space
from vswin.data.decode import DECODER_VERSIONS
from vswin.data.decode_error import DecodeError
from vswin.data.isolated import IsolatedVideos
from vswin.data.stores import VIDEO_FILES, FrameReader, VideoStore
from vswin.data.transforms import Box, BoxCutter, crop, resize, resize_short_side, scale_short_side
from vswin.schema import DatasetConfig

DrawBox = Callable[[int, int], Box]
# Number of frames -> numbers of those to load, what draws the box
Plan = Callable[[int], tuple[np.ndarray, DrawBox]]

_NUM_SIZES = 5
_LARGEST_SIDE = 1 << 14


class FrameLoader:
    """Loads frames and knows which decoder read which video; the threads of an input pipeline share one."""

    def __init__(
        self,
        decoder: str = "auto",
        timeout_sec: float | None = None,
        cache: RamCache | DiskCache | None = None,
        store: VideoStore = VIDEO_FILES,
    ) -> None:
        """Sets up how videos are read.

        Args:
            decoder: "auto", "opencv" or "pyav", see `VideoReader`.
            timeout_sec: Time for a clip, > 0; None for any.
            cache: Keeps whole videos, of this same store; None decodes every time.
            store: Where the videos are.
        """
        self._decoder = decoder
        self._timeout_sec = timeout_sec
        self._cache = cache
        self._store = store
        self._decoders_used: dict[str, str] = {}
        self._short_sides: dict[str, int] = {}
        self._not_kept: set[str] = set()

    def load(self, path: str | Path, size: int, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Loads frames of a video.

        Args:
            path: Name of the video; for files, their path.
            size: Pixels of the frames' shorter side.
            choose: From the number of frames in the file, >= 2, to the numbers of those to load, int64 [n]; is
                called once.

        Returns:
            Frames, uint8 [n, H, W, 3] RGB with min(H, W) == size.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        frames = self._load_cached(str(path), size, choose)
        if frames is not None:
            return frames
        with self._store.open(str(path), self._decoder, self._timeout_sec) as reader:
            return self._read(reader, choose(reader.num_video_frames), partial(resize_short_side, size=size))

    def load_boxes(self, path: str | Path, size: int, side: int, plan: Plan) -> tuple[np.ndarray, tuple[int, int]]:
        """Loads frames of a video and cuts the same box out of each, see `BoxCutter`.

        Frames that are not asked for may be left undecoded, see `VideoReader.read`. A cache has the frames at `size`
        pixels, so what is cut out of them has been resized twice: where videos have another size, its pixels differ a
        little from those without a cache. With one, they do so whether or not it has room for the video.

        Args:
            path: Name of the video; for files, their path.
            size: Pixels of the shorter side of the frames that the box is drawn for.
            side: Pixels of the side of the square that the box is resized to.
            plan: From the number of frames in the file, >= 2, to the numbers of those to load, int64 [n], and to what
                draws the box from their H and W, min(H, W) == size; is called once.

        Returns:
            Boxes, uint8 [n, side, side, 3] RGB, and the (H, W) that the box was drawn for.

        Raises:
            DecodeError: If the file is not a usable video, or takes too long.
        """
        draw_box: DrawBox

        def choose(num_video_frames: int) -> np.ndarray:
            nonlocal draw_box
            numbers, draw_box = plan(num_video_frames)
            return numbers

        if self._cache is not None:
            frames = self.load(path, size, choose)  # [n, H, W, 3]
            height, width = frames.shape[1:3]
            return resize(crop(frames, draw_box(height, width)), side, side), (height, width)
        with self._store.open(str(path), self._decoder, self._timeout_sec) as reader:
            numbers = choose(reader.num_video_frames)
            boxes = self._read(reader, numbers, BoxCutter(size, side, draw_box), may_skip=True)
            return boxes, scale_short_side(*reader.frame_size, size)

    def count_videos(self) -> Counter[str]:
        """Counts the videos that each decoder has read so far, e.g. {"opencv": 99, "pyav": 1}."""
        return Counter(self._decoders_used.copy().values())

    def count_short_sides(self, add_up: Callable[[np.ndarray], np.ndarray] = np.asarray) -> dict[str, int]:
        """Counts the videos read so far by the pixels of their shorter side, the five most frequent and the rest.

        Copies of a data set differ in it, and by half a point in accuracy.

        Args:
            add_up: Adds to the videos of each number of pixels, int32 [pixels], those that other workers have read.
        """
        sides = np.array([*self._short_sides.copy().values()], int).clip(max=_LARGEST_SIDE)
        totals = add_up(np.bincount(sides, minlength=_LARGEST_SIDE + 1).astype(np.int32))
        counts = Counter({str(pixels): int(totals[pixels]) for pixels in totals.nonzero()[0]}).most_common()
        rest = sum(count for _, count in counts[_NUM_SIZES:])
        return dict(counts[:_NUM_SIZES]) | ({"other": rest} if rest else {})

    def describe_decoders(self) -> dict[str, object]:
        """Says what was configured, and of each decoder its version and the number of videos it has read."""
        counts = self.count_videos()
        used = {name: {"version": version, "videos": counts[name]} for name, version in DECODER_VERSIONS.items()}
        return {"configured": self._decoder, **used}

    def close(self) -> None:
        """Ends the processes that decode, where there are some."""
        if isinstance(self._store, IsolatedVideos):
            self._store.close()

    def _load_cached(self, path: str, size: int, choose: Callable[[int], np.ndarray]) -> np.ndarray | None:
        """Gives frames from the cache, which then has them if it can; None, and nothing chosen, where it has not."""
        if self._cache is None:
            return None
        self._keep(self._cache, path, size)
        return self._cache.load(path, size, choose)

    def _read(
        self,
        reader: FrameReader,
        numbers: np.ndarray,
        prepare: Callable[[np.ndarray], np.ndarray],
        may_skip: bool = False,
    ) -> np.ndarray:
        frames = reader.read(numbers, prepare, may_skip)
        self._short_sides[reader.path] = min(reader.frame_size)
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
        with suppress(DecodeError), self._store.open(path, self._decoder, self._timeout_sec) as reader:
            if reader.num_video_frames <= LONGEST_KEPT:
                video = self._read(reader, np.arange(reader.num_video_frames), partial(resize_short_side, size=size))
                is_kept = cache.put(path, size, video)
        if not is_kept:
            self._not_kept.add(path)


def open_store(dataset: DatasetConfig, store: VideoStore = VIDEO_FILES) -> VideoStore:
    """Gives a store, or with `dataset.isolate` one that opens its videos in processes of their own.

    Raises:
        InputError: If there cannot be such processes.
    """
    return IsolatedVideos(store) if dataset.isolate else store


def open_frames(
    dataset: DatasetConfig, size: int, paths: Sequence[str], store: VideoStore = VIDEO_FILES
) -> FrameLoader:
    """Sets up the reading of a data set that is read again and again.

    Args:
        dataset: Decoder, time limit, isolation and cache.
        size: Pixels of the frames' shorter side, for the cache.
        paths: All videos.
        store: Where they are.

    Returns:
        The loader.

    Raises:
        InputError: If the videos do not fit into the cache, or decoding cannot be isolated.
    """
    store = open_store(dataset, store)
    cache: RamCache | DiskCache | None
    match dataset.cache:
        case "ram":
            cache = RamCache(store)
        case "disk":
            cache = DiskCache(Path(dataset.cache_dir), dataset.decoder, store)
        case _:
            cache = None
    if cache is not None:
        check_space(cache, paths, size, store)
    return FrameLoader(dataset.decoder, dataset.clip_timeout_sec, cache, store)
