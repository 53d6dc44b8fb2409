"""Reading only the needed frames equals reading from the first frame on."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.data.decoders import H264Packets, NotAsExpected, TimeLimit
from vswin.data.inspection import inspect_video

CLIPS = Path(__file__).parent.parent / "clips"
X264 = ("-c:v", "libx264", "-x264-params")
# How x264 encodes 20 frames, and which packets are IDR pictures.
STREAMS = {
    "closed.mp4": ("keyint=6:min-keyint=6:scenecut=0:bframes=3:b-adapt=0", [0, 6, 12, 18]),
    "pyramid.mkv": ("keyint=9:min-keyint=9:scenecut=0:bframes=5:b-adapt=0:b-pyramid=normal", [0, 9, 18]),
    "strict_pyramid.mov": ("keyint=9:min-keyint=9:scenecut=0:bframes=5:b-adapt=0:b-pyramid=strict", [0, 9, 18]),
    "open.mp4": ("open-gop=1:keyint=6:min-keyint=6:scenecut=0:bframes=3:b-adapt=0", [0]),
    "open.mkv": ("open-gop=1:keyint=6:min-keyint=6:scenecut=0:bframes=3:b-adapt=0", [0]),
    "intra_refresh.mp4": ("intra-refresh=1:keyint=6:bframes=2", [0]),
    "no_b_frames.mp4": ("keyint=5:min-keyint=5:scenecut=0:bframes=0", [0, 5, 10, 15]),
    "many_references.mkv": ("keyint=10:min-keyint=10:scenecut=0:bframes=3:ref=8:weightp=2:weightb=1", [0, 10]),
    "slices.mp4": ("keyint=7:min-keyint=7:scenecut=0:bframes=2:b-adapt=0:slices=4", [0, 7, 14]),
    "spatial_direct.mp4": ("keyint=8:min-keyint=8:scenecut=0:bframes=3:direct=spatial:cabac=0", [0, 8, 16]),
    "temporal_direct.mp4": ("keyint=8:min-keyint=8:scenecut=0:bframes=3:direct=temporal", [0, 8, 16]),
}


@pytest.fixture
def stream(encode) -> Callable[[str], str]:
    """Encodes one of `STREAMS`."""
    return lambda name: encode(f"packets_{name}", *X264, STREAMS[name][0])


def forwards(path: str | Path, decoder: str = "opencv") -> np.ndarray:
    with VideoReader(path, decoder) as reader:
        return reader.read(np.arange(reader.num_video_frames))


def packets_of(path: str | Path) -> H264Packets | None:
    return inspect_video(str(path), TimeLimit(str(path), None), keep_packets=True).packets


class Spy:
    """Wraps a codec and records how each packet passes through it."""

    def __init__(self, packets: H264Packets) -> None:
        self.codec, self.skip_frame, self.seen = packets._codec, "DEFAULT", []
        packets._codec = self

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        self.codec.skip_frame = self.skip_frame
        frames = self.codec.decode(packet)
        self.seen.append((self.skip_frame, [] if packet is None else [packet.pts], len(frames)))
        return frames

    def flush_buffers(self) -> None:
        self.codec.flush_buffers()


@pytest.mark.parametrize("name", STREAMS)
def test_decoding_starts_at_idr_pictures_and_any_frames_equal_those_read_from_the_start(stream, name: str) -> None:
    path = stream(name)
    packets = packets_of(path)
    assert packets is not None
    assert packets._entries == STREAMS[name][1]
    packets.close()
    whole, rng = forwards(path), np.random.default_rng(0)
    with VideoReader(path) as reader:
        for _ in range(60):
            numbers = rng.choice(20, size=rng.integers(1, 9))
            assert np.array_equal(reader.read(numbers, may_skip=True), whole[numbers])
            assert reader.decoder == "pyav"
        assert reader.frame_size == (144, 176)


@pytest.mark.parametrize(
    ("name", "decoder"), [("demo.mp4", "pyav"), ("flipping_a_pancake.mkv", "pyav"), ("test.avi", "opencv")]
)
def test_clips_of_real_videos_equal_those_read_from_the_start(name: str, decoder: str) -> None:
    whole, rng = forwards(CLIPS / name), np.random.default_rng(1)
    for start in [0, len(whole) - 63, *rng.integers(0, len(whole) - 63, 6)]:
        numbers = start + np.arange(0, 63, 2)
        with VideoReader(CLIPS / name) as reader:
            assert np.array_equal(reader.read(numbers, may_skip=True), whole[numbers])
            assert reader.decoder == decoder


def test_only_what_is_needed_is_decoded(stream) -> None:
    packets = packets_of(stream("closed.mp4"))
    assert packets is not None
    spy = Spy(packets)
    numbers = [number for number, _ in packets.decode(np.array([13, 15]), TimeLimit("", None))]
    assert numbers == [13, 15]
    assert [skip for skip, _, _ in spy.seen[:12]] == ["ALL"] * 12
    wanted = [time for skip, times, _ in spy.seen[12:] for time in times if skip == "DEFAULT"]
    assert sorted(wanted) == packets._shown[[13, 15]].tolist()
    assert all(skip in ("NONREF", "DEFAULT") for skip, _, _ in spy.seen[12:])
    # IDR 12, P 16, and the B frames between them that are wanted or referenced.
    assert sum(frames for _, _, frames in spy.seen) <= 5
    packets.close()


def test_opencv_alone_and_whoever_does_not_ask_read_forwards(stream) -> None:
    path = stream("closed.mp4")
    with VideoReader(path, "opencv") as reader:
        reader.read(np.array([13]), may_skip=True)
        assert reader.decoder == "opencv"
    with VideoReader(path) as reader:
        reader.read(np.array([13]))
        assert reader.decoder == "opencv"
        reader.read(np.array([13]), may_skip=True)
        assert reader.decoder == "pyav"
        assert np.array_equal(reader.read(np.array([14, 3])), forwards(path)[[14, 3]])
        assert reader.decoder == "opencv"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stream.ts", ("-c:v", "libx264", "-g", "6")),
        ("old.avi", ("-c:v", "libx264", "-g", "6")),
        ("raw.h264", ("-c:v", "libx264", "-g", "6")),
        ("start_codes.mkv", ("-c:v", "libx264", "-g", "6", "-bsf:v", "h264_mp4toannexb")),
        ("other.mp4", ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")),
        ("other.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8")),
    ],
)
def test_what_does_not_say_which_packet_is_which_frame_is_read_forwards(encode, name: str, options: tuple) -> None:
    path = encode(f"packets_{name}", *options)
    if name != "start_codes.mkv":  # the container may convert its start codes to lengths
        assert packets_of(path) is None
    with VideoReader(path) as reader:
        found = reader.read(np.array([13, 15]), may_skip=True)
    assert np.array_equal(found, forwards(path)[[13, 15]])


def test_a_file_cut_in_the_middle_of_an_open_group_is_read_forwards(stream, ffmpeg, tmp_path: Path) -> None:
    path = str(tmp_path / "middle.mkv")
    ffmpeg("-ss", "0.3", "-i", stream("open.mp4"), "-c", "copy", path)
    with VideoReader(path) as reader:
        assert reader.num_video_frames < 20
        assert packets_of(path) is None
        numbers = np.arange(0, reader.num_video_frames - 5, 2)
        assert np.array_equal(reader.read(numbers, may_skip=True), reader.read(numbers))


@pytest.mark.parametrize("change", ["missing", "twice", "order"])
def test_times_that_do_not_number_the_frames_are_refused(stream, change: str) -> None:
    packets = packets_of(stream("no_b_frames.mp4"))
    assert packets is not None
    kept, video = packets._packets, packets._packets[0].stream
    if change == "order":
        # An IDR picture before which the player shows a later picture.
        kept[7].pts, kept[4].pts = kept[4].pts, kept[7].pts
        assert H264Packets("", packets._container, video, kept)._entries == [0, 10, 15]
    else:
        kept[7].pts = None if change == "missing" else kept[8].pts
        with pytest.raises(NotAsExpected, match="missing or there twice"):
            H264Packets("", packets._container, video, kept)
    packets.close()


@pytest.mark.parametrize("fault", ["error", "frame missing", "corrupt"])
def test_whatever_is_unexpected_leads_back_to_the_first_frame(stream, monkeypatch, fault: str) -> None:
    path = stream("closed.mp4")

    class Faulty(Spy):
        def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
            frames = super().decode(packet)
            if len(self.seen) == 15 and fault == "error":
                raise av.error.InvalidDataError(1, "broken")
            if fault == "corrupt":
                return [Corrupt(frame) for frame in frames]
            return [] if fault == "frame missing" else frames

    class Corrupt:
        is_corrupt, interlaced_frame = True, False

        def __init__(self, frame: av.VideoFrame) -> None:
            self.pts = frame.pts

    with VideoReader(path) as reader:
        assert reader._packets is not None
        spy = Faulty(reader._packets)
        found = reader.read(np.array([13, 15]), may_skip=True)
        assert len(spy.seen) > 12
        assert reader.decoder == "opencv"
    assert np.array_equal(found, forwards(path)[[13, 15]])


def test_damage_gives_what_reading_forwards_gives(stream, tmp_path: Path) -> None:
    """What the decoder would conceal is an error here, so the result does not depend on where decoding started."""
    path = stream("closed.mp4")
    packets = packets_of(path)
    assert packets is not None
    rng, num_fallbacks = np.random.default_rng(3), 0
    for place in (12, 13, 16):
        packet = packets._packets[place]
        content = bytearray(Path(path).read_bytes())
        start = packet.pos + packet.size // 3
        content[start : start + 40] = rng.bytes(40)
        damaged = tmp_path / f"{place}.mp4"
        damaged.write_bytes(content)
        with VideoReader(damaged) as reader:
            found = reader.read(np.array([13, 15, 17]), may_skip=True)
            num_fallbacks += reader.decoder == "opencv"
        assert np.array_equal(found, forwards(damaged)[[13, 15, 17]])
    packets.close()
    assert num_fallbacks > 0


def test_a_container_that_calls_every_picture_a_key_frame_is_not_believed(stream) -> None:
    path = stream("no_b_frames.mp4")
    packets = packets_of(path)
    assert packets is not None
    for packet in packets._packets:
        packet.is_keyframe = True
    believing = H264Packets("", packets._container, packets._packets[0].stream, packets._packets)
    assert believing._entries == STREAMS["no_b_frames.mp4"][1]
    (_, frame), *_ = believing.decode(np.array([9]), TimeLimit("", None))
    assert np.array_equal(frame[..., ::-1], forwards(path)[9])
    packets.close()
