"""Look into many video files at a time, for `vswin data check`."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from vswin.cores import count_cores
from vswin.data.decode_error import DecodeError
from vswin.data.stores import VIDEO_FILES, VideoStore

# Enough to see that a file decodes, and few enough for a second per hundred files.
NUM_FIRST_FRAMES = 8

_CHUNK_BYTES = 1 << 20
_CHUNK_FRAMES = 1000

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class FileFacts(NamedTuple):
    """What was found in a file.

    Attributes:
        num_bytes: its size.
        num_frames: pictures in it, of which those at the end are known to decode if all were; 0 if it cannot be used.
        height: of its frames, as they are to be shown.
        width: of its frames.
        reason: why it cannot be used; empty if it can.
    """

    num_bytes: int
    num_frames: int = 0
    height: int = 0
    width: int = 0
    reason: str = ""


def inspect_file(
    path: str, decoder: str, timeout_sec: float | None, decode: bool, store: VideoStore = VIDEO_FILES
) -> FileFacts:
    """Opens a file, counts its frames and decodes its beginning, or all of it.

    Args:
        path: the file.
        decoder: "auto", "opencv" or "pyav".
        timeout_sec: time for its beginning; None for any. All of it may take any time.
        decode: whether every frame is decoded.
        store: opens the file.
    """
    num_bytes = 0
    try:
        num_bytes = os.path.getsize(path)
        with store.open(path, decoder, None if decode else timeout_sec) as reader:
            num_frames = reader.num_video_frames
            wanted = np.arange(num_frames if decode else min(num_frames, NUM_FIRST_FRAMES))
            for start in range(0, len(wanted), _CHUNK_FRAMES):
                reader.read(wanted[start : start + _CHUNK_FRAMES], _corner)
            size = reader.frame_size
            num_pictures = num_frames - len(reader.repeats)
    except DecodeError as error:
        return FileFacts(num_bytes, reason=error.reason)
    except Exception as error:  # whatever happens to a decoder, the other files are still to be looked at
        return FileFacts(num_bytes, reason=f"{type(error).__name__}: {error}")
    return FileFacts(num_bytes, num_pictures, *size)


def _corner(frame: np.ndarray) -> np.ndarray:
    return frame[:1, :1]


def hash_file(path: str) -> str:
    """Makes a fingerprint of a file's content; of one that cannot be read, its path, which no other file has."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return path
    return digest.hexdigest()


def same_sized(facts: dict[str, FileFacts]) -> list[str]:
    """Lists the files that may have the same content as another: those of equal size that can be used."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path, fact in facts.items():
        if not fact.reason:
            by_size[fact.num_bytes].append(path)
    return [path for paths in by_size.values() if len(paths) > 1 for path in paths]


def in_parallel(work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[tuple[ItemT, ResultT]]:
    """Works on items with a thread for each processor; decoders and hashes run without Python's lock.

    Args:
        work: what is done with an item.
        items: any number; few at a time are taken.

    Yields:
        Items with their results, in the order in which they are done. Leaving early ends the work.
    """
    num_threads = count_cores()
    waiting = iter(items)
    executor = ThreadPoolExecutor(num_threads)
    running: dict[Future[ResultT], ItemT] = {}
    try:
        while True:
            for item in islice(waiting, 4 * num_threads - len(running)):
                running[executor.submit(work, item)] = item
            if not running:
                return
            done = wait(running, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda future: bool(future.exception())):  # results before errors
                yield running.pop(future), future.result()
    finally:
        executor.shutdown(cancel_futures=True)
