"""Real video files with known content, good and bad."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

WriteVideo = Callable[..., str]
RunFfmpeg = Callable[..., None]
Encode = Callable[..., str]

CLIPS = Path(__file__).parent.parent / "clips"
FIRST_GRAY = 10
GRAY_STEP = 12
NUM_GRAYS = 20


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., None]:
    """Makes empty files, and their folders, below the test's folder."""

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a text file below the test's folder, byte for byte."""

    def written(name: str, text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))
        return path

    return written


@pytest.fixture(scope="session")
def write_video(tmp_path_factory: pytest.TempPathFactory) -> WriteVideo:
    """Writes a video whose frame t is uniformly gray, 10 + 12 (t mod 20); Motion JPEG keeps the level exactly."""
    folder = tmp_path_factory.mktemp("ramps")

    def write(name: str, num_frames: int, height: int = 48, width: int = 64) -> str:
        path = str(folder / name)
        codec = {".avi": "MJPG", ".mp4": "mp4v"}[Path(name).suffix]
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*codec), 25, (width, height))
        assert writer.isOpened()
        for number in range(num_frames):
            writer.write(np.full((height, width, 3), FIRST_GRAY + GRAY_STEP * (number % NUM_GRAYS), np.uint8))
        writer.release()
        return path

    return write


@pytest.fixture(scope="session")
def frames_seen() -> Callable[[np.ndarray], list[int]]:
    """Reads frame numbers below 20 from frames [..., H, W, 3] of a gray ramp."""

    def see(frames: np.ndarray) -> list[int]:
        means = frames.reshape(-1, *frames.shape[-3:]).mean(axis=(1, 2, 3))
        return np.round((means - FIRST_GRAY) / GRAY_STEP).astype(int).tolist()

    return see


@pytest.fixture(scope="session")
def ffmpeg() -> RunFfmpeg:
    def run(*arguments: str) -> None:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        subprocess.run([program, "-y", "-nostdin", "-loglevel", "error", *arguments], check=True, capture_output=True)

    return run


@pytest.fixture(scope="session")
def encode(tmp_path_factory: pytest.TempPathFactory, ffmpeg: RunFfmpeg) -> Encode:
    """Encodes 20 frames of 176 x 144 with ffmpeg's options: the gray ramp at the left, a real scene at the right."""
    folder = tmp_path_factory.mktemp("encoded")
    rgb, source = str(folder / "rgb.avi"), str(folder / "source.mkv")
    scene = cv2.VideoCapture(str(CLIPS / "demo.mp4"), cv2.CAP_FFMPEG)
    writer = cv2.VideoWriter(rgb, cv2.VideoWriter.fourcc(*"FFV1"), 25, (176, 144))
    for number in range(NUM_GRAYS):
        frame = cv2.resize(scene.read()[1], (176, 144))
        frame[:, :88] = FIRST_GRAY + GRAY_STEP * number
        writer.write(frame)
    writer.release()
    scene.release()
    ffmpeg("-i", rgb, "-c:v", "ffv1", "-pix_fmt", "yuv420p", source)

    def run(name: str, *options: str) -> str:
        path = folder / name
        if not path.exists():
            ffmpeg("-i", source, *options, str(path))
        return str(path)

    return run


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory: pytest.TempPathFactory, write_video: WriteVideo, ffmpeg: RunFfmpeg) -> dict[str, str]:
    """Makes files that are not usable videos, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (folder / "folder.mp4").mkdir()
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", str(folder / "audio.mp4"))
    index_first = folder / "index_first.mp4"
    ffmpeg("-i", str(CLIPS / "demo.mp4"), "-c", "copy", "-movflags", "faststart", str(index_first))
    for whole in (CLIPS / "demo.mp4", CLIPS / "test.avi", CLIPS / "flipping_a_pancake.mkv", index_first):
        content = whole.read_bytes()
        (folder / f"half_{whole.name}").write_bytes(content[: len(content) // 2])
    ffmpeg("-i", write_video("whole.mp4", 1), "-frames:v", "1", str(folder / "img_01.png"))
    shutil.copy(folder / "img_01.png", folder / "img_02.png")
    known = Path(write_video("known.avi", 6)).read_bytes()
    (folder / "unknown.avi").write_bytes(known.replace(b"MJPG", b"ZZZZ"))
    return {
        "missing": str(folder / "nowhere.mp4"),
        "empty": str(folder / "empty.mp4"),
        "text": str(folder / "text.mp4"),
        "playlist": str(folder / "playlist.mp4"),
        "folder": str(folder / "folder.mp4"),
        "audio": str(folder / "audio.mp4"),
        "truncated mp4": str(folder / "half_demo.mp4"),
        "truncated mp4, index first": str(folder / "half_index_first.mp4"),
        "truncated avi": str(folder / "half_test.avi"),
        "truncated mkv": str(folder / "half_flipping_a_pancake.mkv"),
        "one frame mp4": write_video("one.mp4", 1),
        "one frame avi": write_video("one.avi", 1),
        "image": str(folder / "img_01.png"),
        "unknown codec": str(folder / "unknown.avi"),
    }
