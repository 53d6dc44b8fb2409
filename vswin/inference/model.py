"""Open a model as it expects its videos: weights, class names, and the protocol of its evaluation.

Predictions for a video therefore equal those of `vswin evaluate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vswin.config.checks import AVERAGES, SAMPLINGS, SPACINGS
from vswin.config.compose import compose_evaluation
from vswin.config.schema import SINGLE_LABEL, ClipConfig, EvaluateConfig
from vswin.console import count_of
from vswin.data.bad_videos import BadVideos
from vswin.data.decode import VideoStore
from vswin.data.frames import FrameLoader, open_store
from vswin.data.order import Shard
from vswin.data.pipeline import make_eval_dataset
from vswin.data.samples import Sample, split_name
from vswin.errors import InputError
from vswin.evaluation.views import Batch, BatchPredictions, map_batches, predict_batches, view_logits
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import configured_size
from vswin.runs.files import read_metrics
from vswin.runs.multi_label import USUAL_THRESHOLD
from vswin.runs.setup import set_up
from vswin.runtime import describe_devices
from vswin.weights.build import build_from
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import is_saved_model, read_input_shape
from vswin.weights.published import find_published, find_weights

# Keys of an evaluation that may be set here; the other keys say where its videos are and where it writes.
_KEYS = ("average", "batch_size", "clip", "model", "runtime", "source", "weights")
_DATA_KEYS = ("dataset.decoder", "dataset.clip_timeout_sec", "dataset.isolate")
_CHOICES = {"sampling": SAMPLINGS, "spacing": SPACINGS, "average": AVERAGES}


class Protocol(NamedTuple):
    """How videos become predictions.

    Attributes:
        config: The configuration of an evaluation with these weights; `dataset` says how to decode.
        origin: Where the protocol comes from, as text.
        is_known: Whether the protocol comes from a run or the weights; otherwise it is assumed.
        has_size: Whether an override sets the size of the network.
        thresholds: With several labels per sample, the probability from which each class counts as predicted, if known.
    """

    config: EvaluateConfig
    origin: str
    is_known: bool
    has_size: bool
    thresholds: Sequence[float] | None = None

    def describe(self) -> str:
        """Describes in one line what is averaged."""
        clip = self.config.clip
        frames = count_of(clip.num_frames, "frame")
        if clip.sampling == "segments":
            frames += " from equal parts of the video"
        elif clip.frame_stride > 1:
            frames += f", one in {clip.frame_stride}"
        else:
            frames += " in a row"
        num_views = clip.num_clips * clip.num_crops
        views = "1 view each" if num_views == 1 else f"average of {num_views} views each"
        return (
            f"{views} ({count_of(clip.num_clips, 'clip')} x {count_of(clip.num_crops, 'crop')}; {frames}; "
            f"short side {clip.resize}, {clip.crop} x {clip.crop} px)"
        )


def find_protocol(weights: str, overrides: Sequence[str] = ()) -> Protocol:
    """Finds the protocol with which a model expects its videos.

    Args:
        weights: a run folder, one of its checkpoints, a published name, or weights in a file or a SavedModel. Files of
            vswin state their clips; for others, the clips of Kinetics are assumed.
        overrides: keys of an evaluation that change the protocol, e.g. `["clip.num_clips=1"]`.

    Raises:
        InputError: if there is no such model, or a key or value is wrong.
    """
    groups = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        groups.append(key.partition(".")[0])
        if not equals:
            raise InputError(f"--set {override}: write KEY=VALUE, e.g. clip.num_clips=1")
        if key not in _DATA_KEYS and groups[-1] not in _KEYS:
            raise InputError(
                f"--set {override}: {key} does not matter here; what does: {', '.join((*_KEYS, *_DATA_KEYS))} "
                "(`vswin evaluate --help` explains them)"
            )

    # The weights bring arguments of `compose_evaluation`, and overrides that come before those of the user.
    path = Path(weights)
    run = _find_run(path)
    brought: dict[str, Any] = {"init_from": weights}
    own_overrides: list[str] = []
    is_known = True
    if run is not None:
        own_overrides = _read_tested(run / "metrics.json")
        brought = {"run": str(run), "init_from": weights if path.is_file() else None}
        origin = f"protocol of the {'evaluation' if own_overrides else 'run'} in {run}"
    elif not os.path.lexists(weights):
        origin = f"protocol published for {_find_dataset(weights)}"
    else:
        # Videos without a data set count as a folder of videos.
        metadata = open_checkpoint(weights).metadata
        own_overrides = ["dataset=folder", f"dataset.task={metadata.get('task', SINGLE_LABEL)}"]
        brought["clip"] = _read_clip(weights, metadata.get("clip"))
        origin, is_known = "protocol that comes with them", bool(brought["clip"])
        if not is_known:
            origin = "protocol of Kinetics, as they do not say theirs (--set clip.KEY=VALUE changes it)"
            shape = read_input_shape(path) if is_saved_model(path) else None
            brought["clip"] = {} if shape is None else {"num_frames": shape[2], "crop": shape[3]}

    # A chosen clip configuration replaces all known keys of `clip`.
    is_chosen = any(override.startswith("clip=") for override in overrides)
    kept = [override for override in own_overrides if not (is_chosen and override.startswith("clip."))]
    config = compose_evaluation([*kept, *overrides], **brought)
    others = [word for word, group in zip(overrides, groups, strict=True) if group not in ("average", "clip")]
    if len(others) < len(overrides):
        usual, used = (
            {**vars(found.clip), "average": found.average}
            for found in (compose_evaluation([*own_overrides, *others], **brought), config)
        )
        changes = [f"{key}={value}, not {usual[key]}" for key, value in used.items() if value != usual[key]]
        origin += f"; changed: {'; '.join(changes)}" if changes else ""
    thresholds = None
    if config.dataset.is_multi_label:
        thresholds = open_checkpoint(config.init_from or weights).metadata.get("thresholds")
    return Protocol(config, origin, is_known, "model" in groups, thresholds)


def _find_run(path: Path) -> Path | None:
    """Gives the run folder that a path names, or the one of a checkpoint."""
    if (path / "config.yaml").is_file():
        return path
    run = path.absolute().parent.parent
    is_checkpoint = path.is_file() and path.absolute().parent.name == "checkpoints" and (run / "config.yaml").is_file()
    return run if is_checkpoint else None


def _find_dataset(name: str) -> str:
    """Gives the data set of a published name."""
    try:
        weights = find_weights(name)
        return (find_published(name) if weights.is_image_model else weights).dataset
    except InputError as error:
        raise InputError(
            f"--model {name}: there is no such file or folder, and {error}. Give the folder of a run, a published name "
            "(`vswin models` lists them), a checkpoint (.h5, .pth, .safetensors) or a SavedModel"
        ) from None


def _read_tested(path: Path) -> list[str]:
    """Reads the protocol of an evaluation from its metrics, as overrides; empty if there is none."""
    protocol = (read_metrics(path) or {}).get("protocol")
    if protocol is None:
        return []
    keys = {*ClipConfig.__dataclass_fields__, "average"} - {"views_per_step"}
    tested = {key: protocol.get(key) for key in sorted(keys)}
    if not all(_is_sound(key, value) for key, value in tested.items()):
        raise InputError(f"{path}: what it says of the clips is damaged; evaluate the run again, or remove this file")
    return [f"{key if key == 'average' else f'clip.{key}'}={value}" for key, value in tested.items()]


def _read_clip(weights: str, clip: Any) -> dict[str, int | str]:
    """Checks the clip settings stored with weights, which may come from anybody, and takes those that a test needs."""
    if clip is None:
        return {}
    # Training resizes for random crops; the test has its own size.
    keys = [key for key in ClipConfig.__dataclass_fields__ if key != "resize"]
    if not isinstance(clip, Mapping) or not all(_is_sound(key, clip.get(key)) for key in keys):
        raise InputError(f"{weights}: what it says of its clips is damaged ({clip})")
    return {key: clip[key] for key in keys}


def _is_sound(key: str, value: Any) -> bool:
    if key in _CHOICES:
        return value in _CHOICES[key]
    return isinstance(value, int) and value >= 1


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

    @property
    def thresholds(self) -> np.ndarray | None:
        """With several labels per sample, the probability from which each class counts as predicted, float [K]."""
        if not self.protocol.config.dataset.is_multi_label:
            return None
        return np.array(self.protocol.thresholds or [USUAL_THRESHOLD] * self.model.num_classes)

    def activate(self, logits: tf.Tensor) -> tf.Tensor:
        """Turns logits, float32 [n, K], into probabilities, whose sum is 1 if each sample has one label."""
        return tf.sigmoid(logits) if self.protocol.config.dataset.is_multi_label else tf.nn.softmax(logits)

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
        parts = map(split_name, paths)
        samples = [Sample(path, (0,), part) for path, part in parts]
        return self.strategy.distribute_datasets_from_function(
            lambda context: make_eval_dataset(
                samples, config.clip, self._batch_size(len(paths)), bad, Shard.of(context), frames
            )
        )

    def _batch_size(self, num_videos: int) -> int:
        """Chooses as many videos per batch as fill one step of views on each device, but no more than there are."""
        config, num_replicas = self.protocol.config, self.strategy.num_replicas_in_sync
        if config.batch_size is not None:
            return config.batch_size
        per_device = max(1, config.clip.views_per_step // (config.clip.num_clips * config.clip.num_crops))
        return num_replicas * min(per_device, -(-num_videos // num_replicas))


def make_classifier(loaded: LoadedModel) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a function from any number of clips, uint8 [n, T, crop, crop, 3] RGB, to probabilities, float32 [n, K].

    It runs on the first device.
    """
    clip = loaded.protocol.config.clip
    spec = tf.TensorSpec([None, clip.num_frames, clip.crop, clip.crop, 3], tf.uint8)
    classify = tf.function(
        lambda clips: loaded.activate(loaded.model(clips, training=False)), input_signature=[spec], autograph=False
    )
    return lambda clips: classify(tf.constant(clips)).numpy()


def open_model(weights: str, protocol: Protocol, classes: Path | None = None, needs_head: bool = True) -> LoadedModel:
    """Opens a model; the configuration of its protocol sets its devices and precision.

    `classes` is a file with one class name per line; it replaces the names stored with the weights.

    Raises:
        InputError: if the weights do not exist, lack a head that is needed, or do not match names or configuration.
    """
    config = protocol.config
    named = None if classes is None else _read_names(classes)
    strategy = set_up(config, is_alone=True)
    size = configured_size(config.model) if protocol.has_size else None
    with strategy.scope():
        model, class_names = build_from(config.init_from or weights, size, config.source, needs_head)
    if named is not None and len(named) != model.num_classes:
        raise InputError(f"{classes} names {len(named)} classes, the model has {model.num_classes}")
    names = named or class_names
    numbers = [str(number) for number in range(model.num_classes)]
    return LoadedModel(model, names or numbers, names is not None, protocol, strategy, open_store(config.dataset))


def _read_names(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"--classes {path} cannot be read ({error}); a text file in UTF-8, a name per line") from None
    if not names or not all(name.strip() for name in names):
        raise InputError(f"--classes {path}: a class name per line, no line empty")
    return names
