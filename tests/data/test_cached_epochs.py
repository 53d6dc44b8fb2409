"""Whole epochs of training through a cache."""

from pathlib import Path

import numpy as np
import pytest

from vswin.data.bad_videos import BadVideos
from vswin.data.cache import DiskCache, RamCache
from vswin.data.frames import FrameLoader
from vswin.data.pipeline import Order, make_train_dataset
from vswin.data.records import VideoRecord
from vswin.schema import ClipConfig

CLIP = ClipConfig(num_frames=4, frame_stride=2, resize=40, crop=32, sampling="dense")


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_cached_epochs_equal_uncached_ones(write_video, bad_files, make_augment, tmp_path: Path, kind: str) -> None:
    paths = [write_video(f"epochs_{number}.avi", 8 + number) for number in range(7)]
    records = [VideoRecord(path, label) for label, path in enumerate([*paths, bad_files["truncated avi"]])]
    order = Order(seed=8, batch_size=4, epochs=3)
    cache = RamCache() if kind == "ram" else DiskCache(tmp_path, "auto")
    loaders = [FrameLoader(), FrameLoader(cache=cache)]
    bad = [BadVideos(), BadVideos()]
    augment = make_augment(crop_area=[0.2, 1.0], crop_aspect=[0.75, 1.33], flip=0.5)
    plain, cached = (
        list(make_train_dataset(records, CLIP, augment, True, order, bad[i], loaders[i]).as_numpy_iterator())
        for i in range(2)
    )
    assert len(plain) == len(cached) == 6
    for one, other in zip(plain, cached, strict=True):
        for key in one:
            assert np.array_equal(one[key], other[key]), key
    assert all(cache.has(path, CLIP.resize) for path in paths)
    assert loaders[0].count_videos() == loaders[1].count_videos() == {"opencv": 7}
    assert bad[0].rows() == bad[1].rows()
    assert len(bad[0]) == 1
