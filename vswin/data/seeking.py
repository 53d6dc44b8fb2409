"""Read a segment of a video without reading what comes before it, as fast in a long film as in a short clip."""

from __future__ import annotations

import math
from collections.abc import Iterator

import av
import numpy as np

from vswin.data.decoders import (
    SOUGHT_CONTAINERS,
    FrameConverter,
    NotAsExpected,
    TimeLimit,
    find_stream,
    is_idr,
    length_bytes_of,
    open_container,
    read_packets,
)
from vswin.data.inspection import PacketPictures, check_file, check_whole
from vswin.data.samples import Segment
from vswin.errors import DecodeError

_CODECS = ("h264", "hevc", "vp9", "av1", "libdav1d")
# Lists round times to milliseconds, so a frame this much before the start belongs to the segment.
ROUNDING_SEC = 0.001
# No codec displays a picture later than this many packets.
_MOST_REORDERED = 32


class SoughtFrames:
    """Decodes frames of a segment, from the last key frame before them on.

    The frames are those whose display times lie in the segment, so they equal the frames that a reader from the start
    of the file finds there. Containers without display times, and codecs whose packets may hold no picture or several,
    are not read in this way.

    Attributes:
        times: Display times of the frames in seconds since the first frame of the video, float64 [N].
        frame_rate, matrix: As in `vswin.data.inspection.Inspection`.
    """

    def __init__(self, path: str, content: bytes | None, limit: TimeLimit, segment: Segment) -> None:
        """Finds the frames of a segment, which is in seconds.

        Raises:
            DecodeError: If the file is not a usable video, or ends before the segment.
            NotAsExpected: If the file must be read from its first frame on.
        """
        check_file(path, content)
        check_whole(path, content)
        self._path = path
        self._container = open_container(path, content, limit)
        try:
            self._stream, self._codec = find_stream(path, self._container)
            if self._container.format.name not in SOUGHT_CONTAINERS or self._codec.name not in _CODECS:
                raise NotAsExpected(f"{self._codec.name} in {self._container.format.name}")
            self._length_bytes = 0
            if self._codec.name == "h264":
                self._length_bytes = length_bytes_of(self._codec)
                self._codec.options = {"err_detect": "explode"}  # concealment depends on where decoding starts
            self._find(segment, limit)
        except BaseException:
            self.close()
            raise
        self.frame_rate = self._stream.average_rate or None
        self._convert = FrameConverter(path).convert

    def _find(self, segment: Segment, limit: TimeLimit) -> None:
        pictures = PacketPictures(self._path, self._codec)
        head: list[av.Packet] = []
        for packet in read_packets(self._container, self._stream):
            limit.check()
            if packet.size > 0:
                head.append(packet)
                pictures.add(packet)
            if len(head) == _MOST_REORDERED:
                break
        stamps = [packet.pts for packet in head if packet.pts is not None and not packet.is_discard]
        tick = float(self._stream.time_base or 0)
        if not stamps or tick == 0:
            raise NotAsExpected("no times")
        self._first_packet, origin = head[0], min(stamps)
        start = origin + math.ceil((segment.start - ROUNDING_SEC) / tick)
        end = math.inf if segment.end == math.inf else origin + math.ceil((segment.end - ROUNDING_SEC) / tick)

        # Decoding cannot start at every key frame, so the search may have to begin earlier.
        position = max(start, origin)
        while True:
            shown, entries, found = self._scan(position, start, end, pictures, limit)
            if entries and min(entries) <= max(start, origin):
                break
            if found >= position:
                raise NotAsExpected("decoding cannot start before the segment")
            position = found - 1
        if not shown:
            seconds = float(self._stream.duration or 0) * tick or (self._container.duration or 0) / av.time_base
            raise DecodeError(
                self._path, "segment outside the video", f"from {segment.start:g} s, it has {seconds:g} s"
            )
        if len(set(shown)) < len(shown):
            raise NotAsExpected("two frames have the same time")
        self._shown, self._entries, self.matrix = np.sort(np.array(shown, np.int64)), entries, pictures.matrix
        self.times = (self._shown - origin) * tick  # [N]

    def _scan(
        self, position: int, start: int, end: float, pictures: PacketPictures, limit: TimeLimit
    ) -> tuple[list[int], list[int], int]:
        """Reads packets without decoding: times of the frames and of the entries, and where the reading began."""
        self._container.seek(position, stream=self._stream)
        shown: list[int] = []
        entries: list[int] = []
        found, num_later = position, 0
        for number, packet in enumerate(read_packets(self._container, self._stream)):
            limit.check()
            if packet.size == 0:
                continue
            if packet.pts is None:
                raise NotAsExpected("no times")
            if number == 0:
                found = packet.pts if packet.dts is None else min(packet.pts, packet.dts)
            pictures.add(packet)
            if packet.is_keyframe and (self._length_bytes == 0 or is_idr(memoryview(packet), self._length_bytes)):
                entries.append(packet.pts)
            if start <= packet.pts < end and not packet.is_discard:
                shown.append(packet.pts)
            num_later = num_later + 1 if packet.pts >= end else 0
            if num_later == _MOST_REORDERED:
                break
        return shown, entries, found

    def decode(self, numbers: np.ndarray, limit: TimeLimit) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes frames of the segment: yields distinct numbers, from 0, with frames, uint8 [H, W, 3] BGR.

        A `NotAsExpected` if the decoder fails or a frame does not come out.
        """
        wanted = {int(self._shown[number]): int(number) for number in numbers}
        entry = max(time for time in self._entries if time <= min(wanted))
        self._codec.flush_buffers()
        if self._length_bytes:
            # The first packet of H.264 may name the encoder, whose faults FFmpeg then makes up for.
            self._codec.skip_frame = "ALL"
            self._codec.decode(self._first_packet)
        self._container.seek(int(entry), stream=self._stream)
        has_begun = False
        for packet in read_packets(self._container, self._stream):
            limit.check()
            has_begun = has_begun or packet.pts == entry
            if not has_begun:
                continue
            is_needed = self._length_bytes == 0 or packet.size == 0 or packet.pts in wanted
            self._codec.skip_frame = "DEFAULT" if is_needed else "NONREF"
            try:
                frames = self._codec.decode(packet if packet.size else None)
            except av.FFmpegError as error:
                raise NotAsExpected(str(error)) from None
            for frame in frames:
                if frame.pts in wanted:
                    if frame.is_corrupt or frame.interlaced_frame:
                        raise NotAsExpected("damaged or interlaced")
                    yield wanted.pop(frame.pts), self._convert(frame)
            if not wanted:
                return
        raise NotAsExpected(f"{len(wanted)} frames do not come out")

    def close(self) -> None:
        """Closes the file."""
        self._container.close()
