import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.data.catalog import Catalog
from vswin.data.frames import FrameLoader
from vswin.data.records import VideoRecord
from vswin.training.loggers import predict_clips
from vswin.zoo import ModelSize

SIZE = ModelSize(embed_dim=8, depths=(1, 1), num_heads=(1, 2), patch_size=(2, 4, 4), window_size=(2, 2, 2))


@pytest.fixture
def catalog(small_videos) -> Catalog:
    """Four bright videos, one of which is gone, and three dark ones."""
    paths = [*(small_videos / "bright" / f"{number}.avi" for number in range(4))]
    paths += [small_videos / "dark" / f"{number}.avi" for number in range(3)]
    paths[1] = paths[1].with_name("gone.avi")
    videos = [VideoRecord(str(path), int(path.parent.name == "dark")) for path in paths]
    return Catalog(("bright", "dark"), [], videos)


@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, tf.distribute.MirroredStrategy])
def test_captions_are_what_the_model_says_of_the_clip_of_validation(catalog, compose_train, strategy):
    clip = compose_train("clip.num_frames=4", "clip.resize=36", "clip.crop=32", "clip.num_clips=2").clip
    with strategy().scope():
        model = vswin.build_model(SIZE, num_classes=2)
    samples = predict_clips(model, catalog, clip, FrameLoader())
    readable = [video for video in catalog.val if "gone" not in video.path]
    assert len(samples) == len(readable) == 6
    for sample, video in zip(samples, readable, strict=True):
        views = vswin.load_views(video.path, 4, clip.frame_stride, 1, 1, 36, 32)
        np.testing.assert_array_equal(sample.frames, views[0])
        first, second = tf.nn.softmax(model(views)).numpy()[0]
        said, probability = ("bright", first) if first > second else ("dark", second)
        label = catalog.class_names[video.label]
        assert sample.caption == f"{label}, predicted {said} ({100 * probability:.1f} %)"


def test_large_clips_are_reduced_and_no_more_than_eight_videos_are_shown(catalog, compose_train):
    clip = compose_train("clip.num_frames=4", "clip.resize=160", "clip.crop=160").clip
    many = Catalog(catalog.class_names, [], catalog.val[:1] * 20)
    samples = predict_clips(vswin.build_model(SIZE, num_classes=2), many, clip, FrameLoader())
    assert [sample.frames.shape for sample in samples] == [(4, 128, 128, 3)] * 8
