"""Whole epochs of training through a cache."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_group
from vswin.data import frames
from vswin.data.bad_videos import BadVideos
from vswin.data.cache import DiskCache, RamCache
from vswin.data.frames import FrameLoader
from vswin.data.order import clip_generator
from vswin.data.pipeline import Order, make_train_dataset
from vswin.data.records import VideoRecord
from vswin.data.transforms import crop, resize
from vswin.data.views import apply_changes, draw_train_clip

CLIP = make_group("clip", num_frames=4, frame_stride=2, resize=40, crop=32)


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
    assert all(cache.get(path, CLIP.resize) is not None for path in paths)
    assert loaders[0].count_videos() == loaders[1].count_videos() == {"opencv": 7}
    assert bad[0].rows() == bad[1].rows()
    assert len(bad[0]) == 1


@pytest.mark.parametrize("longest", [0, 3000])
def test_pixels_do_not_depend_on_what_a_cache_has_room_for(
    write_video, make_augment, monkeypatch, longest: int
) -> None:
    """Sessions may have more or less memory; crops of videos that are not at the clip's size are resized twice."""
    monkeypatch.setattr(frames, "LONGEST_KEPT", longest)
    records = [VideoRecord(write_video("room.avi", 8), 0)]
    clip = dataclasses.replace(CLIP, resize=36)
    loader = FrameLoader(cache=RamCache())
    augment, order = make_augment(crop_area=[0.2, 1.0], flip=0.5), Order(seed=8, batch_size=1, epochs=1)
    (batch,) = make_train_dataset(records, clip, augment, True, order, BadVideos(), loader).as_numpy_iterator()
    whole = loader.load(records[0].path, clip.resize, lambda num_frames: np.arange(num_frames))
    # Drawn again from the same seed, from the resized frames.
    drawn = draw_train_clip(records[0].path, clip, augment, True, clip_generator(8, 0, 0), FrameLoader())
    assert np.array_equal(drawn.frames, whole[drawn.numbers])
    boxes = resize(crop(drawn.frames, drawn.changes.box), clip.crop, clip.crop)
    assert np.array_equal(batch["clips"][0], apply_changes(boxes, drawn.changes))
