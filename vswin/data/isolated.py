"""Decode in processes of their own, so that a decoder that crashes or hangs costs a clip and not the run."""

from __future__ import annotations

import atexit
import os
import pickle
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from vswin.data.decode_error import DecodeError
from vswin.data.decode_process import CloseVideo, OpenVideo, ReadFrames, ReadTimes, Request
from vswin.data.decode_worker import DecodeWorker, WorkerDied, WorkerPool
from vswin.data.stores import VideoStore
from vswin.errors import InputError

# Without a time limit a clip may take any time, but a decoder that hangs is not to hang the run.
LONGEST_SILENCE_SEC = 600.0
# A decoder that is merely slow notices its limit itself, between two frames, and lives on.
_GRACE_SEC = 1.0


class IsolatedVideos:
    """Opens the videos of another store in processes of their own; see `VideoStore`.

    There come to be as many processes as threads decode at once. They never import TensorFlow, and they end with this
    object, and with this process however it ends.
    """

    def __init__(self, store: VideoStore) -> None:
        """Starts the first process.

        Args:
            store: Where the videos are; it is pickled.

        Raises:
            InputError: If processes cannot be started, or do not work on this system.
        """
        if os.name != "posix":
            raise InputError("dataset.isolate=true: this needs Linux or macOS; set dataset.isolate=false")
        self._store = store
        self._pool = WorkerPool(pickle.dumps(store))
        # Before the exit waits for the threads that decode: they need not wait for their processes.
        atexit.register(self._pool.close)
        weakref.finalize(self, _forget, self._pool).atexit = False

    def open(self, path: str, decoder: str = "auto", timeout_sec: float | None = None) -> IsolatedReader:
        """Opens a video, see `VideoStore.open`; without a time limit, opening and each `read` may take ten minutes.

        Raises:
            DecodeError: As the other store does; and with the cause "decoder crashed" if the process ends, or with
                "too slow" if the decoder hangs.
        """
        return IsolatedReader(self, self._pool, OpenVideo(path, decoder, timeout_sec))

    def close(self) -> None:
        """Ends the processes; videos that are open, or opened later, give a `DecodeError`."""
        self._pool.close()

    def identify(self, path: str) -> tuple[object, ...] | None:
        """Does what the other store does."""
        return self._store.identify(path)


class IsolatedReader:
    """Reads frames of a video that another process has open; see `FrameReader`.

    `prepare` is pickled and runs in that process, so that frames travel in the size they are wanted in.
    """

    def __init__(self, videos: IsolatedVideos, pool: WorkerPool, request: OpenVideo) -> None:
        """Borrows a process and has it open the video; errors as in `IsolatedVideos.open`."""
        self.path = request.path
        self.frame_size = (0, 0)
        self._videos = videos  # which ends the processes when nobody needs it any more
        self._pool = pool
        self._worker: DecodeWorker | None = pool.borrow(self.path)
        self._timeout_sec = request.timeout_sec
        self._start = time.monotonic()
        try:
            facts, _ = self._ask(request)
        except BaseException:
            self._release()
            raise
        self.num_video_frames: int = facts["num_video_frames"]
        self.frame_rate = None if facts["frame_rate"] is None else Fraction(facts["frame_rate"])
        self.decoder: str = facts["decoder"]
        self.repeats: list[int] = facts["repeats"]

    def read(
        self, frame_numbers: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray], may_skip: bool = False
    ) -> np.ndarray:
        """Reads frames, see `VideoReader.read`; errors as in `IsolatedVideos.open`."""
        facts, frames = self._ask(ReadFrames(frame_numbers, prepare, may_skip))
        assert frames is not None
        self.decoder, self.repeats, self.frame_size = facts["decoder"], facts["repeats"], tuple(facts["frame_size"])
        return frames

    def read_times(self) -> np.ndarray:
        """Gives when frames are shown, see `VideoReader.read_times`; errors as in `IsolatedVideos.open`."""
        facts, _ = self._ask(ReadTimes())
        return np.array(facts["times"])

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the video; a decoder that only now crashes has done its work."""
        if self._worker is not None:
            with suppress(DecodeError):
                self._ask(CloseVideo())
        self._release()

    def _ask(self, request: Request) -> tuple[Any, np.ndarray | None]:
        if self._worker is None:
            raise DecodeError(self.path, "decoder crashed", "earlier")
        start, limit_sec = self._start, self._timeout_sec
        if limit_sec is None:
            start, limit_sec = time.monotonic(), LONGEST_SILENCE_SEC
        try:
            facts, frames = self._worker.ask(request, start + limit_sec + _GRACE_SEC)
        except WorkerDied as death:
            self._discard()
            raise DecodeError(self.path, "decoder crashed", str(death)) from None
        except TimeoutError:
            self._discard()
            detail = f"not read within {limit_sec:g} s, its decoder was ended"
            raise DecodeError(self.path, "too slow", detail) from None
        except BaseException:  # Ctrl-C, too, leaves a reply that nobody has read
            self._discard()
            raise
        if "cause" in facts:
            raise DecodeError(self.path, facts["cause"], facts["detail"])
        if "exception" in facts:
            raise DecodeError(self.path, "decoder crashed", facts["exception"])
        if "input_error" in facts:
            raise InputError(facts["input_error"])
        return facts, frames

    def _release(self) -> None:
        if self._worker is not None:
            self._pool.give_back(self._worker)
            self._worker = None

    def _discard(self) -> None:
        if self._worker is not None:
            self._pool.discard(self._worker)
            self._worker = None


def _forget(pool: WorkerPool) -> None:
    atexit.unregister(pool.close)
    pool.close()
