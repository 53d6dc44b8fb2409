import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from vswin.data import cache as caches
from vswin.data.cache import DiskCache, RamCache, check_space
from vswin.errors import InputError


@pytest.fixture
def video() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(7, 16, 20, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Returns any file; caches only use its name, size and modification time."""
    file = tmp_path / "video.mp4"
    file.write_bytes(b"anything")
    return str(file)


def make(kind: str, folder: Path) -> RamCache | DiskCache:
    return RamCache() if kind == "ram" else DiskCache(folder / "cache", "auto")


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_kept_frames_come_back_in_any_order(kind: str, path, video, tmp_path: Path) -> None:
    cache = make(kind, tmp_path)
    assert cache.get(path, 16) is None
    assert cache.get(path, 16) is None
    assert cache.put(path, 16, video)
    assert cache.get(path, 16) is not None
    numbers = np.array([6, 0, 3, 3, 0])
    assert np.array_equal(cache.get(path, 16)[numbers], video[numbers])
    assert cache.get(path, 17) is None


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_video_that_changed_or_went_is_not_kept(kind: str, path, video, tmp_path: Path) -> None:
    cache = make(kind, tmp_path)
    cache.put(path, 16, video)
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.get(path, 16) is None
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.get(path, 16) is not None
    Path(path).write_bytes(b"anything else")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.get(path, 16) is None
    Path(path).unlink()
    assert cache.get(path, 16) is None
    assert cache.get("a\0b", 16) is None


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_same_file_by_another_name_is_known(kind: str, path, video, tmp_path: Path, monkeypatch) -> None:
    cache = make(kind, tmp_path)
    cache.put(path, 16, video)
    monkeypatch.chdir(tmp_path)
    assert cache.get("video.mp4", 16) is not None


def test_disk_cache_outlives_the_object_and_keeps_decoders_apart(path, video, tmp_path: Path) -> None:
    DiskCache(tmp_path, "auto").put(path, 16, video)
    assert DiskCache(tmp_path, "auto").get(path, 16) is not None
    assert DiskCache(tmp_path, "pyav").get(path, 16) is None


def test_disk_cache_keeps_decoder_versions_apart(path, video, tmp_path: Path, monkeypatch) -> None:
    DiskCache(tmp_path, "auto").put(path, 16, video)
    monkeypatch.setattr(caches, "DECODER_VERSIONS", {"opencv": "9", "pyav": "9"})
    assert DiskCache(tmp_path, "auto").get(path, 16) is None


DAMAGES = {
    "cut off": lambda content: content[:-1],
    "only a header": lambda content: content[:128],
    "half a header": lambda content: content[:50],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"x",
    "foreign": lambda content: b"PK\x03\x04" + bytes(500),
    "newer format": lambda content: content[:6] + b"\x02" + content[7:],
    "other type": lambda content: content.replace(b"|u1", b"|i1"),
    "other size": lambda content: content.replace(b"16, 20, 3", b"20, 16, 3").replace(b"(7, 20", b"(7, 12"),
    "columns first": lambda content: content.replace(b"False", b"True "),
    "objects": lambda content: content.replace(b"'|u1'", b"'|O' "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_counts_as_not_there_and_is_replaced(damage: str, path, video, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", "auto")
    cache.put(path, 16, video)
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    assert DAMAGES[damage](content) != content
    file.write_bytes(DAMAGES[damage](content))
    assert cache.get(path, 16) is None
    assert cache.get(path, 16) is None
    assert cache.put(path, 16, video)
    assert np.array_equal(cache.get(path, 16), video)


def test_folder_may_be_deleted_at_any_time(path, video, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", "auto")
    cache.put(path, 16, video)
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    assert cache.get(path, 16) is None
    (tmp_path / "cache").rmdir()
    assert cache.get(path, 16) is None
    assert not cache.put(path, 16, video)


def test_home_folder_may_be_abbreviated(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    DiskCache(Path("~/frames"), "auto")
    assert (tmp_path / "frames").is_dir()


def test_memory_is_not_filled_to_the_brim(path, video, monkeypatch) -> None:
    memory = namedtuple("Memory", "available total")
    monkeypatch.setattr(caches.psutil, "virtual_memory", lambda: memory(1000 + video.nbytes, 10_000))
    cache = RamCache()
    assert cache.put(path, 16, video)
    monkeypatch.setattr(caches.psutil, "virtual_memory", lambda: memory(999 + video.nbytes, 10_000))
    assert not cache.put(path, 17, video)
    assert cache.get(path, 17) is None


def test_space_is_estimated_from_a_few_videos(write_video, bad_files, tmp_path: Path, monkeypatch) -> None:
    # 8 frames of 16 x 20 pixels take 7,680 bytes, 50 such videos 384,000; a cache may use 70 % of the free memory.
    paths = [write_video(f"space_{number}.avi", 8, 32, 40) for number in range(50)]
    opened = []
    original = caches._count_bytes
    monkeypatch.setattr(
        caches, "_count_bytes", lambda store, path, size: opened.append(path) or original(store, path, size)
    )
    cache = DiskCache(tmp_path, "auto")
    for free, is_enough in ((549_000, True), (548_000, False)):
        monkeypatch.setattr(DiskCache, "free_bytes", lambda self, free=free: free)
        if is_enough:
            check_space(cache, paths, 16)
        else:
            with pytest.raises(InputError, match=rf"50 videos take about .* disk in {tmp_path} are free.*cache_dir"):
                check_space(cache, paths, 16)
    assert len(opened) == 2 * 17
    check_space(cache, [], 16)
    check_space(cache, [bad_files["text"], bad_files["missing"]], 16)


def test_what_is_kept_or_too_long_needs_no_space(write_video, tmp_path: Path, monkeypatch, video) -> None:
    path = write_video("kept.avi", 8, 32, 40)
    cache = DiskCache(tmp_path, "auto")
    monkeypatch.setattr(DiskCache, "free_bytes", lambda self: 0)
    with pytest.raises(InputError):
        check_space(cache, [path], 16)
    cache.put(path, 16, video)
    check_space(cache, [path], 16)
    monkeypatch.setattr(caches, "LONGEST_KEPT", 7)
    check_space(cache, [write_video("too_long.avi", 8, 32, 40)], 16)


def test_several_processes_share_a_folder(write_video, tmp_path: Path) -> None:
    paths = [write_video(f"process_{number}.avi", 8) for number in range(6)]
    code = """
import sys, zlib
from pathlib import Path
import numpy as np
from vswin.data.cache import DiskCache
from vswin.data.frames import FrameLoader
loader = FrameLoader(cache=DiskCache(Path(sys.argv[1]), "auto"))
for _ in range(30):
    print([zlib.crc32(loader.load(path, 16, np.arange).tobytes()) for path in sys.argv[2:]])
"""
    command = [sys.executable, "-c", code, str(tmp_path), *paths]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set("".join(outputs).splitlines())) == 1
    assert len(list(tmp_path.iterdir())) == 6
