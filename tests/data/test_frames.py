import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_group
from vswin.config.schema import DatasetConfig
from vswin.data import cache as caches
from vswin.data import frames as frames_module
from vswin.data import stores
from vswin.data.cache import DiskCache, RamCache
from vswin.data.decode import DECODER_VERSIONS, VideoReader
from vswin.data.decode_error import DecodeError
from vswin.data.frames import FrameLoader, open_frames
from vswin.errors import InputError

CLIPS = Path(__file__).parent.parent / "clips"


@pytest.fixture
def openings(monkeypatch) -> list[str]:
    """Records the videos that are opened for decoding."""
    opened = []

    class Listing(VideoReader):
        def __init__(self, path: str, *arguments: object) -> None:
            opened.append(Path(path).name)
            super().__init__(path, *arguments)

    monkeypatch.setattr(stores, "VideoReader", Listing)
    return opened


def cache_of(kind: str, folder: Path) -> RamCache | DiskCache:
    return RamCache() if kind == "ram" else DiskCache(folder / "cache", "auto")


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


def test_frames_are_resized_and_in_the_order_asked(write_video, frames_seen) -> None:
    path = write_video("loaded.avi", 12, 48, 64)
    frames = FrameLoader().load(Path(path), 24, lambda num_frames: np.array([num_frames - 1, 0, 5, 0]))
    assert frames.shape == (4, 24, 32, 3)
    assert frames_seen(frames) == [11, 0, 5, 0]


def test_each_video_is_counted_once_with_its_decoder(write_video, encode, bad_files) -> None:
    paths = [
        write_video("a.avi", 4),
        write_video("b.avi", 4),
        encode("av1.webm", "-c:v", "libaom-av1", "-cpu-used", "8"),
    ]
    loader = FrameLoader()
    assert loader.count_videos() == {}
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


def test_decoder_and_time_limit_are_passed_on(write_video) -> None:
    path = write_video("pyav.avi", 4)
    loader = FrameLoader("pyav", 60)
    loader.load(path, 16, np.arange)
    assert loader.count_videos() == {"pyav": 1}
    with pytest.raises(DecodeError, match="too slow"):
        FrameLoader("auto", 1e-9).load(path, 16, np.arange)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_cache_gives_the_same_bytes_and_decodes_once(tmp_path: Path, openings, kind: str) -> None:
    plain, cached = FrameLoader(), FrameLoader(cache=cache_of(kind, tmp_path))
    rng = np.random.default_rng(0)
    paths = [str(CLIPS / "test.avi"), str(CLIPS / "demo.mp4")]
    for path in paths * 2:
        numbers = rng.integers(164, size=9)
        asked = []

        def choose(num_frames: int, numbers: np.ndarray = numbers, asked: list = asked) -> np.ndarray:
            asked.append(num_frames)
            return numbers

        assert np.array_equal(cached.load(path, 40, choose), plain.load(path, 40, choose))
        assert asked == [164 if "avi" in path else 280] * 2
    assert openings.count("test.avi") == openings.count("demo.mp4") == 1 + 2
    cached.load(paths[0], 32, np.arange)
    assert openings.count("test.avi") == 1 + 2 + 1


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_changed_video_is_read_anew(write_video, frames_seen, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "video.avi"
    loader = FrameLoader(cache=cache_of(kind, tmp_path))
    for name, num_frames in (("first.avi", 5), ("second.avi", 9)):
        path.write_bytes(Path(write_video(name, num_frames)).read_bytes())
        assert frames_seen(loader.load(path, 16, np.arange)) == list(range(num_frames))
    path.write_bytes(Path(write_video("second.avi", 9)).read_bytes()[::-1])
    with pytest.raises(DecodeError, match="not a video"):
        loader.load(path, 16, np.arange)
    path.unlink()
    with pytest.raises(DecodeError, match="missing"):
        loader.load(path, 16, np.arange)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_video_that_is_too_long_is_not_kept(write_video, tmp_path: Path, monkeypatch, openings, kind: str) -> None:
    monkeypatch.setattr(frames_module, "LONGEST_KEPT", 9)
    cache = cache_of(kind, tmp_path)
    loader = FrameLoader(cache=cache)
    for name, is_kept in (("nine.avi", True), ("ten.avi", False)):
        path = write_video(name, 9 if is_kept else 10)
        for _ in range(2):
            assert len(loader.load(path, 16, lambda num_frames: np.array([0, 8]))) == 2
        assert (cache.get(path, 16) is not None) == is_kept
    assert openings == ["nine.avi", "ten.avi", "ten.avi", "ten.avi"]


def test_frames_before_damage_are_given_though_the_whole_cannot_be_kept(tmp_path: Path, monkeypatch, openings) -> None:
    cache = RamCache()
    loader = FrameLoader(cache=cache)
    original = VideoReader.read

    def read(self: VideoReader, numbers: np.ndarray, *arguments: object) -> np.ndarray:
        if numbers.max() > 100:
            raise DecodeError(self.path, "truncated")
        return original(self, numbers, *arguments)

    monkeypatch.setattr(VideoReader, "read", read)
    path = str(CLIPS / "test.avi")
    for _ in range(2):
        assert len(loader.load(path, 16, lambda num_frames: np.arange(5))) == 5
    assert openings == ["test.avi"] * 3
    assert cache.get(path, 16) is None


def test_full_disk_is_not_tried_again_for_the_same_video(write_video, tmp_path: Path, monkeypatch, openings) -> None:
    def fail(file: object, video: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches.np, "save", fail)
    loader = FrameLoader(cache=DiskCache(tmp_path, "auto"))
    path = write_video("full.avi", 4)
    for _ in range(3):
        assert len(loader.load(path, 16, np.arange)) == 4
    assert len(openings) == 2 + 1 + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_threads_may_share_a_loader(write_video, frames_seen, tmp_path: Path, kind: str) -> None:
    path = write_video("shared.avi", 15)
    loader = FrameLoader(cache=cache_of(kind, tmp_path))
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda number: loader.load(path, 16, lambda _: np.array([number % 15])), range(60)))
    assert [frames_seen(frames)[0] for frames in loaded] == [number % 15 for number in range(60)]


def test_open_frames_takes_what_is_configured(write_video, tmp_path: Path, openings) -> None:
    path = write_video("configured.avi", 4)
    for cache, num_openings in (("none", 2), ("ram", 1 + 1), ("disk", 1 + 1)):
        openings.clear()
        loader = open_frames(dataset(cache, tmp_path / "frames"), 16, [path])
        for _ in range(2):
            loader.load(path, 16, np.arange)
        assert len(openings) == num_openings
    assert len(list((tmp_path / "frames").iterdir())) == 1
    assert open_frames(dataset("none", tmp_path, decoder="pyav"), 16, []).describe_decoders()["configured"] == "pyav"


def test_open_frames_refuses_what_will_not_fit(write_video, tmp_path: Path, monkeypatch) -> None:
    path = write_video("large.avi", 4)
    monkeypatch.setattr(RamCache, "free_bytes", lambda self: 1000)
    with pytest.raises(InputError, match=r"dataset.cache: 1 videos take about 0.0 GB .* of memory are free"):
        open_frames(dataset("ram", tmp_path), 16, [path])


def test_open_frames_needs_a_folder_it_can_make(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"dataset.cache_dir={tmp_path}{os.sep}file{os.sep}frames cannot be made"):
        open_frames(dataset("disk", tmp_path / "file" / "frames"), 16, [])


def test_short_sides_of_the_videos_are_counted(small_videos):
    loader = FrameLoader()
    for number in (0, 1, 1):
        loader.load(small_videos / "dark" / f"{number}.avi", 32, lambda n: np.arange(2))
    assert loader.count_short_sides() == {"40": 2}
    loader._short_sides |= {str(size): size for size in range(100, 106)}
    assert loader.count_short_sides() == {"40": 2, "100": 1, "101": 1, "102": 1, "103": 1, "other": 2}
