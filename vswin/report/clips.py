"""Choose the clips that a report shows, and make small moving pictures of them."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from vswin.data.decode_error import DecodeError
from vswin.data.frames import FrameLoader
from vswin.data.packed import is_packed, open_packed
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.errors import InputError
from vswin.runs.files import Predictions
from vswin.wording import printable

_HEIGHT, _WIDEST = 112, 200  # pixels
_NUM_FRAMES = 14
_MILLISECONDS = 130  # that a frame is shown
_SECONDS_FOR_ONE, _SECONDS_FOR_ALL = 5.0, 20.0


class Clip(NamedTuple):
    """Hold a video as a report shows it.

    Attributes:
        path: Its name.
        label: What is true.
        said: What was said.
        probability: How sure the model was, 0..1.
        film: An animated WebP, in base64; empty if there is none.
        still: A frame of it, the same.
        size: Width and height in pixels.
        problem: Why there is no picture; else empty.
    """

    path: str
    label: str
    said: str
    probability: float
    film: str = ""
    still: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = ""


def choose_worst(predictions: Predictions, count: int) -> list[Clip]:
    """Takes the videos that were wrong with the highest probability."""
    wrong = [i for i in _by_probability(predictions) if not predictions.is_right[i]]
    return [_make_clip(predictions, i) for i in wrong[:count]]


def choose_best(predictions: Predictions, count: int) -> list[Clip]:
    """Takes the videos that were right with the highest probability, one of each class before a second one."""
    right = [i for i in _by_probability(predictions) if predictions.is_right[i]]
    firsts: dict[str, int] = {}
    for i in right:
        firsts.setdefault(predictions.labels[i], i)
    first = set(firsts.values())
    chosen = [*firsts.values(), *(i for i in right if i not in first)]
    return [_make_clip(predictions, i) for i in chosen[:count]]


def open_videos(test_set: Mapping[str, Any]) -> FrameLoader:
    """Opens the videos of an evaluation.

    Args:
        test_set: what the evaluation says of its data set; of a packed one the records are opened, if they are there.
    """
    root = test_set.get("root")
    store: VideoStore = VIDEO_FILES
    # If it cannot be read, each of its videos is not there.
    with suppress(InputError, OSError, ValueError):
        if isinstance(root, str) and is_packed(root):
            store = open_packed(root)
    return FrameLoader(timeout_sec=_SECONDS_FOR_ONE, store=store)


def draw_clips(clips: Sequence[Clip], frames: FrameLoader) -> list[Clip]:
    """Gives clips their pictures, or says why there is none; none is begun after 20 seconds."""
    end = time.monotonic() + _SECONDS_FOR_ALL
    drawn = []
    for clip in clips:
        if time.monotonic() > end:
            drawn.append(clip._replace(problem="decoding took too long"))
            continue
        try:
            drawn.append(_draw(clip, frames))
        except DecodeError as error:
            is_gone = error.cause == "missing"
            reason = "the file is not there any more, or not seen from this folder" if is_gone else error.reason
            drawn.append(clip._replace(problem=printable(reason)))
        # A store whose files have changed, or a picture that Pillow cannot write.
        except (InputError, OSError, ValueError) as error:
            drawn.append(clip._replace(problem=printable(str(error))))
    return drawn


def _draw(clip: Clip, frames: FrameLoader) -> Clip:
    images = [Image.fromarray(_shrink(frame)) for frame in frames.load(clip.path, _HEIGHT, _spread)]
    film, still = io.BytesIO(), io.BytesIO()
    images[0].save(
        film, "WEBP", save_all=True, append_images=images[1:], duration=_MILLISECONDS, loop=0, quality=60, method=2
    )
    images[len(images) // 2].save(still, "WEBP", quality=60, method=2)
    return clip._replace(film=_base64(film), still=_base64(still), size=images[0].size)


def _spread(num_video_frames: int) -> np.ndarray:
    return np.linspace(0, num_video_frames - 1, min(_NUM_FRAMES, num_video_frames)).round().astype(np.int64)


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Brings a frame, uint8 [H, W, 3], into the size of a thumbnail."""
    height, width = frame.shape[:2]
    scale = min(_HEIGHT / height, _WIDEST / width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _base64(file: io.BytesIO) -> str:
    return base64.b64encode(file.getvalue()).decode()


def _by_probability(predictions: Predictions) -> list[int]:
    """Orders the videos that have a prediction by its probability, the highest first; of equals as in the file."""
    order = np.argsort(-predictions.probabilities, kind="stable").tolist()
    return [i for i in order if predictions.said[i]]


def _make_clip(predictions: Predictions, i: int) -> Clip:
    return Clip(predictions.paths[i], predictions.labels[i], predictions.said[i], float(predictions.probabilities[i]))
