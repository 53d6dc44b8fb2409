"""Frames from decoders and from the caches in memory and on disk."""

import os
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_group
from vswin.config.schema import DatasetConfig
from vswin.data import decode
from vswin.data import frames as frames_module
from vswin.data.decode import VideoReader
from vswin.data.decoders import DECODER_VERSIONS
from vswin.data.frames import DiskCache, FrameLoader, RamCache, open_frames
from vswin.data.samples import Sample
from vswin.errors import DecodeError, InputError

CLIPS = Path(__file__).parent.parent / "clips"
VIDEO = np.random.default_rng(0).integers(256, size=(7, 16, 20, 3), dtype=np.uint8)


@pytest.fixture
def openings(monkeypatch) -> list[str]:
    """Records the videos that are opened for decoding."""
    opened = []

    class Listing(VideoReader):
        def __init__(self, path: str, *arguments: object, **named: object) -> None:
            opened.append(Path(path).name)
            super().__init__(path, *arguments, **named)

    monkeypatch.setattr(decode, "VideoReader", Listing)
    return opened


@pytest.fixture(params=["ram", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> RamCache | DiskCache:
    return RamCache() if request.param == "ram" else DiskCache(tmp_path / "cache")


def dataset(cache: str, folder: Path, **changes: object) -> DatasetConfig:
    options = {
        "decoder": "auto",
        "clip_timeout_sec": None,
        "isolate": False,
        "cache": cache,
        "cache_dir": str(folder),
        **changes,
    }
    return make_group("dataset", **options)


def test_each_video_is_counted_once_with_its_decoder(write_video, encode, bad_files) -> None:
    av1 = encode("av1.webm", "-c:v", "libaom-av1", "-cpu-used", "8")
    paths = [write_video("a.avi", 4), write_video("b.avi", 4), av1]
    loader = FrameLoader()
    for path in [*paths, *paths]:
        loader.load(path, 16, np.arange)
    with pytest.raises(DecodeError):
        loader.load(bad_files["text"], 16, np.arange)
    assert loader.count_videos() == {"opencv": 2, "pyav": 1}
    assert loader.describe_decoders() == {
        "configured": "auto",
        "opencv": {"version": DECODER_VERSIONS["opencv"], "videos": 2},
        "pyav": {"version": DECODER_VERSIONS["pyav"], "videos": 1},
    }


def test_short_sides_of_the_videos_are_counted(small_videos) -> None:
    loader = FrameLoader()
    for number in (0, 1, 1):
        loader.load(small_videos / "dark" / f"{number}.avi", 32, lambda n: np.arange(2))
    assert loader.count_short_sides() == {"40": 2}
    loader._short_sides |= {str(size): size for size in range(100, 106)}
    assert loader.count_short_sides() == {"40": 2, "100": 1, "101": 1, "102": 1, "103": 1, "other": 2}


def test_decoder_and_time_limit_are_passed_on(write_video) -> None:
    path = write_video("pyav.avi", 4)
    loader = FrameLoader("pyav", 60)
    loader.load(path, 16, np.arange)
    assert loader.count_videos() == {"pyav": 1}
    with pytest.raises(DecodeError, match="too slow"):
        FrameLoader("auto", 1e-9).load(path, 16, np.arange)


def test_cache_gives_the_same_bytes_and_decodes_once(cache, openings) -> None:
    plain, cached = FrameLoader(), FrameLoader(cache=cache)
    rng = np.random.default_rng(0)
    paths = [str(CLIPS / "test.avi"), str(CLIPS / "demo.mp4")]
    for path in paths * 2:
        numbers = rng.integers(164, size=9)
        frames = [loader.load(path, 40, lambda num_frames, numbers=numbers: numbers) for loader in (cached, plain)]
        assert np.array_equal(*frames)
    assert openings.count("test.avi") == openings.count("demo.mp4") == 1 + 2
    cached.load(paths[0], 32, np.arange)
    assert openings.count("test.avi") == 1 + 2 + 1


def test_changed_video_is_read_anew(cache, write_video, frames_seen, tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    loader = FrameLoader(cache=cache)
    for name, num_frames in (("first.avi", 5), ("second.avi", 9)):
        path.write_bytes(Path(write_video(name, num_frames)).read_bytes())
        assert frames_seen(loader.load(path, 16, np.arange)) == list(range(num_frames))
    # Another content of the same length, and the same content at another time.
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DecodeError, match="not a video"):
        loader.load(path, 16, np.arange)
    path.unlink()
    with pytest.raises(DecodeError, match="missing"):
        loader.load(path, 16, np.arange)


def test_the_same_file_by_another_name_is_known(cache, write_video, monkeypatch, openings) -> None:
    path = Path(write_video("named.avi", 4))
    loader = FrameLoader(cache=cache)
    loader.load(path, 16, np.arange)
    monkeypatch.chdir(path.parent)
    loader.load("named.avi", 16, np.arange)
    assert openings == ["named.avi"]


def test_video_that_is_too_long_is_not_kept(cache, write_video, monkeypatch, openings) -> None:
    monkeypatch.setattr(frames_module, "LONGEST_KEPT", 9)
    loader = FrameLoader(cache=cache)
    for path in (write_video("nine.avi", 9), write_video("ten.avi", 10)):
        for _ in range(2):
            assert len(loader.load(path, 16, lambda num_frames: np.array([0, 8]))) == 2
    assert openings == ["nine.avi", "ten.avi", "ten.avi", "ten.avi"]


def test_frames_before_damage_are_given_though_the_whole_cannot_be_kept(monkeypatch, openings) -> None:
    loader = FrameLoader(cache=RamCache())
    original = VideoReader.read

    def read(self: VideoReader, numbers: np.ndarray, *arguments: object) -> np.ndarray:
        if numbers.max() > 100:
            raise DecodeError(self.path, "truncated")
        return original(self, numbers, *arguments)

    monkeypatch.setattr(VideoReader, "read", read)
    for _ in range(2):
        assert len(loader.load(CLIPS / "test.avi", 16, lambda num_frames: np.arange(5))) == 5
    assert openings == ["test.avi"] * 3


def test_full_disk_is_not_tried_again_for_the_same_video(write_video, tmp_path: Path, monkeypatch, openings) -> None:
    def fail(file: object, video: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frames_module.np, "save", fail)
    loader = FrameLoader(cache=DiskCache(tmp_path))
    path = write_video("full.avi", 4)
    for _ in range(3):
        assert len(loader.load(path, 16, np.arange)) == 4
    assert len(openings) == 2 + 1 + 1
    assert list(tmp_path.iterdir()) == []


def test_memory_is_not_filled_to_the_brim(monkeypatch) -> None:
    memory = namedtuple("Memory", "available total")
    cache = RamCache()
    for spare, is_kept in ((1000, True), (999, False)):
        available = VIDEO.nbytes + spare
        monkeypatch.setattr(
            frames_module.psutil, "virtual_memory", lambda available=available: memory(available, 10_000)
        )
        assert cache.put(str(spare), VIDEO) == (cache.get(str(spare)) is not None) == is_kept


def test_threads_may_share_a_loader(cache, write_video, frames_seen) -> None:
    path = write_video("shared.avi", 15)
    loader = FrameLoader(cache=cache)
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda number: loader.load(path, 16, lambda _: np.array([number % 15])), range(60)))
    assert [frames_seen(frames)[0] for frames in loaded] == [number % 15 for number in range(60)]


def test_disk_cache_outlives_its_loader_and_keeps_decoders_apart(
    write_video, tmp_path: Path, monkeypatch, openings
) -> None:
    path = write_video("apart.avi", 4)

    def load(decoder: str) -> int:
        FrameLoader(decoder, cache=DiskCache(tmp_path)).load(path, 16, np.arange)
        return len(openings)

    assert [load(decoder) for decoder in ("auto", "auto", "pyav")] == [1, 1, 2]
    monkeypatch.setattr(frames_module, "DECODER_VERSIONS", {"opencv": "9", "pyav": "9"})
    assert load("auto") == 3


DAMAGES = {
    "cut off": lambda content: content[:-1],
    "half a header": lambda content: content[:50],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"x",
    "foreign": lambda content: b"PK\x03\x04" + bytes(500),
    "newer format": lambda content: content[:6] + b"\x02" + content[7:],
    "other type": lambda content: content.replace(b"|u1", b"|i1"),
    "columns first": lambda content: content.replace(b"False", b"True "),
    "objects": lambda content: content.replace(b"'|u1'", b"'|O' "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_counts_as_not_there_and_is_replaced(damage: str, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    assert cache.put("a", VIDEO)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    assert DAMAGES[damage](content) != content
    file.write_bytes(DAMAGES[damage](content))
    assert cache.get("a") is None
    assert cache.put("a", VIDEO)
    assert np.array_equal(cache.get("a"), VIDEO)


def test_folder_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    cache.put("a", VIDEO)
    (tmp_path / "cache" / "a.npy").unlink()
    (tmp_path / "cache").rmdir()
    assert cache.get("a") is None
    assert not cache.put("a", VIDEO)


def test_several_processes_share_a_folder(write_video, tmp_path: Path) -> None:
    paths = [write_video(f"process_{number}.avi", 8) for number in range(6)]
    code = """
import sys, zlib
from pathlib import Path
import numpy as np
from vswin.data.frames import DiskCache, FrameLoader
loader = FrameLoader(cache=DiskCache(Path(sys.argv[1])))
for _ in range(30):
    print([zlib.crc32(loader.load(path, 16, np.arange).tobytes()) for path in sys.argv[2:]])
"""
    command = [sys.executable, "-c", code, str(tmp_path), *paths]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set("".join(outputs).splitlines())) == 1
    assert len(list(tmp_path.iterdir())) == 6


def test_space_is_estimated_from_a_few_videos(write_video, bad_files, tmp_path: Path, monkeypatch, openings) -> None:
    # 8 frames of 16 x 20 pixels take 7,680 bytes, 50 such videos 384,000; a cache may use 70 % of the free memory.
    paths = [write_video(f"space_{number}.avi", 8, 32, 40) for number in range(50)]
    loader = FrameLoader(cache=DiskCache(tmp_path))
    monkeypatch.setattr(DiskCache, "free_bytes", lambda self: 549_000)
    loader.check_space([Sample(path, (0,)) for path in paths], 16)
    assert len(openings) == 17
    monkeypatch.setattr(DiskCache, "free_bytes", lambda self: 548_000)
    with pytest.raises(InputError, match=rf"50 videos take about .* disk in {tmp_path} are free.*cache_dir"):
        loader.check_space([Sample(path, (0,)) for path in paths], 16)


def test_what_is_kept_bad_or_too_long_needs_no_space(write_video, bad_files, tmp_path: Path, monkeypatch) -> None:
    path = write_video("kept.avi", 8, 32, 40)
    loader = FrameLoader(cache=DiskCache(tmp_path))
    monkeypatch.setattr(DiskCache, "free_bytes", lambda self: 0)
    loader.check_space([], 16)
    loader.check_space([Sample(bad_files[name], (0,)) for name in ("text", "missing")], 16)
    with pytest.raises(InputError):
        loader.check_space([Sample(path, (0,))], 16)
    loader.load(path, 16, np.arange)
    loader.check_space([Sample(path, (0,))], 16)
    monkeypatch.setattr(frames_module, "LONGEST_KEPT", 7)
    loader.check_space([Sample(write_video("too_long.avi", 8, 32, 40), (0,))], 16)


def test_open_frames_takes_what_is_configured(write_video, tmp_path: Path, monkeypatch, openings) -> None:
    path = write_video("configured.avi", 4)
    monkeypatch.setenv("HOME", str(tmp_path))
    for cache, num_openings in (("none", 2), ("ram", 1 + 1), ("disk", 1 + 1)):
        openings.clear()
        loader = open_frames(dataset(cache, Path("~/frames")), 16, [Sample(path, (0,))])
        for _ in range(2):
            loader.load(path, 16, np.arange)
        assert len(openings) == num_openings
    assert len(list((tmp_path / "frames").iterdir())) == 1
    assert open_frames(dataset("none", tmp_path, decoder="pyav"), 16, []).describe_decoders()["configured"] == "pyav"


def test_open_frames_refuses_what_cannot_work(write_video, tmp_path: Path, monkeypatch) -> None:
    path = write_video("large.avi", 4)
    monkeypatch.setattr(RamCache, "free_bytes", lambda self: 1000)
    with pytest.raises(InputError, match=r"dataset.cache: 1 videos take about 0.0 GB .* of memory are free"):
        open_frames(dataset("ram", tmp_path), 16, [Sample(path, (0,))])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"dataset.cache_dir={tmp_path}{os.sep}file{os.sep}frames cannot be made"):
        open_frames(dataset("disk", tmp_path / "file" / "frames"), 16, [])
