"""What a model says of a few validation videos, for whoever looks at a run."""

import dataclasses

import numpy as np
import tensorflow as tf

from vswin.data.catalog import Catalog
from vswin.data.decode_error import DecodeError
from vswin.data.frames import FrameLoader
from vswin.data.views import load_protocol_views
from vswin.evaluation.loggers import Sample, choose_samples, describe, reduce_frame
from vswin.models.video_swin import VideoSwin
from vswin.schema import ClipConfig


def predict_clips(model: VideoSwin, catalog: Catalog, clip: ClipConfig, frames: FrameLoader) -> list[Sample]:
    """Predicts the same few videos each time, from the clips that validation sees of them.

    On one device, one clip after the other: no other worker is needed for it, and it takes less memory than a step.

    Args:
        model: the classifier.
        catalog: its validation videos; those that cannot be decoded are left out.
        clip: frames and size; its numbers of clips and crops are not used.
        frames: reads them.
    """
    one_view, samples = dataclasses.replace(clip, num_clips=1, num_crops=1), []
    for number in choose_samples(len(catalog.val)):
        video = catalog.val[number]
        try:
            views = load_protocol_views(video.path, one_view, frames)  # [1, T, H, W, 3]
        except DecodeError:
            continue
        (probabilities,) = tf.nn.softmax(model(views, training=False)).numpy()
        said = int(probabilities.argmax())
        caption = describe(catalog.class_names[video.label], catalog.class_names[said], probabilities[said])
        samples.append(Sample(caption, np.stack([reduce_frame(frame) for frame in views[0]])))
    return samples
