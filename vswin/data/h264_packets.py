"""Decode some frames of an H.264 video without those that they do not need, from its packets in memory.

Reading from the first frame on decodes everything before the frames that are wanted. Here decoding starts at the last
IDR picture before them, and pictures that no other refers to are left out unless they are wanted. Nothing is sought in
the file: all packets have been read already, to count them, and those before the IDR picture pass through the decoder
too, which takes from them what is said once (parameter sets, the encoder's version) and decodes no picture.

Source: ITU-T H.264, 7.4.1.2.4: no picture refers to one before the last IDR picture; 7.4.1: nor to one whose
    `nal_ref_idc` is 0, which is what FFmpeg calls NONREF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import numpy as np

from vswin.data.decode_error import TimeLimit
from vswin.data.pyav_frames import FrameConverter

# Their packets are whole pictures with the time at which each is shown. AVI and raw streams have no such times, and
# packets of MPEG streams may be anything.
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Packets of one video that are kept; a clip of ten seconds has 1 to 3 MB.
MOST_BYTES = 64 << 20
_IDR_SLICE = 5
_SLICES = range(1, 6)
_NAL_TYPE = 0x1F


class NotAsExpected(Exception):  # noqa: N818 - what was seen, not what is wrong
    """The file is not what its container says: only reading from the first frame on shows what is in it."""


class H264Packets:
    """Has the packets of a video, and decodes frames of it in any order.

    Frame k is the one that is shown as the k-th by the times of the packets, which is also the k-th that comes out of
    a decoder that reads from the start, if that gets a frame out of every packet. Where it does not, in a file that is
    damaged before the first frame that is wanted, its count slips, and frames differ.
    """

    def __init__(
        self, path: str, container: av.container.InputContainer, stream: av.VideoStream, packets: Sequence[av.Packet]
    ) -> None:
        """Takes an open file; `close` closes it.

        Args:
            path: The file.
            container: Open, as the stream lives as long as it.
            stream: Read to the end. Its decoder has one thread and takes what it would conceal for an error.
            packets: All that were read from it, but for the empty one at the end.

        Raises:
            NotAsExpected: If the container, the codec or the times do not say exactly which packet is which frame.
        """
        codec = stream.codec_context
        if container.format.name not in _CONTAINERS or codec is None or codec.name != "h264":
            raise NotAsExpected("not H.264 in MP4, MOV or Matroska")
        # ISO/IEC 14496-15, AVCDecoderConfigurationRecord: version 1, and the bytes of a length in the last two bits of
        # the fifth byte. Others, with start codes, do not occur in these containers but by mistake.
        header = codec.extradata or b""
        if len(header) < 5 or header[0] != 1:
            raise NotAsExpected("no lengths before its NAL units")
        times = [packet.pts for packet in packets]
        if None in times or len(set(times)) < len(times):
            raise NotAsExpected("times are missing or there twice")
        self._container = container
        self._codec = codec
        self._packets = packets
        self._convert = FrameConverter(path).convert
        self._times = np.array(times, np.int64)  # [packets]
        self._shown = np.sort(self._times[[not packet.is_discard for packet in packets]])  # [frames]
        self._entries = self._find_entries((header[4] & 3) + 1)
        if self._entries[:1] != [0]:
            raise NotAsExpected("it does not start with an IDR picture")

    def decode(self, numbers: np.ndarray, limit: TimeLimit) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes frames.

        Args:
            numbers: int64 [n], distinct, each in [0, number of packets to be shown).
            limit: Asked between packets.

        Yields:
            Each number with its frame, uint8 [H, W, 3] BGR, in the order in which they are shown.

        Raises:
            NotAsExpected: If anything but exactly these frames comes out of the decoder, or an error.
            DecodeError: If the time is over, or colours cannot be converted.
        """
        numbers_by_time = {int(self._shown[number]): int(number) for number in numbers}
        first = min(numbers_by_time)
        entry = max(entry for entry in self._entries if self._times[entry] <= first)
        last = int(np.flatnonzero(np.isin(self._times, list(numbers_by_time)))[-1])
        self._codec.flush_buffers()
        for place in range(last + 2):  # the last one gets out what the decoder holds back to bring it into order
            limit.check()
            packet = self._packets[place] if place <= last else None
            if place < entry:
                self._codec.skip_frame = "ALL"
            elif packet is None or packet.pts in numbers_by_time:
                self._codec.skip_frame = "DEFAULT"
            else:
                self._codec.skip_frame = "NONREF"
            try:
                frames = self._codec.decode(packet)
            except av.FFmpegError as error:
                raise NotAsExpected(str(error)) from None
            for frame in frames:
                if frame.pts not in numbers_by_time:
                    continue
                number = numbers_by_time.pop(frame.pts)
                # A picture of two fields may come in two packets.
                if frame.is_corrupt or frame.interlaced_frame:
                    raise NotAsExpected(f"frame {number} is damaged or interlaced")
                yield number, self._convert(frame)
        if numbers_by_time:
            raise NotAsExpected(f"{len(numbers_by_time)} frames do not come out")

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _find_entries(self, length_bytes: int) -> list[int]:
        """Lists the packets that decoding may start with: IDR pictures shown after all before, and before all after."""
        latest = np.maximum.accumulate(self._times)
        earliest = np.minimum.accumulate(self._times[::-1])[::-1]
        return [
            place
            for place, packet in enumerate(self._packets)
            if packet.is_keyframe
            and earliest[place] == latest[place] == self._times[place]
            and _is_idr(memoryview(packet), length_bytes)
        ]


def _is_idr(packet: memoryview, length_bytes: int) -> bool:
    """Says whether a packet's picture is an IDR one. Containers call others key frames as well."""
    place = 0
    while place + length_bytes < len(packet):
        start = place + length_bytes
        if (kind := packet[start] & _NAL_TYPE) in _SLICES:
            return kind == _IDR_SLICE
        place = start + int.from_bytes(packet[place:start], "big")
    return False
