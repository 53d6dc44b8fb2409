"""PyAV agrees with OpenCV, and with the official reader for files that declare their colours."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.data.decoders import TimeLimit
from vswin.data.inspection import inspect_video

CLIPS = Path(__file__).parent.parent / "clips"

SAME_DECODERS = {
    "h264.mp4": ("-c:v", "libx264"),
    "h264_b_frames.mkv": ("-c:v", "libx264", "-bf", "3", "-g", "8"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "vp8.webm": ("-c:v", "libvpx"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "vp9_odd_size.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-vf", "scale=175:143"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2"),
    "prores.mov": ("-c:v", "prores"),
    "h264_10_bit.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "h264_gray.mp4": ("-c:v", "libx264", "-pix_fmt", "gray"),
    "h264_odd_size.mp4": ("-c:v", "libx264", "-vf", "scale=175:143", "-pix_fmt", "yuv444p"),
    "interlaced.mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ilme+ildct"),
    "palette.gif": (),
    "rgb.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
}
CHANGED_DECODERS = {
    "xvid.avi": ("-c:v", "libxvid", "-q:v", "4"),
    "wmv2.wmv": ("-c:v", "wmv2", "-b:v", "2M"),
}
# CRC-32 of frames 0, 100 and 279 of tests/clips/demo.mp4 as decord 0.6.0 reads them, RGB, after ffmpeg's bitstream
# filter `h264_metadata` wrote this matrix (its number in H.273) and range into the stream.
OFFICIAL = {
    "matrix_coefficients=1": (2753367994, 1704295597, 1458633498),
    "matrix_coefficients=4": (489603431, 1980301765, 345741479),
    "matrix_coefficients=6": (2482787238, 3711680491, 550541966),
    "matrix_coefficients=7": (1323253932, 1352284477, 4105340817),
    "matrix_coefficients=1:video_full_range_flag=1": (4149863731, 748186567, 1397147293),
}


def read(path: str, decoder: str) -> np.ndarray:
    with VideoReader(path, decoder) as reader:
        return reader.read(np.arange(reader.num_video_frames))


@pytest.mark.parametrize("name", SAME_DECODERS)
def test_frames_equal_those_of_opencv(encode, name: str) -> None:
    path = encode(name, *SAME_DECODERS[name])
    assert np.array_equal(read(path, "pyav"), read(path, "opencv"))


@pytest.mark.parametrize("name", CHANGED_DECODERS)
def test_newer_decoders_differ_by_two_at_most(encode, name: str) -> None:
    path = encode(name, *CHANGED_DECODERS[name])
    difference = read(path, "pyav").astype(int) - read(path, "opencv")
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("tags", OFFICIAL)
def test_tagged_colours_equal_the_official_reader(ffmpeg, tmp_path: Path, tags: str) -> None:
    path = str(tmp_path / "tagged.mp4")
    ffmpeg("-i", str(CLIPS / "demo.mp4"), "-an", "-c", "copy", "-bsf:v", f"h264_metadata={tags}", path)
    with VideoReader(path) as reader:
        frames = reader.read(np.array([0, 100, 279]))
        assert reader.decoder == ("opencv" if "=6" in tags else "pyav")
    assert tuple(zlib.crc32(frame.tobytes()) for frame in frames) == OFFICIAL[tags]


def test_constant_luminance_is_taken_for_the_usual_bt2020(ffmpeg, tmp_path: Path) -> None:
    frames = []
    for matrix in (9, 10):
        path = str(tmp_path / f"{matrix}.mp4")
        tags = f"h264_metadata=matrix_coefficients={matrix}"
        ffmpeg("-i", str(CLIPS / "demo.mp4"), "-t", "0.5", "-an", "-c", "copy", "-bsf:v", tags, path)
        frames.append(read(path, "auto"))
    assert np.array_equal(*frames)
    assert frames[0].std() > 30


def test_full_range_is_not_stretched(encode) -> None:
    options = ("-c:v", "libvpx-vp9", "-lossless", "1", "-vf", "scale=out_range=pc,format=yuv420p", "-color_range", "pc")
    path = encode("full_range.webm", *options)
    with VideoReader(path) as reader:
        frames = reader.read(np.arange(20))
        assert reader.decoder == "pyav"
    ramp = 10 + 12 * np.arange(20)
    assert np.abs(frames[:, 72, 40].astype(int) - ramp[:, None]).max() <= 2


@pytest.mark.parametrize("name", ["demo.mp4", "test.avi", "flipping_a_pancake.mkv"])
def test_real_clips_are_counted_as_by_the_official_reader(name: str) -> None:
    found = inspect_video(str(CLIPS / name), TimeLimit(name, None))
    assert found.num_video_frames == {"demo.mp4": 280, "test.avi": 164, "flipping_a_pancake.mkv": 310}[name]
    assert not found.has_other_colours


def test_text_in_any_encoding_does_no_harm(encode, tmp_path: Path) -> None:
    content = Path(encode("title.avi", "-c:v", "mjpeg", "-metadata", "title=MARK")).read_bytes()
    assert b"MARK" in content
    path = tmp_path / "latin.avi"
    path.write_bytes(content.replace(b"MARK", "déjà".encode("latin-1")))
    assert len(read(str(path), "pyav")) == 20


def test_damage_is_skipped_as_opencv_does(tmp_path: Path) -> None:
    content = bytearray((CLIPS / "test.avi").read_bytes())
    for place in range(60_000, 200_000, 9_001):
        content[place : place + 40] = bytes(40)
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    shapes = [read(str(path), decoder).shape for decoder in ("opencv", "pyav")]
    assert shapes[0] == shapes[1]
