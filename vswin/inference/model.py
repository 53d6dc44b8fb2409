"""Open a model with its protocol and class names, and run it on views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vswin.data.bad_videos import BadVideos
from vswin.data.decode import VideoStore
from vswin.data.frames import FrameLoader, open_store
from vswin.data.order import Shard
from vswin.data.pipeline import make_eval_dataset
from vswin.data.records import VideoRecord
from vswin.errors import InputError
from vswin.evaluation.views import Batch, BatchPredictions, map_batches, predict_batches, view_logits
from vswin.inference.protocol import Protocol
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.runtime import describe_devices, make_strategy, set_precision
from vswin.weights.build import build_from


class LoadedModel(NamedTuple):
    """A model ready to run in the scope of `strategy`, on the devices of this machine; `store` opens video files.

    `class_names` are K names. Where no names are known, they are the class numbers and `has_names` is false.
    """

    model: VideoSwin
    class_names: list[str]
    has_names: bool
    protocol: Protocol
    strategy: tf.distribute.Strategy
    store: VideoStore

    def describe(self) -> str:
        """Describes in one line what is averaged, the precision and the devices."""
        config = self.protocol.config
        return f"{self.protocol.describe()}, {config.runtime.precision} on {describe_devices(self.strategy)}"

    def predict(self, paths: Sequence[str], bad: BadVideos) -> Iterator[BatchPredictions]:
        """Predicts videos; decoding runs ahead of the model, and `bad` collects videos that cannot be decoded.

        Yields:
            For each batch: `indices` into `paths`, int32 [B], -1 for padding; `labels`, int32 [B], -1 for a bad video;
            `probabilities`, float32 [B, K].
        """
        return predict_batches(self.model, self.strategy, self._load(paths, bad), self.protocol.config)

    def compute_features(self, paths: Sequence[str], bad: BadVideos) -> Iterator[BatchPredictions]:
        """Computes the features that the head receives, for every view.

        Yields:
            For each batch: `indices` and `labels` as in `predict`; `features`, float32 [B, V, C], the averages over
            time, height and width after the last stage.
        """
        views_per_step = self.protocol.config.clip.views_per_step

        def compute(batch: Batch) -> Batch:
            pooled = view_logits(
                lambda clips: tf.reduce_mean(self.model.features(clips), axis=[1, 2, 3]),  # [n, C]
                batch["views"],
                views_per_step,
            )  # [B, V, C]
            return {"indices": batch["indices"], "labels": batch["labels"], "features": pooled}

        return map_batches(compute, self.strategy, self._load(paths, bad), views_per_step)

    def _load(self, paths: Sequence[str], bad: BadVideos) -> tf.distribute.DistributedDataset:
        config = self.protocol.config
        frames = FrameLoader(config.dataset.decoder, config.dataset.clip_timeout_sec, store=self.store)
        records = [VideoRecord(path, 0) for path in paths]
        return self.strategy.distribute_datasets_from_function(
            lambda context: make_eval_dataset(
                records, config.clip, self._batch_size(len(paths)), bad, Shard.of(context), frames
            )
        )

    def _batch_size(self, num_videos: int) -> int:
        """Chooses as many videos per batch as fill one step of views on each device, but no more than there are."""
        config, num_replicas = self.protocol.config, self.strategy.num_replicas_in_sync
        if config.batch_size is not None:
            return config.batch_size
        per_device = max(1, config.clip.views_per_step // (config.clip.num_clips * config.clip.num_crops))
        return num_replicas * min(per_device, -(-num_videos // num_replicas))


class Classifier:
    """Classifies batches of any number of clips on the first device."""

    def __init__(self, loaded: LoadedModel) -> None:
        clip = loaded.protocol.config.clip
        spec = tf.TensorSpec([None, clip.num_frames, clip.crop, clip.crop, 3], tf.uint8)
        model = loaded.model
        self._infer = tf.function(
            lambda clips: tf.nn.softmax(model(clips, training=False)), input_signature=[spec], autograph=False
        )

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Classifies clips, uint8 [n, T, crop, crop, 3] RGB; gives probabilities, float32 [n, K]."""
        return self._infer(tf.constant(clips)).numpy()


def open_model(weights: str, protocol: Protocol, classes: Path | None = None, needs_head: bool = True) -> LoadedModel:
    """Opens a model; the configuration of its protocol sets its devices and precision.

    `classes` is a file with one class name per line; it replaces the names stored with the weights.

    Raises:
        InputError: if the weights do not exist, lack a head that is needed, or do not match names or configuration.
    """
    config = protocol.config
    named = None if classes is None else _read_names(classes)
    strategy = make_strategy(_choose_strategy(config.runtime.strategy))
    set_precision(config.runtime.precision)
    size = configured_size(config.model) if protocol.has_size else None
    with strategy.scope():
        model, class_names = build_from(config.init_from or weights, size, config.source, needs_head)
    if named is not None and len(named) != model.num_classes:
        raise InputError(f"{classes} names {len(named)} classes, the model has {model.num_classes}")
    names = named or class_names
    numbers = [str(number) for number in range(model.num_classes)]
    return LoadedModel(model, names or numbers, names is not None, protocol, strategy, open_store(config.dataset))


def _choose_strategy(name: str) -> str:
    """Uses only the devices of this machine: a job of several processes would wait for all of them."""
    if name == "multi_worker":
        raise InputError("runtime.strategy=multi_worker: predictions take one machine; `vswin evaluate` takes several")
    if name == "auto":
        return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"
    return name


def _read_names(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"--classes {path} cannot be read ({error}); a text file in UTF-8, a name per line") from None
    if not names or not all(name.strip() for name in names):
        raise InputError(f"--classes {path}: a class name per line, no line empty")
    return names
