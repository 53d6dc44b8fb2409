import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.data.pyav_encoder import shrink_video
from vswin.errors import DecodeError

CLIPS = Path(__file__).parent.parent / "clips"


def read_all(reader: VideoReader, size: tuple[int, int] | None = None) -> np.ndarray:
    def prepare(frame: np.ndarray) -> np.ndarray:
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if size else frame

    return reader.read(np.arange(reader.num_video_frames), prepare)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean()))


@pytest.mark.parametrize(("name", "width", "rate"), [("demo.mp4", 160, 28), ("test.avi", 160, 25)])
def test_every_frame_is_the_same_one_reduced(ffmpeg, tmp_path: Path, name: str, width: int, rate: int) -> None:
    ffmpeg("-i", str(CLIPS / name), "-c", "copy", "-t", "2", str(tmp_path / name))
    content = shrink_video(str(tmp_path / name), 120)
    with VideoReader(tmp_path / name) as original, VideoReader(name, content=content) as shrunk:
        frames, expected = read_all(shrunk), read_all(original, (width, 120))
    assert frames.shape == expected.shape
    assert psnr(frames, expected) > 34
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].average_rate == rate
        assert container.streams.audio == ()


def test_gray_stays_gray_and_colours_stay(encode) -> None:
    path = encode("bt709_encoder.mp4", "-c:v", "libx264", "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709")
    content = shrink_video(path, 72)
    with VideoReader(path) as original, VideoReader("x.mp4", content=content) as shrunk:
        assert original.decoder == "pyav"
        frames, expected = read_all(shrunk), read_all(original, (88, 72))
    grays = [array[:, 20:50, 10:30].mean(axis=(1, 2, 3)) for array in (frames, expected)]
    assert np.abs(grays[0] - grays[1]).max() <= 2
    assert np.diff(grays[1]).min() > 8
    means = [array[:, :, 50:].mean(axis=(0, 1, 2)) for array in (frames, expected)]
    assert np.abs(means[0] - means[1]).max() < 1.5


def test_upright_and_even(encode, ffmpeg, tmp_path: Path) -> None:
    flat = encode("flat.mp4", "-c:v", "libx264", "-vf", "crop=170:110")
    ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", str(tmp_path / "rotated.mp4"))
    content = shrink_video(str(tmp_path / "rotated.mp4"), 64)
    with VideoReader(tmp_path / "rotated.mp4") as original, VideoReader("x", content=content) as shrunk:
        assert read_all(original).shape == (20, 170, 110, 3)
        frames = read_all(shrunk)
        assert frames.shape == (20, 98, 64, 3)
        assert psnr(frames, read_all(original, (64, 98))) > 32


def test_videos_that_are_small_enough_are_left_alone(write_video) -> None:
    path = write_video("small.avi", 5, 48, 64)
    assert shrink_video(path, 48) is None
    assert shrink_video(path, 46) is not None


def test_missing_last_frames_are_repeated_as_in_training(ffmpeg, tmp_path: Path) -> None:
    # MPEG-4 with B-frames in AVI: the last packet decodes to nothing.
    ffmpeg("-i", str(CLIPS / "demo.mp4"), "-frames:v", "90", "-c:v", "mpeg4", "-bf", "2", str(tmp_path / "b.avi"))
    with VideoReader(tmp_path / "b.avi") as original:
        content = shrink_video(str(tmp_path / "b.avi"), 120)
        with VideoReader("x", content=content) as shrunk:
            assert shrunk.num_video_frames == original.num_video_frames
            assert psnr(read_all(shrunk), read_all(original, (160, 120))) > 33


def test_one_decoder_does_a_whole_video(write_video, monkeypatch) -> None:
    path = write_video("half.avi", 100, 48, 64)
    original, seen = VideoReader.read, []

    def read(self: VideoReader, numbers: np.ndarray, *arguments) -> np.ndarray:
        seen.append((self.decoder, int(numbers[0])))
        if self.decoder == "opencv" and numbers[0] >= 64:
            self.decoder = self._forwards = "pyav"  # as after a frame that OpenCV cannot decode
        return original(self, numbers, *arguments)

    monkeypatch.setattr(VideoReader, "read", read)
    content = shrink_video(path, 32)
    assert seen == [("opencv", 0), ("opencv", 0), ("opencv", 64), ("pyav", 0), ("pyav", 0), ("pyav", 64)]
    monkeypatch.undo()
    with VideoReader("x", content=content) as reader:
        assert reader.num_video_frames == 100


@pytest.mark.parametrize("kind", ["text", "truncated avi", "one frame mp4"])
def test_bad_videos_are_reported_as_ever(bad_files, kind: str) -> None:
    with pytest.raises(DecodeError):
        shrink_video(bad_files[kind], 32)
