"""Choose the clips that a report shows, and make small animations of them."""

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

from vswin.console import printable
from vswin.data.decode import VIDEO_FILES, VideoStore
from vswin.data.frames import FrameLoader
from vswin.data.packed import is_packed, open_packed
from vswin.errors import DecodeError, InputError
from vswin.runs.files import Predictions

_HEIGHT, _WIDEST = 112, 200  # pixels
_NUM_FRAMES = 14
_MILLISECONDS = 130  # per frame
_SECONDS_FOR_ONE, _SECONDS_FOR_ALL = 5.0, 20.0


class Clip(NamedTuple):
    """A video as a report shows it.

    Attributes:
        film: An animated WebP in base64; empty if there is none.
        still: One frame as WebP in base64; empty if there is none.
        size: Width and height in pixels.
        problem: Why there is no picture; otherwise empty.
    """

    path: str
    label: str
    predicted: str
    probability: float
    film: str = ""
    still: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = ""


def choose_clips(predictions: Predictions, count: int) -> tuple[list[Clip], list[Clip]]:
    """Chooses up to `count` right and up to `count` wrong predictions with the highest probabilities.

    Among the right predictions, each class comes once before any class comes twice.
    """
    order = np.argsort(-predictions.probabilities, kind="stable").tolist()
    right = [index for index in order if predictions.is_right[index]]
    wrong = [index for index in order if not predictions.is_right[index] and predictions.predicted[index]]
    firsts: dict[str, int] = {}
    for index in right:
        firsts.setdefault(predictions.labels[index], index)
    right = list(dict.fromkeys([*firsts.values(), *right]))
    columns = (predictions.paths, predictions.labels, predictions.predicted, predictions.probabilities.tolist())
    rows = list(zip(*columns, strict=True))
    return [Clip(*rows[index]) for index in right[:count]], [Clip(*rows[index]) for index in wrong[:count]]


def open_videos(test_set: Mapping[str, Any]) -> FrameLoader:
    """Opens the videos of an evaluation, given `protocol.dataset` of its `metrics.json`; reads packed data sets too."""
    root = test_set.get("root")
    store: VideoStore = VIDEO_FILES
    # If the packed data set cannot be read, each of its videos counts as missing.
    with suppress(InputError, OSError, ValueError):
        if isinstance(root, str) and is_packed(root):
            store = open_packed(root)
    return FrameLoader(timeout_sec=_SECONDS_FOR_ONE, store=store)


def draw_clips(clips: Sequence[Clip], frames: FrameLoader) -> list[Clip]:
    """Adds pictures to clips, or the reason why there is none; starts no clip after 20 seconds."""
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
    def spread(num_video_frames: int) -> np.ndarray:
        return np.linspace(0, num_video_frames - 1, min(_NUM_FRAMES, num_video_frames)).round().astype(np.int64)

    images = []
    for frame in frames.load(clip.path, _HEIGHT, spread):
        height, width = frame.shape[:2]
        scale = min(_HEIGHT / height, _WIDEST / width)
        size = max(1, round(scale * width)), max(1, round(scale * height))
        images.append(Image.fromarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)))
    film, still = io.BytesIO(), io.BytesIO()
    images[0].save(
        film, "WEBP", save_all=True, append_images=images[1:], duration=_MILLISECONDS, loop=0, quality=60, method=2
    )
    images[len(images) // 2].save(still, "WEBP", quality=60, method=2)
    film_text, still_text = (base64.b64encode(file.getvalue()).decode() for file in (film, still))
    return clip._replace(film=film_text, still=still_text, size=images[0].size)
