"""Exports models as SavedModels that need nothing but TensorFlow; `vswin export` for every format.

Called by the command line.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf

from vswin.build import build_from
from vswin.errors import InputError, nearest
from vswin.export_formats import (
    check_new_file,
    describe_export,
    export_onnx,
    export_tflite,
    float32_copy,
    import_tf2onnx,
)
from vswin.models.video_swin import VideoSwin
from vswin.predict.protocol import find_protocol
from vswin.runtime import logger
from vswin.weights.names import HEAD_PREFIX, named_weights
from vswin.zoo import ModelSize

FORMATS = ("savedmodel", "tflite", "onnx")

# Any number of clips of any length and size, [B, T, H, W, 3]: as they come, and normalised.
NORMALIZED = tf.TensorSpec([None, None, None, None, 3], tf.float32, name="x")
CLIPS = tf.TensorSpec([None, None, None, None, 3], tf.uint8, name="clips")


def export_saved_model(
    model: VideoSwin,
    folder: Path,
    class_names: Sequence[str] | None = None,
    num_frames: int = 32,
    size: int = 224,
    source_weights: str | None = None,
    clip: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a SavedModel with the interface of the TF-Hub collection, and signatures for uint8 clips.

    What `tf.saved_model.load` gives back is callable, `loaded(x, training=False)`: normalised RGB, float32
    [B, 3, num_frames, size, size], to features, float32 [B, 8C, T', H', W'], any B. With `training=True` it drops
    paths as in training. It holds `variables` and `trainable_variables` of the backbone, so that
    `hub.KerasLayer(folder, trainable=True)` fine-tunes it, and all `weights` by official name (in the layout of
    TensorFlow). Signatures, each with a dict of one entry as its result:

    - `serving_default`: `input_1` to `output_1`, as when called;
    - `features`: `clips`, uint8 [B, T, H, W, 3] RGB of any extents, to `features`, float32 [B, T', H', W', 8C];
    - `probabilities`: `clips`, the same, to `probabilities`, float32 [B, K].

    Assets: `vswin.json` says what the model is, `classes.txt` names a class per line, if `class_names` are given.

    Args:
        model: the model, of any precision; float32 is written.
        folder: folder to write; may exist if it is empty.
        class_names: classes in the order of the outputs, if known.
        num_frames: frames of a channels-first clip.
        size: its rows, and its columns.
        source_weights: where the weights came from, if known.
        clip: the clips that the model is tested on, as in `ClipConfig`, if known.

    Returns:
        `folder`.

    Raises:
        InputError: if the folder is not empty, or the arguments do not fit the model.
    Source: hub_utilities/tfhub.dev/assets/docs of shoaib6174/GSOC-22-Video-Swin-Transformers (shapes);
        tensorflow_hub/keras_layer.py (what a layer reads from the loaded object).
    """
    _check_new_folder(folder)
    description = describe_export(model, class_names, num_frames, size, source_weights, clip)
    assets = {"vswin.json": json.dumps(description, indent=2)}
    if class_names is not None:
        assets["classes.txt"] = "\n".join(class_names)
    exported, signatures = _make_exportable(float32_copy(model), num_frames, size)
    with _replacing_folder(folder) as unfinished, TemporaryDirectory() as temporary:
        for name, text in assets.items():
            asset = Path(temporary) / name
            asset.write_text(text + "\n", encoding="utf-8")
            setattr(exported, asset.stem, tf.saved_model.Asset(str(asset)))
        tf.saved_model.save(exported, str(unfinished), signatures)
    return folder


def run_export(
    weights: str,
    output: Path,
    format: str | None = None,
    model: str | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    source: str | None = None,
) -> None:
    """Exports weights and says what was written.

    Args:
        weights: run folder, checkpoint file or published name.
        output: folder (`savedmodel`) or file to write.
        format: one of `FORMATS`; None: as the ending of the output says, a SavedModel if it is none of theirs.
        model: key of `vswin.zoo.SIZES`, for weights that do not say what network they are of.
        num_frames: frames of the clips whose shape the format fixes; None: as the model was trained or tested.
        size: their rows, and their columns; None likewise.
        source: which copy of a published name.

    Raises:
        InputError: if there are no such weights or format, the weights have no head, the output exists, or a package
            is missing.
    """
    format = format or {".tflite": "tflite", ".onnx": "onnx"}.get(output.suffix, "savedmodel")
    _check_output(format, output)
    built, class_names = build_from(weights, model, source)
    if class_names is None:
        logger.info(f"{weights} does not name its classes; the export will not either")
    protocol = find_protocol(weights)
    clip = protocol.config.clip
    num_frames, size = clip.num_frames if num_frames is None else num_frames, clip.crop if size is None else size
    origin = protocol.origin if protocol.is_known else "for want of a protocol in the weights, that of Kinetics"
    logger.info(f"its clips have {num_frames} frames of {size} x {size} pixels ({origin}; --frames and --size win)")
    logger.info(f"exporting to {output} ({format}); this takes a minute or two")
    exports: dict[str, Callable[..., Path]] = dict(
        zip(FORMATS, (export_saved_model, export_tflite, export_onnx), strict=True)
    )
    known = dataclasses.asdict(clip) if protocol.is_known else None
    exports[format](built, output, class_names, num_frames, size, weights, known)
    files = [path for path in [output, *output.rglob("*")] if path.is_file()]
    logger.info(f"wrote {output}, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


def _check_output(format: str, output: Path) -> None:
    """Finds what would stop the export before weights are downloaded and the model is built."""
    if format not in FORMATS:
        raise InputError(f"no export format is called {format!r}: {nearest(format, FORMATS)}")
    if format == "savedmodel":
        _check_new_folder(output)
    else:
        check_new_file(output)
    if format == "onnx":
        import_tf2onnx()


def _make_exportable(model: VideoSwin, num_frames: int, size: int) -> tuple[tf.train.Checkpoint, dict[str, Any]]:
    """Makes the object to save and its signatures.

    The Keras model itself is left out: it would bring its classes along, and a traced function for each layer.
    """
    weights = named_weights(model)
    backbone = [variable for name, variable in weights.items() if not name.startswith(HEAD_PREFIX)]
    infer = _trace(lambda x: model.backbone(x), NORMALIZED)
    channels_first = tf.TensorSpec([None, 3, num_frames, size, size], name="input_1")
    call = _make_channels_first(model, infer, channels_first)
    exported = tf.train.Checkpoint(weights=weights)
    exported.variables = backbone
    exported.trainable_variables = list(backbone)
    exported.regularization_losses = []
    exported.__call__ = call
    signatures = {
        "serving_default": _trace(lambda input_1: {"output_1": call(input_1)}, channels_first),
        "features": _trace(lambda clips: {"features": infer(model.normalize(clips))}, CLIPS),
        "probabilities": _trace(
            lambda clips: {"probabilities": tf.nn.softmax(model.head(infer(model.normalize(clips))))}, CLIPS
        ),
    }
    return exported, signatures


def _make_channels_first(model: VideoSwin, infer: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec) -> Any:
    """Makes the function behind the loaded object, with and without training."""
    extents = _feature_extents(model.size, *spec.shape[2:4])
    infer_in_training = _trace(partial(_drop_paths, model), NORMALIZED)

    def call(x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.transpose(x, [0, 2, 3, 4, 1])  # [B, T, H, W, 3]
        features = infer_in_training(x) if training else infer(x)
        features = tf.transpose(features, [0, 4, 1, 2, 3])  # [B, 8C, T', H', W']
        return tf.ensure_shape(features, [None, model.size.num_features, *extents])

    function = tf.function(call, autograph=False)
    for training in (False, True):
        function.get_concrete_function(spec, training=training)
    return function


def _drop_paths(model: VideoSwin, x: tf.Tensor) -> tf.Tensor:
    """Computes features as in training, with multipliers drawn afresh."""
    batch_size = tf.shape(x)[0]
    seed = tf.random.uniform([], maxval=tf.int32.max, dtype=tf.int32)
    draws = model.make_draws(seed, 0, tf.range(batch_size), batch_size)
    return model.backbone(x, training=True, drop_path=draws.drop_path)


def _trace(function: Callable[[tf.Tensor], Any], spec: tf.TensorSpec) -> Any:
    """Traces a function of one tensor, once for all that call it: callers of a `tf.function` trace it anew."""
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


def _feature_extents(network: ModelSize, num_frames: int, size: int) -> tuple[int, int, int]:
    """Gives T', H' and W' of the features: patches, rows and columns halved before each stage but the first."""
    t, h, w = network.patch_size
    halved = 2 ** (len(network.depths) - 1)
    return -(-num_frames // t), -(-size // (h * halved)), -(-size // (w * halved))


def _check_new_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name another one, or delete it first")


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to write into; it takes the name of `folder` when the block ends without an error.

    Args:
        folder: the destination; absent or empty.

    Yields:
        A path beside it, which is gone afterwards either way.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        yield unfinished
        for path in unfinished.rglob("*"):
            if path.is_file():
                with path.open("rb") as written:
                    os.fsync(written.fileno())
        if folder.exists():
            folder.rmdir()
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
