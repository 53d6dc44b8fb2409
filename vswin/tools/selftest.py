"""Check within a minute that an installation trains correctly: `vswin selftest`.

The first steps of a small run by the official recipe have known losses. These depend on data, decoder, augmentation,
model, loss, optimizer and schedule, so an error in any of them shows. Colours and labels change the losses little and
are therefore checked first.
"""

import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from vswin import __version__
from vswin.atomic import replacing
from vswin.config.schema import TrainConfig
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.decode import VideoReader
from vswin.data.frames import FrameLoader
from vswin.data.order import Order, count_steps
from vswin.errors import InputError
from vswin.runs.setup import distribute_training, make_model, set_up
from vswin.runtime import console, describe_devices
from vswin.training.trainer import build_trainer

NUM_STEPS = 50
# RGB, one mostly red and one mostly blue; Motion JPEG changes them by a few levels only.
_COLOURS = [[200, 60, 20], [30, 90, 210]]
_COLOUR_TOLERANCE = 12
_LOSSES = Path(__file__).with_name("selftest.json")


def run_selftest(config: TrainConfig, record: bool = False) -> None:
    """Trains for fifty steps and compares the loss of each step with the stored one.

    `record` stores the losses instead, after an intended change of the training. An `InputError` if a loss differs by
    more than rounding and the order of sums can explain.
    """
    started = time.perf_counter()
    strategy = set_up(config)
    console.print(
        f"vswin {__version__}, TensorFlow {tf.__version__}, Python {platform.python_version()}, "
        f"{describe_devices(strategy)}, {config.runtime.precision}"
    )
    _check_colours()
    losses = _train(config, strategy)
    if record:
        with replacing(_LOSSES) as partial:
            partial.write_text(json.dumps({"losses": [round(loss, 5) for loss in losses]}, indent=1) + "\n")
        console.print(f"stored {len(losses)} losses in {_LOSSES}")
        return
    expected = json.loads(_LOSSES.read_text())["losses"][:NUM_STEPS]
    for step in range(0, NUM_STEPS, 7):
        console.print(f"step {step:2}   loss {losses[step]:.4f}   expected {expected[step]:.4f}")
    _compare(losses, expected, 0.02 if config.runtime.precision == "float32" else 0.15)
    console.print(f"This installation trains as it should ({time.perf_counter() - started:.0f} s).", style="green")


def _train(config: TrainConfig, strategy: tf.distribute.Strategy) -> list[float]:
    """Runs the training steps; returns the loss of each."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = load_catalog(replace(config.dataset, root=f"{folder}/videos"))
        _check_labels(catalog)
        with strategy.scope():
            model, _ = make_model(config, len(catalog.class_names))
            trainer = build_trainer(config, model, count_steps(len(catalog.train), config.batch_size))
        bad, order = BadVideos(), Order(config.seed, config.batch_size, epochs=1)
        batches = distribute_training(strategy, config, catalog, order, bad, FrameLoader())
        # Epochs of one step, so that Keras reports the loss of each step.
        history = trainer.fit(batches, epochs=NUM_STEPS, steps_per_epoch=1, verbose=0)
    if len(bad) > 0:
        raise InputError(f"{len(bad)} of the videos that were just written cannot be decoded: {bad.rows()[0]}")
    return history.history["loss"]


def _check_colours() -> None:
    """Decodes a video of known colours with each decoder: swapped red and blue would hardly change the losses."""
    written = np.zeros((2, 32, 48, 3), np.uint8)  # [T, H, W, 3]
    written[:, :, :24], written[:, :, 24:] = _COLOURS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "colours.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (48, 32))
        for frame in written:
            writer.write(frame[..., ::-1])  # OpenCV takes BGR
        writer.release()
        for decoder in ("opencv", "pyav"):
            with VideoReader(path, decoder) as reader:
                frames = reader.read(np.arange(2))  # [T, H, W, 3]
            seen = frames[0, 16, [8, 40]]  # [2, 3]
            if np.abs(seen.astype(int) - _COLOURS).max() > _COLOUR_TOLERANCE:
                raise InputError(
                    f"the decoder {decoder} gives the colours {seen.tolist()} (RGB), written were {_COLOURS}: "
                    "reinstall opencv-python-headless and av in the versions of constraints.txt"
                )
    console.print("colours   as written, by both decoders")


def _check_labels(catalog: Catalog) -> None:
    """Compares the label of each video with its class folder."""
    for path, label in ((video.path, video.label) for video in (*catalog.train, *catalog.val)):
        class_name = Path(path).parent.name
        if not 0 <= label < len(catalog.class_names) or catalog.class_names[label] != class_name:
            raise InputError(f"{path} has the label {label}, which is not {class_name}: reinstall vswin")
    console.print(f"labels    each of the {len(catalog.class_names)} classes has its own")


def _compare(losses: Sequence[float], expected: Sequence[float], tolerance: float) -> None:
    wrong = np.flatnonzero(~(np.abs(np.subtract(losses, expected)) <= tolerance))  # NaN is wrong, too
    if len(wrong) == 0:
        return
    step = int(wrong[0])
    cause = "the optimizer, its schedule, the order of the data or the precision"
    if step == 0:
        cause = "the data, the decoder, the initial weights or the model"
    raise InputError(
        f"the loss of step {step} is {losses[step]:.4f}, expected is {expected[step]:.4f} (to within {tolerance}), and "
        f"{len(wrong)} of the {len(expected)} steps differ: look at {cause}. `pip check`, and the versions in "
        "constraints.txt, which are the tested ones, are the first things to try"
    )
