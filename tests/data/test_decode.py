import pickle
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vswin.data import decode
from vswin.data.decode import DecodeError, VideoReader, check_opencv
from vswin.errors import InputError

CLIPS = Path(__file__).parent.parent / "clips"


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


def test_second_read_starts_at_the_beginning_again(write_video, frames_seen) -> None:
    with VideoReader(write_video("twice.avi", 12)) as reader:
        assert frames_seen(reader.read(np.array([9, 11]))) == [9, 11]
        assert frames_seen(reader.read(np.array([0, 9, 2]))) == [0, 9, 2]


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
    monkeypatch.setattr(decode.cv2, "VideoCapture", Counting)
    with VideoReader(write_video("counted.avi", 30)) as reader:
        reader.read(np.array([10, 2, 10, 4, 2]))
    assert counts == {"grab": 11, "retrieve": 3}


def test_prepare_is_applied_before_stacking(write_video) -> None:
    with VideoReader(write_video("prepared.avi", 5)) as reader:
        frames = reader.read(np.array([4, 1]), lambda frame: frame[:2, :3])
    assert frames[:, 0, 0, 0].tolist() == [58, 22]
    assert frames.shape == (2, 2, 3, 3)


@pytest.mark.parametrize("number", [-1, 20])
def test_frames_outside_the_video_are_refused(write_video, number: int) -> None:
    with VideoReader(write_video("short.avi", 20)) as reader, pytest.raises(ValueError, match="of 20 in"):
        reader.read(np.array([0, number]))


def test_matroska_is_counted_by_packets() -> None:
    with VideoReader(CLIPS / "flipping_a_pancake.mkv") as reader:
        assert reader.num_video_frames == 310


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
        cut = reader.read(np.array([0, 186]))
        assert np.array_equal(cut, whole.read(np.array([280 - 187, 279])))


def test_rotated_video_comes_out_upright(write_video, ffmpeg, tmp_path: Path) -> None:
    path = str(tmp_path / "phone.mp4")
    ffmpeg("-display_rotation", "90", "-i", write_video("lying.mp4", 4, 48, 64), "-c", "copy", path)
    with VideoReader(path) as reader:
        assert reader.read(np.array([0, 3])).shape == (2, 64, 48, 3)


@pytest.mark.parametrize(("missing", "is_fine"), [(2, True), (5, True), (6, False)])
def test_last_frame_stands_in_for_a_few_missing(
    write_video, frames_seen, monkeypatch, missing: int, is_fine: bool
) -> None:
    # Same as a file whose last packets decode to nothing: more frames are counted than can be read.
    path = write_video("undecodable_end.avi", 20)
    monkeypatch.setattr(decode, "_count_frames", lambda path: 20 + missing)
    with VideoReader(path) as reader:
        asked = np.array([4, 20 + missing - 1, 17])
        if is_fine:
            assert frames_seen(reader.read(asked)) == [4, 19, 17]
        else:
            with pytest.raises(DecodeError, match="20 of 26 frames"):
                reader.read(asked)


def test_five_percent_of_a_long_file_may_be_missing(write_video, monkeypatch) -> None:
    path = write_video("long.avi", 190, 16, 16)
    for promised, is_fine in ((200, True), (201, False)):
        monkeypatch.setattr(decode, "_count_frames", lambda path, promised=promised: promised)
        with VideoReader(path) as reader:
            if is_fine:
                assert len(reader.read(np.array([199]))) == 1
            else:
                with pytest.raises(DecodeError, match="truncated"):
                    reader.read(np.array([200]))


def test_file_with_one_decodable_frame_of_several_is_a_still(write_video, monkeypatch) -> None:
    path = write_video("still.avi", 1)
    monkeypatch.setattr(decode, "_count_frames", lambda path: 3)
    with VideoReader(path) as reader, pytest.raises(DecodeError) as caught:
        reader.read(np.array([2]))
    assert caught.value.cause == "one frame"


def test_frames_that_change_size_are_an_error(write_video, monkeypatch) -> None:
    sizes = iter([(4, 6, 3), (4, 8, 3)])
    monkeypatch.setattr(VideoReader, "_decode", lambda self, number: np.zeros(next(sizes), np.uint8))
    reader = VideoReader(write_video("sizes.avi", 3))
    with reader, pytest.raises(DecodeError, match="frame size changes") as caught:
        reader.read(np.array([0, 1]))
    assert caught.value.cause == "frame size changes"


@pytest.mark.parametrize(
    ("kind", "cause", "detail"),
    [
        ("missing", "missing", ""),
        ("empty", "empty", "0 bytes"),
        ("text", "not a video", "Invalid data"),
        ("folder", "not a video", "a folder"),
        ("audio", "not a video", "sound only"),
        ("truncated mp4", "truncated", "index"),
        ("truncated mp4, index first", "truncated", "of 280 frames"),
        ("truncated avi", "truncated", "77 of 164 frames"),
        ("one frame mp4", "one frame", "a still, not a video"),
        ("one frame avi", "one frame", "a still, not a video"),
        ("image", "one frame", "a still, not a video"),
        ("unknown codec", "no frames", "OpenCV decodes none"),
    ],
)
def test_bad_file_is_an_error_with_its_cause(bad_files, capfd, kind: str, cause: str, detail: str) -> None:
    with pytest.raises(DecodeError) as caught, VideoReader(bad_files[kind]) as reader:
        reader.read(np.array([0]))
    assert caught.value.path == bad_files[kind]
    assert caught.value.cause == cause
    assert detail in caught.value.detail
    assert str(caught.value).startswith(f"{bad_files[kind]}: {cause}")
    assert capfd.readouterr() == ("", "")


def test_unreadable_file_says_so(write_video, monkeypatch) -> None:
    def refuse(path: str) -> None:
        raise av.error.PermissionError(13, "Permission denied")

    path = write_video("locked.avi", 3)
    monkeypatch.setattr(decode.av, "open", refuse)
    with pytest.raises(DecodeError, match="not readable"):
        VideoReader(path)


def test_decode_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "truncated", "3 of 9 frames")))
    assert str(error) == "a.mp4: truncated (3 of 9 frames)"


@pytest.mark.parametrize("version", ["4.11.0", "4.12.0.88"])
def test_tested_opencv_is_accepted(version: str) -> None:
    check_opencv(version)


@pytest.mark.parametrize("version", ["4.10.0", "4.13.0", "5.0.0-pre", "3.4.18"])
def test_other_opencv_is_refused(version: str) -> None:
    with pytest.raises(InputError, match=rf"OpenCV {version}.*pip install"):
        check_opencv(version)
