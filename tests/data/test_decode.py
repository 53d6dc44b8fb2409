import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vswin.data import decode, decoders
from vswin.data.decode import VideoReader
from vswin.data.decoders import OpenCVDecoder, check_opencv
from vswin.data.inspection import Inspection
from vswin.errors import DecodeError, InputError

CLIPS = Path(__file__).parent.parent / "clips"


@pytest.fixture
def promise(monkeypatch):
    """Makes files announce more frames than can be decoded, as if the last packets decoded to nothing."""

    def promised(num_frames: int) -> None:
        monkeypatch.setattr(decode, "inspect_video", lambda *_, keep_packets: Inspection(num_frames, False, None))

    return promised


@pytest.mark.parametrize(("name", "tolerance"), [("ramp.avi", 0), ("ramp.mp4", 5)])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (46, 34)])
def test_read_gives_the_asked_frames(write_video, name: str, tolerance: int, height: int, width: int) -> None:
    path = write_video(f"{height}x{width}_{name}", 20, height, width)
    asked = [7, 3, 3, 19, 0, 7]
    with VideoReader(path) as reader:
        assert reader.num_video_frames == 20
        frames = reader.read(np.array(asked))
    assert frames.shape == (6, height, width, 3)
    assert frames.dtype == np.uint8
    expected = 10 + 12 * np.array(asked)[:, None, None, None]
    assert np.abs(frames.astype(int) - expected).max() <= tolerance


def test_channels_are_rgb(tmp_path: Path) -> None:
    path = str(tmp_path / "red.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(2):
        writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))
    writer.release()
    with VideoReader(path) as reader:
        red, green, blue = reader.read(np.array([0])).mean(axis=(0, 1, 2))
    assert red > 240
    assert max(green, blue) < 10


def test_each_distinct_frame_is_retrieved_once_and_others_never(write_video, monkeypatch) -> None:
    counts = {"grab": 0, "retrieve": 0}

    class Counting:
        def __init__(self, *arguments: object) -> None:
            self.capture = original(*arguments)

        def __getattr__(self, name: str) -> object:
            if name in counts:
                counts[name] += 1
            return getattr(self.capture, name)

    original = cv2.VideoCapture
    monkeypatch.setattr(decoders.cv2, "VideoCapture", Counting)
    with VideoReader(write_video("counted.avi", 30)) as reader:
        reader.read(np.array([10, 2, 10, 4, 2]))
    assert counts == {"grab": 11, "retrieve": 3}


@pytest.mark.parametrize("number", [-1, 20])
def test_frames_outside_the_video_are_refused(write_video, number: int) -> None:
    with VideoReader(write_video("short.avi", 20)) as reader, pytest.raises(ValueError, match="of 20 in"):
        reader.read(np.array([0, number]))


def test_video_without_duration_is_counted(write_video, ffmpeg, frames_seen, tmp_path: Path) -> None:
    path = str(tmp_path / "stream.m4v")
    ffmpeg("-i", write_video("streamed.mp4", 15), "-c:v", "mpeg4", "-q:v", "2", "-f", "m4v", path)
    assert not 0 < cv2.VideoCapture(path).get(cv2.CAP_PROP_FRAME_COUNT) < 1000
    with VideoReader(path) as reader:
        assert reader.num_video_frames == 15
        assert frames_seen(reader.read(np.array([14, 0]))) == [14, 0]


def test_varying_frame_rate_is_counted(ffmpeg, tmp_path: Path) -> None:
    path = str(tmp_path / "varying.mkv")
    pick = "select='lt(n,40)+gt(n,100)*not(mod(n,5))'"
    ffmpeg("-i", str(CLIPS / "test.avi"), "-vf", pick, "-fps_mode", "vfr", "-an", path)
    with VideoReader(path) as reader:
        assert reader.num_video_frames == 40 + 12
        assert len(reader.read(np.array([51]))) == 1


def test_hidden_frames_before_a_cut_are_not_counted(ffmpeg, tmp_path: Path) -> None:
    path = str(tmp_path / "cut.mp4")
    ffmpeg("-ss", "3.3", "-i", str(CLIPS / "demo.mp4"), "-c", "copy", path)
    assert cv2.VideoCapture(path).get(cv2.CAP_PROP_FRAME_COUNT) == 280
    with VideoReader(path) as reader, VideoReader(CLIPS / "demo.mp4") as whole:
        assert reader.num_video_frames == 187
        expected = whole.read(np.array([280 - 187, 279]))
        assert np.array_equal(reader.read(np.array([0, 186])), expected)
        assert np.array_equal(reader.read(np.array([0, 186]), may_skip=True), expected)


@pytest.mark.parametrize(
    ("num_frames", "promised", "is_fine"),
    [(20, 22, True), (20, 25, True), (20, 26, False), (190, 200, True), (190, 201, False)],
)
def test_last_frame_stands_in_for_five_missing_or_five_percent(
    write_video, frames_seen, promise, num_frames: int, promised: int, is_fine: bool
) -> None:
    path = write_video(f"undecodable_end_{num_frames}.avi", num_frames, 16, 16)
    promise(promised)
    with VideoReader(path) as reader:
        asked = np.array([4, promised - 1, 17])
        if is_fine:
            assert frames_seen(reader.read(asked)) == [4, (num_frames - 1) % 20, 17]
        else:
            with pytest.raises(DecodeError, match=f"truncated .{num_frames} of {promised} frames"):
                reader.read(asked)


def test_last_packet_that_holds_no_picture_gives_the_frame_before(write_video, frames_seen, tmp_path: Path) -> None:
    content = bytearray(Path(write_video("whole.avi", 20)).read_bytes())
    last = content.rindex(b"00dc", 0, content.rindex(b"idx1"))
    size = int.from_bytes(content[last + 4 : last + 8], "little")
    content[last + 8 : last + 8 + size] = bytes(size)
    path = tmp_path / "no_last.avi"
    path.write_bytes(content)
    for decoder in ("auto", "opencv", "pyav"):
        with VideoReader(path, decoder) as reader:
            assert reader.num_video_frames == 20
            assert frames_seen(reader.read(np.array([0, 18, 19]))) == [0, 18, 18]


def test_file_with_one_decodable_frame_of_several_is_a_still(write_video, promise) -> None:
    path = write_video("still.avi", 1)
    promise(3)
    with VideoReader(path) as reader, pytest.raises(DecodeError) as caught:
        reader.read(np.array([2]))
    assert caught.value.cause == "one frame"


def test_frames_that_change_size_are_an_error(write_video, monkeypatch) -> None:
    sizes = iter([(4, 6, 3), (4, 8, 3)])
    monkeypatch.setattr(decode.OpenCVDecoder, "retrieve", lambda self: np.zeros(next(sizes), np.uint8))
    reader = VideoReader(write_video("sizes.avi", 3), "opencv")
    with reader, pytest.raises(DecodeError, match="frame size changes") as caught:
        reader.read(np.array([0, 1]))
    assert caught.value.cause == "frame size changes"


@pytest.mark.parametrize(
    ("kind", "cause", "detail"),
    [
        ("missing", "missing", ""),
        ("empty", "empty", "0 bytes"),
        ("text", "not a video", "Invalid data"),
        ("playlist", "not a video", "Invalid data"),
        ("folder", "not a video", "a folder"),
        ("audio", "not a video", "sound only"),
        ("truncated mp4", "truncated", "index"),
        ("truncated mp4, index first", "truncated", "of 280 frames"),
        ("truncated avi", "truncated", "147,283 of 294,566 bytes"),
        ("truncated mkv", "truncated", "218,173 of 436,346 bytes"),
        ("one frame mp4", "one frame", "a still, not a video"),
        ("one frame avi", "one frame", "a still, not a video"),
        ("image", "one frame", "a still, not a video"),
        ("unknown codec", "unknown codec", ""),
    ],
)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_bad_file_is_an_error_with_its_cause(
    bad_files, capfd, decoder: str, kind: str, cause: str, detail: str
) -> None:
    with pytest.raises(DecodeError) as caught, VideoReader(bad_files[kind], decoder) as reader:
        reader.read(np.array([0]))
    assert caught.value.path == bad_files[kind]
    assert caught.value.cause == cause
    assert detail in caught.value.detail
    assert str(caught.value).startswith(f"{bad_files[kind]}: {cause}")
    assert capfd.readouterr() == ("", "")


def test_unreadable_file_says_so(write_video, monkeypatch) -> None:
    def refuse(path: str, **options: object) -> None:
        raise av.error.PermissionError(13, "Permission denied")

    path = write_video("locked.avi", 3)
    monkeypatch.setattr(decoders.av, "open", refuse)
    with pytest.raises(DecodeError, match="not readable"):
        VideoReader(path)


@pytest.mark.parametrize("decoder", ["auto", "opencv", "pyav"])
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, decoder: str) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path(os.devnull)):
        with pytest.raises(DecodeError, match="a pipe or device"):
            VideoReader(path, decoder)


def test_auto_turns_to_pyav_where_opencv_fails(encode, frames_seen) -> None:
    path = encode("av1.mp4", "-c:v", "libaom-av1", "-cpu-used", "8")
    with VideoReader(path) as reader:
        assert frames_seen(reader.read(np.array([19, 0, 7]))[:, :, :80]) == [19, 0, 7]
        assert reader.decoder == "pyav"
        assert frames_seen(reader.read(np.array([3]))[:, :, :80]) == [3]
    with VideoReader(path, "opencv") as reader, pytest.raises(DecodeError, match="opencv decodes none"):
        reader.read(np.array([0]))


def test_a_clip_that_takes_too_long_is_an_error(write_video) -> None:
    path, prepared = write_video("slow.avi", 20), []

    def slowly(frame: np.ndarray) -> np.ndarray:
        prepared.append(time.sleep(0.2))
        return frame

    with pytest.raises(DecodeError, match="too slow"):
        VideoReader(path, timeout_sec=1e-9)
    with VideoReader(path, timeout_sec=1) as reader:
        with pytest.raises(DecodeError, match="not read within 1 s") as caught:
            reader.read(np.arange(20), slowly)
        assert reader.decoder == "opencv"
    assert caught.value.cause == "too slow"
    assert len(prepared) <= 6
    with VideoReader(path, timeout_sec=60) as reader:
        assert len(reader.read(np.arange(20))) == 20


def test_reading_on_goes_on_and_reading_back_starts_anew(write_video, frames_seen, monkeypatch) -> None:
    openings = []
    original = decode.OpenCVDecoder
    monkeypatch.setattr(decode, "OpenCVDecoder", lambda *arguments: openings.append(1) or original(*arguments))
    with VideoReader(write_video("chunks.avi", 20)) as reader:
        for start in (0, 5, 12):
            assert frames_seen(reader.read(np.arange(start, start + 5))) == list(range(start, start + 5))
        assert len(openings) == 1
        assert frames_seen(reader.read(np.array([16, 19]))) == [16, 19]
        assert len(openings) == 2


def test_videos_in_memory_may_be_closed_by_many_threads(write_video) -> None:
    # OpenCV releases its reference to the bytes without Python's lock, which used to crash the process.
    content = Path(write_video("memory.avi", 3)).read_bytes()

    def open_and_close(number: int) -> int:
        decoder = OpenCVDecoder("memory.avi", bytes(content[: None if number % 4 else 50]))
        is_open = decoder.grab()
        decoder.close()
        return is_open

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_and_close, range(400))) == [number % 4 != 0 for number in range(400)]


@pytest.mark.parametrize("version", ["4.10.0", "4.13.0", "5.0.0-pre", "3.4.18"])
def test_only_tested_versions_of_opencv_are_accepted(version: str) -> None:
    for tested in ("4.11.0", "4.12.0.88"):
        check_opencv(tested)
    with pytest.raises(InputError, match=rf"OpenCV {version}.*pip install"):
        check_opencv(version)


@pytest.mark.parametrize("decoder", ["auto", "opencv", "pyav"])
@pytest.mark.parametrize("name", ["demo.mp4", "test.avi", "flipping_a_pancake.mkv"])
def test_file_in_memory_gives_the_same_frames(name: str, decoder: str) -> None:
    path = CLIPS / name
    with VideoReader(path, decoder) as file, VideoReader(name, decoder, None, path.read_bytes()) as memory:
        assert memory.path == name
        assert memory.num_video_frames == file.num_video_frames
        numbers = np.array([file.num_video_frames - 1, 0, 77, 77])
        assert np.array_equal(memory.read(numbers), file.read(numbers))
        assert np.array_equal(memory.read(numbers[1:2]), file.read(numbers[1:2]))


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_bad_file_in_memory_has_the_same_cause(bad_files, tmp_path: Path, fraction: float) -> None:
    for kind in bad_files.keys() - {"missing", "folder"}:
        content = Path(bad_files[kind]).read_bytes()
        content = content[: int(fraction * len(content))]
        path = tmp_path / Path(bad_files[kind]).name
        path.write_bytes(content)
        causes = []
        for in_memory in (None, content):
            with pytest.raises(DecodeError) as caught, VideoReader(path, content=in_memory) as reader:
                reader.read(np.array([0, 1]))
            causes.append(caught.value.args)
        assert causes[0] == causes[1]
