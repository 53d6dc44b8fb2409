"""The process behind `vswin.data.isolated`: it opens a video, reads and prepares frames of it, and sends them back.

Requests are pickles from the process that started this one. Replies are JSON and bare bytes: where a hostile file has
taken over its decoder, there is nothing in them that could take over the reader as well.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vswin.data.decode_error import DecodeError
from vswin.errors import InputError

if TYPE_CHECKING:
    from vswin.data.stores import FrameReader, VideoStore

# Length of the JSON of a reply.
LENGTH_BYTES = 4
# Much more than a clip of 8K frames needs; some files would have a decoder take whatever there is.
_MOST_BYTES = 8 << 30


class OpenVideo(NamedTuple):
    """Ask for a video, see `VideoStore.open`; the one before is closed."""

    path: str
    decoder: str
    timeout_sec: float | None


class ReadFrames(NamedTuple):
    """Ask for frames of the open video, see `FrameReader.read`."""

    frame_numbers: np.ndarray
    prepare: Callable[[np.ndarray], np.ndarray]
    may_skip: bool = False


class ReadTimes(NamedTuple):
    """Ask when the frames of the open video are shown, see `FrameReader.read_times`."""


class CloseVideo(NamedTuple):
    """Ask to close the video."""


Request = OpenVideo | ReadFrames | ReadTimes | CloseVideo


def serve(descriptor: int) -> None:
    """Answers requests until the other end of the connection is closed.

    Args:
        descriptor: Of a socket. A pickled `VideoStore` comes first, then requests.
    """
    _limit_memory()
    connection = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    requests = connection.makefile("rb")
    # S301: what comes through this socket is from the process that started this one, never from a file.
    server = _Server(pickle.load(requests))  # noqa: S301
    _send(connection, {}, None)
    while True:
        try:
            # S301: as above.
            request = pickle.load(requests)  # noqa: S301
        except EOFError:
            return
        _send(connection, *server.answer(request))


class _Server:
    """Has one video open at a time."""

    def __init__(self, store: VideoStore) -> None:
        self._store = store
        self._open = ExitStack()
        self._reader: FrameReader

    def answer(self, request: Request) -> tuple[Mapping[str, object], np.ndarray | None]:
        """Does what is asked; gives the JSON of the reply and the frames that follow it."""
        try:
            return self._answer(request)
        except DecodeError as error:
            return {"cause": error.cause, "detail": error.detail}, None
        except InputError as error:
            return {"input_error": str(error)}, None
        except Exception as error:  # whatever happens to a decoder
            return {"exception": f"{type(error).__name__}: {error}"}, None

    def _answer(self, request: Request) -> tuple[Mapping[str, object], np.ndarray | None]:
        if isinstance(request, ReadFrames):
            frames = self._reader.read(*request)
            return {**self._facts(), "frame_size": self._reader.frame_size, "shape": frames.shape}, frames
        if isinstance(request, ReadTimes):
            return {"times": self._reader.read_times().tolist()}, None
        self._open.close()
        if isinstance(request, OpenVideo):
            self._reader = self._open.enter_context(self._store.open(*request))
            rate = self._reader.frame_rate
            facts = {
                "num_video_frames": self._reader.num_video_frames,
                "frame_rate": None if rate is None else str(rate),
            }
            return {**self._facts(), **facts}, None
        return {}, None

    def _facts(self) -> dict[str, object]:
        return {"decoder": self._reader.decoder, "repeats": self._reader.repeats}


def _send(connection: socket.socket, facts: Mapping[str, object], frames: np.ndarray | None) -> None:
    text = json.dumps(facts).encode()
    connection.sendall(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    if frames is not None:
        connection.sendall(np.ascontiguousarray(frames).data.cast("B"))


def _limit_memory() -> None:
    """Lets a decoder that wants all memory fail, before the system ends some process or other."""
    if sys.platform == "linux":
        import resource  # which Windows lacks

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = taken + _MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _end_with_parent(descriptor: int) -> None:
    """Ends this process, however busy its decoder is, once the other end of the connection is closed."""
    watched = select.poll()
    watched.register(descriptor, 0)  # reports that it was hung up, whatever is asked for
    watched.poll()
    os._exit(0)
