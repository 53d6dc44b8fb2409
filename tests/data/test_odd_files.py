"""Files as people have them: codecs, containers, wrong headers, odd names, files cut off anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from vswin.data.decode import VideoReader
from vswin.errors import DecodeError

CLIPS = Path(__file__).parent.parent / "clips"

KINDS = {
    "h264.mp4": ("-c:v", "libx264"),
    "h264_short_gops.mp4": ("-c:v", "libx264", "-g", "6", "-bf", "3"),
    "h264.mov": ("-c:v", "libx264"),
    "h264.mkv": ("-c:v", "libx264"),
    "h264.ts": ("-c:v", "libx264"),
    "h264.flv": ("-c:v", "libx264"),
    "fragments.mp4": ("-c:v", "libx264", "-g", "5", "-movflags", "frag_keyframe+empty_moov"),
    "late.mp4": ("-c:v", "libx264", "-output_ts_offset", "5"),
    "early.mkv": ("-c:v", "libx264", "-output_ts_offset", "-0.5", "-avoid_negative_ts", "disabled"),
    "sixty.mp4": ("-c:v", "libx264", "-vf", "settb=1/60,setpts=N", "-fps_mode", "passthrough"),
    "varying.mp4": ("-c:v", "libx264", "-vf", "setpts=(N+N*N/10)/25/TB", "-fps_mode", "vfr"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "vp8.webm": ("-c:v", "libvpx"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "av1.webm": ("-c:v", "libaom-av1", "-cpu-used", "8"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2"),
    "mpeg4_b_frames.avi": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
    "mpeg4.m4v": ("-c:v", "mpeg4", "-q:v", "2", "-f", "m4v"),
    "xvid.avi": ("-c:v", "libxvid", "-q:v", "4"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2"),
    "prores.mov": ("-c:v", "prores"),
    "dnxhd.mov": ("-c:v", "dnxhd", "-profile:v", "dnxhr_hq", "-vf", "scale=320:256"),
    "ffv1.mkv": ("-c:v", "ffv1"),
    "ffv1_16_bit_gray.mkv": ("-c:v", "ffv1", "-pix_fmt", "gray16le"),
    "raw.y4m": ("-pix_fmt", "yuv420p"),
    "msmpeg4.avi": ("-c:v", "msmpeg4", "-q:v", "2"),
    "h264_stream.h264": ("-c:v", "libx264"),
    "h264_rgb.mp4": ("-c:v", "libx264rgb"),
    "hevc_10_bit.mp4": ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none"),
    "vp9_10_bit.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuv420p10le"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-q:v", "2"),
    "h264_10_bit.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "wmv2.wmv": ("-c:v", "wmv2", "-b:v", "2M"),
    "h263.3gp": ("-c:v", "h263", "-q:v", "2"),
    "theora.ogv": ("-c:v", "libtheora", "-q:v", "9"),
    "mpeg1.mpg": ("-c:v", "mpeg1video", "-q:v", "2"),
    "mpeg2_b_frames.mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2"),
    "palette.gif": (),
    "odd_size.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-vf", "scale=175:143"),
    "odd_size.avi": ("-c:v", "mpeg4", "-q:v", "2", "-vf", "scale=175:143"),
    "odd_size.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv444p", "-vf", "scale=175:143"),
}
SIZES = {"dnxhd": (256, 320), "odd": (143, 175)}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_every_kind_gives_the_asked_frames(encode, frames_seen, capfd, name: str, decoder: str) -> None:
    path = encode(name, *KINDS[name])
    with VideoReader(path, decoder) as reader:
        assert reader.num_video_frames == 20
        frames = reader.read(np.array([19, 0, 7, 8, 9, 12]))
        # DNxHD declares its colours as BT.709.
        assert reader.decoder == ("pyav" if "av1" in name or "dnxhd" in name else "opencv") or decoder == "pyav"
    height, width = next((size for part, size in SIZES.items() if part in name), (144, 176))
    assert frames.shape == (6, height, width, 3)
    assert frames_seen(frames[:, :, : width * 80 // 176]) == [19, 0, 7, 8, 9, 12]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stated", [0, 5, 22, 1000, 2**31 - 1, 2**32 - 1])
def test_avi_header_may_state_any_number_of_frames(write_video, frames_seen, tmp_path: Path, stated: int) -> None:
    content = bytearray(Path(write_video("honest.avi", 20)).read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40)):
        place = content.index(chunk) + offset
        assert int.from_bytes(content[place : place + 4], "little") == 20
        content[place : place + 4] = stated.to_bytes(4, "little")
    path = tmp_path / "lying.avi"
    path.write_bytes(content)
    for decoder in ("opencv", "pyav"):
        with VideoReader(path, decoder) as reader:
            assert reader.num_video_frames == 20
            assert frames_seen(reader.read(np.array([19, 3]))) == [19, 3]


@pytest.mark.parametrize(("name", "form"), [("h264.mkv", "matroska"), ("vp8.webm", "webm"), ("h264.flv", "flv")])
def test_live_recording_without_duration_is_counted(encode, frames_seen, tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / f"live_{name}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-i", encode(name, *KINDS[name])]
    done = subprocess.run([*command, "-c", "copy", "-f", form, "-"], check=True, capture_output=True)
    path.write_bytes(done.stdout)
    with VideoReader(path) as reader:
        assert reader.num_video_frames == 20
        assert frames_seen(reader.read(np.array([19, 3]))[:, :, :80]) == [19, 3]


CUT = ("h264.mp4", "h264.mkv", "h264.ts", "h264.flv", "fragments.mp4", "vp9.webm", "av1.webm", "mpeg4.avi", "wmv2.wmv")


def try_to_read(path: str, decoder: str) -> str | None:
    try:
        with VideoReader(path, decoder, 10) as reader:
            assert 2 <= reader.num_video_frames <= 20
            frames = reader.read(np.array([0, reader.num_video_frames - 1]))
    except DecodeError as error:
        return error.cause
    assert frames.shape == (2, 144, 176, 3)
    return None


@pytest.mark.parametrize("name", [*CUT, "theora.ogv", "mpeg1.mpg", "palette.gif", "mpeg4.m4v", "prores.mov"])
def test_file_cut_off_anywhere_gives_frames_or_an_error(encode, capfd, tmp_path: Path, name: str) -> None:
    content = Path(encode(name, *KINDS[name])).read_bytes()
    for percent in (1, 10, 30, 50, 70, 90, 98):
        path = tmp_path / f"{percent}_{name}"
        path.write_bytes(content[: len(content) * percent // 100])
        for decoder in ("auto", "pyav"):
            causes = {"truncated", "not a video", "no frames", "one frame", None}
            assert try_to_read(str(path), decoder) in causes
    assert capfd.readouterr() == ("", "")


NAMES = [
    "a b.avi",
    "quo'te\".avi",
    "new\nline.avi",
    "100%d.avi",
    "12:30.avi",
    "pipe:0",
    "-i.avi",
    "ünïcödé😀.avi",
    "back\\slash.avi",
    "a#b?c=d&e.avi",
    "[0]*.avi",
    "no suffix",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_names_may_be_odd(write_video, frames_seen, monkeypatch, tmp_path: Path, name: str, decoder: str) -> None:
    (tmp_path / name).write_bytes(Path(write_video("plain.avi", 5)).read_bytes())
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name), name):
        with VideoReader(path, decoder) as reader:
            assert frames_seen(reader.read(np.array([4, 1]))) == [4, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are always Unicode there")
def test_name_that_is_not_utf8_is_an_error_not_a_crash(write_video, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.avi")
    with open(path, "wb") as file:
        file.write(Path(write_video("plain.avi", 5)).read_bytes())
    for decoder in ("auto", "opencv", "pyav"):
        with pytest.raises(DecodeError, match="unusable name"):
            VideoReader(os.fsdecode(path), decoder)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_nothing_stays_open(write_video, bad_files, encode) -> None:
    good, av1 = write_video("many.avi", 3, 16, 16), encode("av1.webm", *KINDS["av1.webm"])
    kinds = [good, av1, bad_files["text"], bad_files["truncated avi"], bad_files["audio"], bad_files["unknown codec"]]

    def open_all(times: int) -> int:
        for number in range(times):
            for path in kinds if number % 20 == 0 else [good, bad_files["text"]]:
                try:
                    with VideoReader(path, "auto" if number % 2 else "pyav") as reader:
                        reader.read(np.array([1]))
                except DecodeError:
                    continue
        return len(os.listdir("/proc/self/fd"))

    assert open_all(2) == open_all(250)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told in other units elsewhere")
def test_one_clip_of_4k_video_does_not_hold_its_frames(ffmpeg, tmp_path: Path) -> None:
    still, path = str(tmp_path / "4k.jpg"), str(tmp_path / "4k.avi")
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=3840x2160:r=20", "-frames:v", "1", "-q:v", "20", still)
    ffmpeg("-loop", "1", "-framerate", "20", "-i", still, "-frames:v", "30", "-c", "copy", path)
    code = """
import resource, sys, vswin
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
views = vswin.load_views(sys.argv[1], 30, 1, 1, 1, resize=64, crop=64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, views.shape)
"""
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    megabytes, shape = done.stdout.split(maxsplit=1)
    assert shape.strip() == "(1, 30, 64, 64, 3)"
    # A frame takes 25 MB in each of several forms; thirty frames would take 750.
    assert int(megabytes) < 250
