"""Files that vanish or change while a run reads them: the slot stays, and the cause is known."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_group
from vswin.data.bad_videos import BadVideos
from vswin.data.decode import VIDEO_FILES, VideoReader
from vswin.data.frames import DiskCache, FrameLoader, RamCache
from vswin.data.isolated import IsolatedVideos
from vswin.data.order import Order
from vswin.data.pipeline import make_eval_dataset, make_train_dataset
from vswin.data.samples import Sample
from vswin.errors import DecodeError

CLIP = make_group("clip", num_frames=2, frame_stride=1, resize=16, crop=16, num_clips=1, num_crops=1)
CLIPS = Path(__file__).parent.parent / "clips"
# A second of silence: a WAV file of 8,000 samples.
SOUND = b"RIFF" + (8036).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data"
SOUND += (8000).to_bytes(4, "little") + bytes(8000)
CHANGES: dict[str, Callable[[Path], object]] = {
    "vanish": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 3),
    "overwrite": lambda path: path.write_bytes(b"not a video\n" * 3000),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "other": lambda path: path.write_bytes((CLIPS / "flipping_a_pancake.mkv").read_bytes()),
    "sound": lambda path: path.write_bytes(SOUND),
    "grow": lambda path: path.write_bytes(path.read_bytes() * 2),
}
CAUSES = {change: {"not a video"} for change in ("overwrite", "zeros", "folder", "pipe", "sound")} | {
    "vanish": {"missing"},
    "empty": {"empty"},
    "cut": {"truncated"},
    "grow": {None, "truncated"},
}

CAUSES_WHILE_READ = {None, "truncated", "no frames", "one frame", "undecodable frame", "not a video", "not readable"}


def cause_of(loader: FrameLoader, path: Path, choose: Callable[[int], np.ndarray]) -> str | None:
    """Loads two frames; returns the cause if they cannot be decoded."""
    try:
        assert loader.load(path, 16, choose).shape[:2] == (2, 16)
    except DecodeError as error:
        return error.cause
    return None


@pytest.fixture(scope="module")
def isolated() -> IsolatedVideos:
    """Decodes in a separate process."""
    return IsolatedVideos(VIDEO_FILES)


@pytest.mark.parametrize("name", ["open.mp4", "open.avi"])
@pytest.mark.parametrize("decoder", ["opencv", "pyav", "isolated"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_open_file_gives_frames_or_an_error(
    isolated: IsolatedVideos, encode, tmp_path: Path, change: str, decoder: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(Path(encode(name, "-c:v", "mpeg4", "-q:v", "2")).read_bytes())
    store = isolated if decoder == "isolated" else VIDEO_FILES
    loader = FrameLoader("auto" if decoder == "isolated" else decoder, 20, store=store)

    def choose(num_frames: int) -> np.ndarray:
        CHANGES[change](path)
        return np.array([0, num_frames - 1])

    assert cause_of(loader, path, choose) in CAUSES_WHILE_READ


@pytest.mark.parametrize("change", sorted(CHANGES.keys() - {"pipe"}))
@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_change_between_counting_and_decoding_gives_frames_or_an_error(
    write_video, tmp_path: Path, monkeypatch, change: str, decoder: str
) -> None:
    path = tmp_path / "video.avi"
    path.write_bytes(Path(write_video("first.avi", 20)).read_bytes())
    original = VideoReader._open
    monkeypatch.setattr(VideoReader, "_open", lambda self: (CHANGES[change](path), original(self)))
    loader = FrameLoader(decoder, 20)
    assert cause_of(loader, path, lambda num_frames: np.array([0, num_frames - 1])) in CAUSES_WHILE_READ


@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
def test_files_that_change_between_two_epochs_keep_their_slots(
    write_video, make_augment, tmp_path: Path, cache: str
) -> None:
    changes = [None, *CHANGES]
    records = [Sample(str(tmp_path / f"{change}.avi"), (label,)) for label, change in enumerate(changes)]
    for path, *_ in records:
        Path(path).write_bytes(Path(write_video("epoch.avi", 30)).read_bytes())
    bad = BadVideos()
    caches = {"none": None, "ram": RamCache(), "disk": DiskCache(tmp_path / "cache")}
    loader = FrameLoader(timeout_sec=20, cache=caches[cache])

    def weights_of(epoch: int) -> list[float]:
        order = Order(seed=0, batch_size=len(records), epochs=epoch + 1, first_epoch=epoch)
        (batch,) = make_train_dataset(records, CLIP, make_augment(), True, order, bad, loader).as_numpy_iterator()
        assert sorted(batch["labels"].tolist()) == list(range(len(records)))
        return batch["weights"][np.argsort(batch["indices"])].tolist()

    assert weights_of(0) == [1] * len(records)
    assert bad.rows() == []
    for record in records[1:]:
        CHANGES[changes[record.label]](Path(record.path))
    weights = weights_of(1)
    causes = {Path(path).stem: cause.partition(" (")[0] for path, cause, _ in bad.rows()}
    for change, weight in zip(changes, weights, strict=True):
        assert causes.get(change) in CAUSES.get(change, {None}), change
        assert weight == (change not in causes), change
    (batch,) = make_eval_dataset(records, CLIP, len(records), bad, loader=loader).as_numpy_iterator()
    assert batch["labels"].tolist() == [-1 if change in causes else label for label, change in enumerate(changes)]
    assert batch["weights"].tolist() == [1] * len(records)
