import os
from pathlib import Path

import numpy as np
import pytest

from vswin.data.decode_error import DecodeError
from vswin.data.stores import VIDEO_FILES


def test_files_are_opened_by_their_path(write_video, frames_seen) -> None:
    with VIDEO_FILES.open(write_video("stored.avi", 5), "pyav", 60) as reader:
        assert (reader.num_video_frames, reader.decoder) == (5, "pyav")
        assert frames_seen(reader.read(np.array([4, 0]))) == [4, 0]
    with pytest.raises(DecodeError, match="missing"):
        VIDEO_FILES.open("nowhere.avi")


def test_identity_changes_with_the_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "video.avi"
    assert VIDEO_FILES.identify(str(path)) is None
    assert VIDEO_FILES.identify("nul\0byte") is None
    path.write_bytes(b"one")
    first = VIDEO_FILES.identify(str(path))
    monkeypatch.chdir(tmp_path)
    assert VIDEO_FILES.identify("video.avi") == first
    os.utime(path, ns=(1, 1))
    second = VIDEO_FILES.identify(str(path))
    path.write_bytes(b"more")
    os.utime(path, ns=(1, 1))
    assert len({str(identity) for identity in (first, second, VIDEO_FILES.identify(str(path)))}) == 3
