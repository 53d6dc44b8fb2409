"""What every export starts from, and the formats of other runtimes: TFLite (LiteRT) and ONNX.

Both hold one function, uint8 clips to probabilities, for clips of one length and size. Called by `export`.
"""

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from vswin import __version__
from vswin.atomic import replacing
from vswin.errors import InputError
from vswin.models.video_swin import MEAN, STD, VideoSwin
from vswin.weights.names import named_weights
from vswin.zoo import SIZES

# The first ONNX operator set with everything that the model needs, so that older runtimes read the file too.
ONNX_OPSET = 18


def float32_copy(model: VideoSwin) -> VideoSwin:
    """Builds the model anew in float32, whatever precision it was trained in, without rematerialisation."""
    copy = VideoSwin.from_config(model.get_config() | {"dtype": "float32", "remat": False})
    sources = named_weights(model)
    for name, variable in named_weights(copy).items():
        variable.assign(tf.cast(sources[name], tf.float32))
    return copy


def describe_export(
    model: VideoSwin,
    class_names: Sequence[str] | None,
    num_frames: int,
    size: int,
    source_weights: str | None,
    clip: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Says what an exported model is, for the people and programs that get it.

    Args:
        model: the model.
        class_names: its classes in the order of its outputs, if known.
        num_frames: frames of the clips whose shape the export fixes.
        size: their rows, and their columns.
        source_weights: where the weights came from, if known.
        clip: the clips that the model is tested on, as in `ClipConfig`, if known.

    Returns:
        Anything that JSON can hold. Its key `size` is the network as in checkpoints; `mean` and `std` are those
        that channels-first clips must be normalised with, per channel R, G, B on the scale 0..255.

    Raises:
        InputError: if the class names are not as many as the classes, or no clip can have that shape.
    """
    if num_frames < 1 or size < 1:
        raise InputError(f"num_frames={num_frames}, size={size}: a clip has at least 1 frame of 1 pixel")
    if class_names is not None and len(class_names) != model.num_classes:
        raise InputError(
            f"{len(class_names)} class names for a model of {model.num_classes} classes: "
            "give the list it was trained with, or none"
        )
    return {
        "vswin_version": __version__,
        "model": next((name for name, known in SIZES.items() if known == model.size), None),
        "size": dataclasses.asdict(model.size),
        "num_classes": model.num_classes,
        "class_names": None if class_names is None else list(class_names),
        "source_weights": source_weights,
        "num_frames": num_frames,
        "crop": size,
        "clip": None if clip is None else dict(clip),
        "mean": MEAN,
        "std": STD,
    }


def export_tflite(
    model: VideoSwin,
    path: Path,
    class_names: Sequence[str] | None = None,
    num_frames: int = 32,
    size: int = 224,
    source_weights: str | None = None,
    clip: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a TFLite file of built-in operators alone, and beside it `<path>.json`, which says what it is.

    The signature `serving_default` maps `clips`, uint8 [1, num_frames, size, size, 3] RGB, to `probabilities`,
    float32 [1, K]. Window indices, masks and looked-up biases become constants of the file: 32 frames of 224
    pixels make that of `swin_tiny` 200 MB large, its weights are 113 MB.

    Args:
        model: the model, of any precision; float32 is written.
        path: file to write; its folder is made.
        class_names: classes in the order of the outputs, if known.
        num_frames: frames of a clip.
        size: its rows, and its columns.
        source_weights: where the weights came from, if known.
        clip: see `describe_export`.

    Returns:
        `path`.

    Raises:
        InputError: if the file exists, or the arguments do not fit the model.
    """
    check_new_file(path)
    beside = path.with_name(f"{path.name}.json")
    check_new_file(beside)
    description = describe_export(model, class_names, num_frames, size, source_weights, clip)
    copy = float32_copy(model)
    holder = tf.train.Checkpoint(weights=named_weights(copy))
    classify = _make_classifier(copy, num_frames, size).get_concrete_function()
    one_clip = tf.TensorSpec([1, num_frames, size, size, 3], tf.uint8, name="clips")
    holder.classify = tf.function(lambda clips: classify(clips), input_signature=[one_clip], autograph=False)
    concrete = holder.classify.get_concrete_function()
    converted = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder).convert()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(beside) as partial:
        partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    with replacing(path) as partial:
        partial.write_bytes(converted)
    return path


def export_onnx(
    model: VideoSwin,
    path: Path,
    class_names: Sequence[str] | None = None,
    num_frames: int = 32,
    size: int = 224,
    source_weights: str | None = None,
    clip: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an ONNX file, with what it is in its metadata under the key `vswin`, as JSON.

    Its input `clips` is uint8 [B, num_frames, size, size, 3] RGB, any B, its output `probabilities` float32 [B, K].

    Args:
        model: the model, of any precision; float32 is written.
        path: file to write; its folder is made.
        class_names: classes in the order of the outputs, if known.
        num_frames: frames of a clip.
        size: its rows, and its columns.
        source_weights: where the weights came from, if known.
        clip: see `describe_export`.

    Returns:
        `path`.

    Raises:
        InputError: if the file exists, the arguments do not fit the model, or tf2onnx is not installed.
    """
    check_new_file(path)
    tf2onnx = import_tf2onnx()
    description = describe_export(model, class_names, num_frames, size, source_weights, clip)
    classify = _make_classifier(float32_copy(model), num_frames, size)
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
    return path


def check_new_file(path: Path) -> None:
    """Checks that a file is not there yet.

    Raises:
        InputError: if it is.
    """
    if path.exists():
        raise InputError(f"{path} exists; name another file, or delete it first")


def import_tf2onnx() -> ModuleType:
    """Imports the converter to ONNX, an optional package.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return importlib.import_module("tf2onnx")
    except ModuleNotFoundError as error:
        raise InputError(f"exporting to ONNX needs the package {error.name}: pip install 'vswin[onnx]'") from None


def _make_classifier(model: VideoSwin, num_frames: int, size: int) -> Any:
    """Makes the function clips -> {"probabilities": [B, K]}.

    It takes any B: attention makes no loop over chunks of an unknown number of windows, which TFLite refuses.
    """
    spec = tf.TensorSpec([None, num_frames, size, size, 3], tf.uint8, name="clips")
    return tf.function(
        lambda clips: {"probabilities": tf.nn.softmax(model(clips))}, input_signature=[spec], autograph=False
    )


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
    """Writes FloorMod of integers as Mod; what tf2onnx writes rounds negative quotients towards zero (its #2174)."""
    node.type = "Mod"
