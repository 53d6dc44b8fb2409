"""Weights and models for other programs: `vswin convert` and `vswin export`.

`convert` writes only the weights; an exported model runs without vswin. A SavedModel takes clips of any shape and has
the interface of the TF-Hub collection; a TFLite (LiteRT) or ONNX file holds one function from uint8 clips of one length
and size to probabilities.
"""

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from vswin import __version__
from vswin.atomic import replacing, sync_file
from vswin.config.schema import MULTI_LABEL, SINGLE_LABEL
from vswin.console import printable
from vswin.errors import InputError, nearest
from vswin.inference.model import find_protocol
from vswin.models.video_swin import MEAN, STD, VideoSwin
from vswin.models.zoo import SIZES, stage_grids
from vswin.runtime import logger
from vswin.weights.build import build_from
from vswin.weights.checkpoint import open_weights
from vswin.weights.dialects import IMAGE_2D
from vswin.weights.files import save_checkpoint
from vswin.weights.names import HEAD_PREFIX, named_weights

# The first ONNX operator set with all operators of the model, so that older runtimes read the file too.
ONNX_OPSET = 18

# Any number of clips of any length and size, [B, T, H, W, 3]: normalised, and as uint8.
NORMALIZED = tf.TensorSpec([None, None, None, None, 3], tf.float32, name="x")
CLIPS = tf.TensorSpec([None, None, None, None, 3], tf.uint8, name="clips")


def convert(weights: str, output: Path, source: str | None = None) -> None:
    """Writes weights in another format, which the ending of the output selects.

    `weights` are a checkpoint, a SavedModel, a run folder or a published name, of which `source` selects a copy. An
    output with the ending `.safetensors` gets official names, `.h5` a checkpoint of ours; one without an ending becomes
    the folder of a SavedModel.

    Raises:
        InputError: if the weights do not exist or cannot be written in that format, or the output exists.
    """
    if output.suffix not in (".safetensors", ".h5", ""):
        raise InputError(
            f"{output}: the ending says the format: .safetensors, .h5 (a vswin checkpoint), or none for a SavedModel "
            "folder"
        )
    _check_new(output)
    checkpoint = open_weights(weights, source)
    if output.suffix == "":
        run_export(weights, output, source=source)
    else:
        network, metadata = checkpoint.network, {"init_from": os.fspath(weights), **checkpoint.metadata}
        if network.size_name is not None:
            size = dataclasses.asdict(SIZES[network.size_name])
            metadata = {"model": network.size_name, "size": size, **metadata}
        if network.num_classes is not None:
            metadata["num_classes"] = network.num_classes
        if checkpoint.dialect == IMAGE_2D:
            metadata.pop("size", None)
        save_checkpoint(output, checkpoint.tensors, metadata)
    logger.info(f"wrote {output}: {len(checkpoint.tensors)} weights of {checkpoint.path} ({checkpoint.dialect})")


@dataclass(frozen=True)
class Metadata:
    """What an exported model says of itself beside its network.

    Args:
        class_names: classes in the order of the outputs, if known.
        num_frames: frames of a clip, where the format fixes its shape.
        crop: rows and columns of a clip, likewise.
        source_weights: where the weights came from, if known.
        clip: the clips that the model is tested on, as in `ClipConfig`, if known.
        task: "single_label", whose probabilities add up to 1, or "multi_label", where each class has its own.
        thresholds: in the second case the probability from which a class counts as predicted, K numbers.
    """

    class_names: Sequence[str] | None = None
    num_frames: int = 32
    crop: int = 224
    source_weights: str | None = None
    clip: Mapping[str, Any] | None = None
    task: str = SINGLE_LABEL
    thresholds: Sequence[float] | None = None

    def activate(self, logits: tf.Tensor) -> tf.Tensor:
        """Turns logits, float32 [B, K], into probabilities."""
        return tf.sigmoid(logits) if self.task == MULTI_LABEL else tf.nn.softmax(logits)

    def describe(self, model: VideoSwin) -> dict[str, Any]:
        """Describes an exported model for its users and their programs, as JSON can hold it.

        The key `size` is the network as in checkpoints; channels-first clips must be normalised with `mean` and `std`,
        per channel R, G, B on the scale 0..255.

        Raises:
            InputError: if the numbers of class names and classes differ, or no clip can have that shape.
        """
        if self.num_frames < 1 or self.crop < 1:
            raise InputError(f"num_frames={self.num_frames}, size={self.crop}: a clip has at least 1 frame of 1 pixel")
        if self.class_names is not None and len(self.class_names) != model.num_classes:
            raise InputError(
                f"{len(self.class_names)} class names for a model of {model.num_classes} classes: "
                "give the list it was trained with, or none"
            )
        return {
            "vswin_version": __version__,
            "model": next((name for name, known in SIZES.items() if known == model.size), None),
            "size": dataclasses.asdict(model.size),
            "num_classes": model.num_classes,
            **dataclasses.asdict(self),
            "mean": MEAN,
            "std": STD,
        }


def run_export(
    weights: str,
    output: Path,
    format: str | None = None,
    model: str | None = None,
    num_frames: int | None = None,
    crop: int | None = None,
    source: str | None = None,
) -> None:
    """Exports weights (a run folder, a checkpoint or a published name) and logs what was written.

    `format` is savedmodel, tflite or onnx; None takes it from the ending of the output, a SavedModel if it is neither.
    `model` is a key of `vswin.models.zoo.SIZES`, for weights that do not say what network they belong to. Where the
    format fixes the shape of clips, `num_frames` and `crop` replace those with which the model was trained or tested.
    `source` selects a copy of a published name.

    Raises:
        InputError: if the weights or the format do not exist, the weights have no head, the output exists, or a package
            is missing.
    """
    # Errors that stop the export come before weights are downloaded and the model is built.
    exports = {"savedmodel": export_saved_model, "tflite": export_tflite, "onnx": export_onnx}
    format = format or {".tflite": "tflite", ".onnx": "onnx"}.get(output.suffix, "savedmodel")
    if format not in exports:
        raise InputError(f"no export format is called {format!r}: {nearest(format, list(exports))}")
    _check_new(output, may_be_empty_folder=format == "savedmodel")
    if format == "onnx":
        _import_tf2onnx()

    built, class_names = build_from(weights, model, source)
    if class_names is None:
        logger.info(f"{weights} does not name its classes; the export will not either")
    protocol = find_protocol(weights)
    clip = protocol.config.clip
    num_frames, crop = clip.num_frames if num_frames is None else num_frames, clip.crop if crop is None else crop
    origin = protocol.origin if protocol.is_known else "for want of a protocol in the weights, that of Kinetics"
    logger.info(f"its clips have {num_frames} frames of {crop} x {crop} pixels ({origin}; --frames and --size win)")
    logger.info(f"exporting to {output} ({format}); this takes a minute or two")
    known_clip = dataclasses.asdict(clip) if protocol.is_known else None
    about = class_names, num_frames, crop, weights, known_clip, protocol.config.dataset.task, protocol.thresholds
    exports[format](built, output, Metadata(*about))
    files = [path for path in [output, *output.rglob("*")] if path.is_file()]
    logger.info(f"wrote {output}, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


def export_saved_model(model: VideoSwin, folder: Path, metadata: Metadata = Metadata()) -> None:
    """Writes a SavedModel in float32 with the interface of the TF-Hub collection, and signatures for uint8 clips.

    The object that `tf.saved_model.load` returns is callable, `loaded(x, training=False)`: it maps normalised RGB,
    float32 [B, 3, num_frames, crop, crop], to features, float32 [B, 8C, T', H', W'], any B. With `training=True` it
    drops paths as in training. It holds `variables` and `trainable_variables` of the backbone, so that
    `hub.KerasLayer(folder, trainable=True)` fine-tunes it, and all `weights` by official name (in the layout of
    TensorFlow). Signatures, each with a dict of one entry as its result:

    - `serving_default`: `input_1` to `output_1`, as when called;
    - `features`: `clips`, uint8 [B, T, H, W, 3] RGB of any extents, to `features`, float32 [B, T', H', W', 8C];
    - `probabilities`: `clips`, the same, to `probabilities`, float32 [B, K].

    Assets: `vswin.json` describes the model; `classes.txt` has one class name per line, if they are known; line breaks
    in names are escaped.

    Raises:
        InputError: if the folder exists and is not empty, or the metadata do not fit the model.
    Source: hub_utilities/tfhub.dev/assets/docs of shoaib6174/GSOC-22-Video-Swin-Transformers (shapes);
        tensorflow_hub/keras_layer.py (what a layer reads from the loaded object).
    """
    _check_new(folder, may_be_empty_folder=True)
    assets = {"vswin.json": json.dumps(metadata.describe(model), indent=2)}
    if metadata.class_names is not None:
        assets["classes.txt"] = "\n".join(map(printable, metadata.class_names))
    model = float32_copy(model)
    weights = named_weights(model)
    backbone = [variable for name, variable in weights.items() if not name.startswith(HEAD_PREFIX)]
    infer = _trace(lambda x: model.backbone(x), NORMALIZED)
    infer_in_training = _trace(lambda x: _drop_paths(model, x), NORMALIZED)
    extents = stage_grids(model.size, (metadata.num_frames, metadata.crop, metadata.crop))[-1].grid

    def call(x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = tf.transpose(x, [0, 2, 3, 4, 1])  # [B, T, H, W, 3]
        features = infer_in_training(x) if training else infer(x)
        features = tf.transpose(features, [0, 4, 1, 2, 3])  # [B, 8C, T', H', W']
        return tf.ensure_shape(features, [None, model.size.num_features, *extents])

    called = tf.function(call, autograph=False)
    channels_first = tf.TensorSpec([None, 3, metadata.num_frames, metadata.crop, metadata.crop], name="input_1")
    for training in (False, True):
        called.get_concrete_function(channels_first, training=training)
    # The Keras model itself is left out: it would add its Python classes, and a traced function per layer.
    exported = tf.train.Checkpoint(weights=weights)
    exported.variables = backbone
    exported.trainable_variables = list(backbone)
    exported.regularization_losses = []
    exported.__call__ = called
    signatures = {
        "serving_default": _trace(lambda input_1: {"output_1": called(input_1)}, channels_first),
        "features": _trace(lambda clips: {"features": infer(model.normalize(clips))}, CLIPS),
        "probabilities": _trace(
            lambda clips: {"probabilities": metadata.activate(model.head(infer(model.normalize(clips))))}, CLIPS
        ),
    }
    # The new folder takes its place whole, or not at all.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as scratch:
        for name, text in assets.items():
            asset = Path(scratch) / name
            asset.write_text(text + "\n", encoding="utf-8")
            setattr(exported, asset.stem, tf.saved_model.Asset(str(asset)))
        unfinished = Path(scratch) / "model"
        tf.saved_model.save(exported, str(unfinished), signatures)
        for path in unfinished.rglob("*"):
            if path.is_file():
                sync_file(path)
        if folder.exists():
            folder.rmdir()
        os.rename(unfinished, folder)


def export_tflite(model: VideoSwin, path: Path, metadata: Metadata = Metadata()) -> None:
    """Writes a TFLite file of built-in operators only, and beside it `<path>.json`, which describes the model.

    The signature `serving_default` maps `clips`, uint8 [1, num_frames, crop, crop, 3] RGB, to `probabilities`, float32
    [1, K]. Window indices, masks and expanded biases become constants of the file: with 32 frames of 224 pixels,
    `swin_tiny` takes 200 MB, its weights alone 113 MB.

    Raises:
        InputError: if one of the files exists, or the metadata do not fit the model.
    """
    beside = path.with_name(f"{path.name}.json")
    for file in (path, beside):
        _check_new(file)
    description = json.dumps(metadata.describe(model), indent=2)
    copy = float32_copy(model)
    holder = tf.train.Checkpoint(weights=named_weights(copy))
    classify = _make_classifier(copy, metadata).get_concrete_function()
    one_clip = tf.TensorSpec([1, metadata.num_frames, metadata.crop, metadata.crop, 3], tf.uint8, name="clips")
    holder.classify = tf.function(lambda clips: classify(clips), input_signature=[one_clip], autograph=False)
    concrete = holder.classify.get_concrete_function()
    converted = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder).convert()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(beside) as partial:
        partial.write_text(description + "\n", encoding="utf-8")
    with replacing(path) as partial:
        partial.write_bytes(converted)


def export_onnx(model: VideoSwin, path: Path, metadata: Metadata = Metadata()) -> None:
    """Writes an ONNX file, with a description of the model as JSON in its metadata, under the key `vswin`.

    Its input `clips` is uint8 [B, num_frames, crop, crop, 3] RGB, any B; its output `probabilities` is float32 [B, K].

    Raises:
        InputError: if the file exists, the metadata do not fit the model, or tf2onnx is not installed.
    """
    _check_new(path)
    tf2onnx = _import_tf2onnx()
    description = metadata.describe(model)
    classify = _make_classifier(float32_copy(model), metadata)
    proto, _ = tf2onnx.convert.from_function(
        classify,
        classify.input_signature,
        opset=ONNX_OPSET,
        custom_op_handlers={"Erfc": (_convert_erfc, []), "FloorMod": (_convert_floor_mod, [])},
    )
    entry = proto.metadata_props.add()
    entry.key, entry.value = "vswin", json.dumps(description)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(proto.SerializeToString())


def float32_copy(model: VideoSwin) -> VideoSwin:
    """Builds a copy of the model in float32, whatever its training precision, without rematerialisation."""
    copy = VideoSwin.from_config(model.get_config() | {"dtype": "float32", "remat": False})
    sources = named_weights(model)
    for name, variable in named_weights(copy).items():
        variable.assign(tf.cast(sources[name], tf.float32))
    return copy


def _drop_paths(model: VideoSwin, x: tf.Tensor) -> tf.Tensor:
    """Computes features as in training, with new random multipliers."""
    batch_size = tf.shape(x)[0]
    seed = tf.random.uniform([], maxval=tf.int32.max, dtype=tf.int32)
    draws = model.make_draws(seed, 0, tf.range(batch_size), batch_size)
    return model.backbone(x, training=True, drop_path=draws.drop_path)


def _trace(function: Callable[[tf.Tensor], Any], spec: tf.TensorSpec) -> Any:
    """Traces a function of one tensor once for all its callers; each caller of a `tf.function` would trace it anew."""
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


def _make_classifier(model: VideoSwin, metadata: Metadata) -> Any:
    """Makes the function clips -> {"probabilities": [B, K]}, for any B."""
    # For an unknown number of windows, attention makes no loop over chunks, which TFLite refuses.
    spec = tf.TensorSpec([None, metadata.num_frames, metadata.crop, metadata.crop, 3], tf.uint8, name="clips")
    return tf.function(
        lambda clips: {"probabilities": metadata.activate(model(clips))}, input_signature=[spec], autograph=False
    )


def _check_new(path: Path, may_be_empty_folder: bool = False) -> None:
    if may_be_empty_folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists and is not an empty folder; name another one, or delete it first")
    if not may_be_empty_folder and path.exists():
        raise InputError(f"{path} exists; name another file, or delete it first")


def _import_tf2onnx() -> ModuleType:
    try:
        return importlib.import_module("tf2onnx")
    except ModuleNotFoundError as error:
        raise InputError(f"exporting to ONNX needs the package {error.name}: pip install 'vswin[onnx]'") from None


def _convert_erfc(context: Any, node: Any, name: str, args: list) -> None:
    """Writes Erfc(x), which the exact GELU of TensorFlow uses and ONNX lacks, as 1 - Erf(x)."""
    node.type = "Erf"
    erf = node.output[0]
    one = context.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    shape, dtype = context.get_shape(erf), context.get_dtype(erf)
    users = context.find_output_consumers(erf)
    difference = context.make_node("Sub", [one, erf], shapes=[shape], dtypes=[dtype]).output[0]
    context.replace_all_inputs(erf, difference, ops=users)


def _convert_floor_mod(context: Any, node: Any, name: str, args: list) -> None:
    """Writes FloorMod of integers as Mod; tf2onnx's conversion rounds negative quotients towards zero (its #2174)."""
    node.type = "Mod"
