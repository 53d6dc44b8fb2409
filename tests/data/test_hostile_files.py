"""Files that would take all time or memory, that nobody may read, or whose index lies."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vswin.data import decode
from vswin.data.decode import VideoReader
from vswin.data.folder import load_folder
from vswin.data.inspection import Inspection
from vswin.data.transforms import resize_short_side
from vswin.errors import DecodeError, InputError

CLIPS = Path(__file__).parent.parent / "clips"
# The last is "auto" with permission to skip frames, as in training.
DECODERS = ("auto", "opencv", "pyav", "skipping")


def outcome(path: str | Path, decoder: str, timeout_sec: float | None = 20) -> tuple[int, tuple[int, ...]] | str:
    """Returns the number and shape of the frames, or the cause; any other exception fails the test."""
    try:
        may_skip = decoder == "skipping"
        with VideoReader(path, "auto" if may_skip else decoder, timeout_sec) as reader:
            count = reader.num_video_frames
            return count, reader.read(np.array([0, count - 1]), partial(resize_short_side, size=32), may_skip).shape
    except DecodeError as error:
        return error.cause


@pytest.mark.parametrize("name", ["test.avi", "flipping_a_pancake.mkv", "stream.ts", "stream.flv"])
def test_gigabytes_of_nothing_end_at_the_time_limit(encode, tmp_path: Path, name: str) -> None:
    whole = CLIPS / name if (CLIPS / name).exists() else Path(encode(name, "-c:v", "libx264"))
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(whole.read_bytes()[:200_000])
        file.truncate(8 << 30)
    start = time.monotonic()
    with pytest.raises(DecodeError, match=r"not read within 0\.5 s") as caught, VideoReader(path, "auto", 0.5):
        pass
    assert caught.value.cause == "too slow"
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_gap_found_while_decoding_ends_at_the_time_limit(encode, monkeypatch, tmp_path: Path, decoder: str) -> None:
    monkeypatch.setattr(decode, "inspect_video", lambda *_, keep_packets: Inspection(1000, False, None))
    path = tmp_path / "gap.ts"
    with path.open("wb") as file:
        file.write(Path(encode("stream.ts", "-c:v", "libx264")).read_bytes())
        file.truncate(8 << 30)
    start = time.monotonic()
    with pytest.raises(DecodeError) as caught, VideoReader(path, decoder, 0.5) as reader:
        reader.read(np.array([999]))
    assert caught.value.cause == "too slow"
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("start", [b"", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"])
def test_gigabytes_without_a_video_are_refused_at_once(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(8 << 30)
    assert outcome(path, "auto", 2) == ("truncated" if start else "not a video")


# Positions of four-byte numbers in an MP4 file: the name of the box, and the offset from there.
DURATIONS = [("mvhd", 20), ("tkhd", 24), ("mdhd", 20)]
COUNTS = [("stsz", 12), ("stts", 8), ("stts", 12), ("stsc", 8), ("stco", 8), ("ctts", 8), ("stss", 8)]


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**32 - 1])
def test_an_index_that_lies_gives_frames_or_an_error(encode, tmp_path: Path, value: int) -> None:
    content = Path(encode("index.mp4", "-c:v", "libx264")).read_bytes()
    path = tmp_path / "lying.mp4"
    for name, offset in DURATIONS + COUNTS:
        place = content.index(name.encode()) + offset
        path.write_bytes(content[:place] + value.to_bytes(4, "big") + content[place + 4 :])
        for decoder in ("opencv", "pyav"):
            found = outcome(path, decoder)
            if isinstance(found, tuple):
                assert 2 <= found[0] <= 20
                assert found[1] == (2, 32, 39, 3)
            else:
                assert found in ("truncated", "no frames", "one frame")
            if (name, offset) in DURATIONS:
                assert found == (20, (2, 32, 39, 3))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_frames_before_the_first_key_frame_may_be_missing(encode, ffmpeg, tmp_path, name: str, decoder: str) -> None:
    whole = encode(f"keys.{name}", "-c:v", "libx264", "-g", "4", "-bf", "0")
    path = str(tmp_path / f"late.{name}")
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", r"noise=drop=eq(n\,0)", path)
    found = outcome(path, decoder)
    assert found == (19, (2, 32, 39, 3))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("name", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_video_without_any_key_frame_has_no_frames(
    encode, ffmpeg, tmp_path, name: str, codec: str, decoder: str
) -> None:
    whole = encode(f"one_key.{name}", "-c:v", codec, "-g", "100")
    path = str(tmp_path / f"no_key.{name}")
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", r"noise=drop=eq(n\,0)", path)
    assert outcome(path, decoder) == "no frames"


@pytest.mark.parametrize(
    ("name", "cause"),
    [("none.mp4", "no frames"), ("none.avi", "no frames"), ("none.mkv", "not a video"), ("none.ts", "empty")],
)
def test_container_with_no_frame_at_all(ffmpeg, tmp_path: Path, name: str, cause: str) -> None:
    path = str(tmp_path / name)
    options = ("-movflags", "empty_moov") if "mp4" in name else ()
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=64x48", "-c:v", "mpeg4", "-frames:v", "0", *options, path)
    assert {outcome(path, decoder) for decoder in DECODERS} == {cause}


@pytest.mark.parametrize(
    ("size", "shape"), [("46x34", (2, 32, 43, 3)), ("6x4", (2, 32, 48, 3)), ("34x1000", (2, 941, 32, 3))]
)
def test_small_and_long_frames(ffmpeg, tmp_path: Path, size: str, shape: tuple[int, ...]) -> None:
    path = str(tmp_path / "size.avi")
    ffmpeg("-f", "lavfi", "-i", f"color=gray:s={size}:r=10", "-frames:v", "4", "-c:v", "ffv1", path)
    for decoder in DECODERS:
        assert outcome(path, decoder) == (4, shape)


def test_frames_too_long_to_be_resized_are_refused(ffmpeg, tmp_path: Path) -> None:
    path = str(tmp_path / "line.avi")
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=4096x2:r=10", "-frames:v", "4", "-c:v", "ffv1", path)
    for decoder in ("auto", "opencv", "pyav"):
        with VideoReader(path, decoder) as reader, pytest.raises(DecodeError) as caught:
            reader.read(np.array([0]), partial(resize_short_side, size=256))
        assert caught.value.reason == "unusable shape (4096 x 2 pixels)"


def test_a_socket_and_links_that_go_round_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").symlink_to(tmp_path / "two.mp4")
    (tmp_path / "two.mp4").symlink_to(tmp_path / "one.mp4")
    assert outcome(tmp_path / "one.mp4", "auto") == "not readable"
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert outcome(tmp_path / "dangling.mp4", "auto") == "missing"
    assert outcome(tmp_path / "one.mp4" / "below.mp4", "auto") == "not readable"
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory() as folder:
        listening.bind(f"{folder}/s.mp4")  # the system limits such names to about a hundred letters
        assert outcome(f"{folder}/s.mp4", "auto") == "not a video"


@contextmanager
def without_rights() -> Iterator[None]:
    """Gives root the rights of a user who may not read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(sys.platform != "linux", reason="who may read what is arranged in other ways elsewhere")
def test_unreadable_files_and_folders_are_named(write_video) -> None:
    content = Path(write_video("plain.avi", 5)).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name, mode in (("open", 0o755), ("locked", 0o000)):
            os.mkdir(f"{folder}/{name}")
            for file, file_mode in (("readable.avi", 0o644), ("secret.avi", 0o000)):
                Path(f"{folder}/{name}/{file}").write_bytes(content)
                os.chmod(f"{folder}/{name}/{file}", file_mode)
            os.chmod(f"{folder}/{name}", mode)
        with without_rights():
            assert outcome(f"{folder}/open/readable.avi", "auto") == (5, (2, 32, 43, 3))
            for path in ("open/secret.avi", "locked/readable.avi"):
                for decoder in DECODERS:
                    with pytest.raises(DecodeError, match=r"not readable \(.*ermission denied\)"):
                        VideoReader(f"{folder}/{path}", decoder)
            with pytest.raises(InputError, match=r"locked cannot be read \(Permission denied\)"):
                load_folder(Path(folder))
        os.chmod(f"{folder}/locked", 0o755)


def test_a_class_folder_may_hold_anything(write_video, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "good.avi").write_bytes(Path(write_video("plain.avi", 5)).read_bytes())
    os.mkfifo(tmp_path / "a" / "pipe.mp4")
    (tmp_path / "a" / "folder.mp4").mkdir()  # a sub-folder, whatever it contains
    (tmp_path / "a" / "round.mp4").symlink_to(tmp_path / "a" / "round.mp4")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    class_names, records, _ = load_folder(tmp_path)
    assert class_names == ("a", "b")
    causes = [outcome(path, "auto") for path, *_ in records]
    assert causes == [(5, (2, 32, 43, 3)), "not a video", "not readable", (5, (2, 32, 43, 3))]


SWEPT: dict[str, tuple[str, ...]] = {
    "cut.mp4": ("-c:v", "libx264"),
    "cut.mkv": ("-c:v", "libx264"),
    "cut.ts": ("-c:v", "libx264"),
    "cut.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "cut_av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8"),
    "cut.avi": ("-c:v", "mpeg4"),
    "cut.ogv": ("-c:v", "libtheora"),
    "cut_fragments.mp4": ("-c:v", "libx264", "-g", "5", "-movflags", "frag_keyframe+empty_moov"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("change", ["hole", "shift"])
def test_a_file_damaged_at_any_place_gives_frames_or_an_error(
    encode: Callable[..., str], capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str, change: str
) -> None:
    content = Path(encode(name, *SWEPT[name])).read_bytes()
    path = tmp_path / name
    for place in np.linspace(0, len(content) - 1, 25).astype(int).tolist():
        rest = bytes(200) + content[place + 200 :] if change == "hole" else content[place + 7 :]
        path.write_bytes(content[:place] + rest)
        for decoder in ("opencv", "pyav"):
            found = outcome(path, decoder)
            assert isinstance(found, str) or (2 <= found[0] <= 40 and found[1][:2] == (2, 32)), (place, found)
    assert capfd.readouterr() == ("", "")
