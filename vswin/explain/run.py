"""Explain a model's predictions for videos in films and contact sheets: `vswin explain`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from vswin import __version__
from vswin.atomic import check_outputs, replacing
from vswin.console import printable
from vswin.data.contact_sheet import Panel, draw_sheet, save_sheets
from vswin.data.decode import USUAL_RATE
from vswin.data.frames import FrameLoader
from vswin.data.pyav_encoder import encode_video
from vswin.data.samples import split_name
from vswin.data.views import load_protocol_views, protocol_frames
from vswin.errors import DecodeError, InputError
from vswin.evaluation.views import check_finite
from vswin.explain.attention_map import find_attention_map
from vswin.explain.grad_cam import find_extents, finish, interpolate, make_maps, normalize, stage_features
from vswin.inference.inputs import find_videos, name_outputs
from vswin.inference.model import LoadedModel, find_protocol, open_model
from vswin.models.zoo import Triple
from vswin.runtime import logger, start_log

# A person looks at one clip, and small gradients need float32; overrides may change both.
_DEFAULTS = ("clip.num_clips=1", "clip.num_crops=1", "runtime.precision=float32")
_LEGEND = "gray: nothing; from blue by green and yellow to red: the more, up to the most in this clip"
_CROPS = {1: ("centre",), 3: ("left or top", "right or bottom", "centre")}
_SHEET_FRAMES = 8
_SHEET_HEIGHT, _FILM_HEIGHT = 160, 318  # pixels; two frames of a film fill the narrowest sheet
_OPACITY = 0.7  # of heat 1
_BRIGHTEST = 225  # index 0..255 in the colour map, for heat 1
_MARK, _MARK_EDGE = (255, 255, 255), (0, 0, 0)


class Question(NamedTuple):
    """What to explain.

    Attributes:
        label: Name or number of the class for Grad-CAM; None: the predicted class.
        stage: Stage whose features Grad-CAM takes, counted from 1; None: the last.
        block: Stage and block, counted from 1, whose attention is shown; None: Grad-CAM.
        position: Frame, row and column of the clip at which the token that attends lies; None: the middle.
    """

    label: str | None = None
    stage: int | None = None
    block: tuple[int, int] | None = None
    position: Triple | None = None


class Outputs(NamedTuple):
    """The output folder, whether maps are written as arrays too, and whether existing files may be replaced."""

    folder: Path
    has_maps: bool = False
    is_overwriting: bool = False

    def files(self, film: Path) -> list[Path]:
        """Lists the files to write for a video, given its film."""
        return [film.with_suffix(suffix) for suffix in (".mp4", ".png", ".npz")[: 2 + self.has_maps]]


class Answer(NamedTuple):
    """The result for the V views of a video.

    Attributes:
        heat: float32 [V, T, H, W] in [0, 1].
        map: The heat before it is brought to the clip and divided by its largest value, float32 [V, T', H', W'].
        title: What is shown, in one line.
        method: How it was computed, as part of a line.
        metadata: Written with the maps.
        token: First position and extents of the token that attends, each (frames, rows, columns); None for Grad-CAM.
    """

    heat: np.ndarray
    map: np.ndarray
    title: str
    method: str
    metadata: dict[str, Any]
    token: tuple[Triple, Triple] | None = None


class HeatedClip(NamedTuple):
    """A clip and its heat, ready to be drawn.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        heat: float32 [T, H, W] in [0, 1].
        numbers: Indices of the frames in the file, int64 [T].
        seconds: Times of the frames, float64 [T]; NaN where the file has no timestamps.
        title: One line.
        lines: Further text; long lines are broken.
        boxes: Box to mark in each of the T frames, (top, left, height, width) in pixels, or None.
    """

    frames: np.ndarray
    heat: np.ndarray
    numbers: np.ndarray
    seconds: np.ndarray
    title: str
    lines: list[str]
    boxes: Sequence[tuple[int, int, int, int] | None]

    @property
    def unit(self) -> str:
        """Names what `time` gives."""
        return "frame" if np.isnan(self.seconds[0]) else "second"

    def time(self, index: int) -> str:
        """Gives the time of a frame, or its number where the file has no timestamps."""
        return str(self.numbers[index]) if np.isnan(self.seconds[0]) else f"{self.seconds[index]:.2f}"


def run_explain(
    arguments: Sequence[str],
    weights: str,
    outputs: Outputs,
    question: Question | None = None,
    overrides: Sequence[str] = (),
    classes: Path | None = None,
) -> None:
    """Explains a model's predictions for videos, in a film and a contact sheet for each.

    `arguments` are files, folders and patterns, see `find_videos`. `weights` name the model, and `overrides` change the
    views and where the model runs, see `find_protocol`. `classes` is a file with one class name per line.

    Raises:
        InputError: if there are no such videos, model, class, stage or block, or an output cannot be written.
        SystemExit: with code 1, if videos could not be decoded; all others are explained.
    """
    start_log(None)
    question = question or Question()
    if question.block is None and question.position is not None:
        raise InputError("--token says where attention is looked at from; name the block, too, e.g. --attention 4.1")
    inputs = find_videos(arguments)
    films = name_outputs(inputs, outputs.folder, outputs.is_overwriting, "--output")
    check_outputs([file for film in films.values() for file in outputs.files(film)], outputs.is_overwriting)
    loaded = open_model(weights, find_protocol(weights, [*_DEFAULTS, *overrides]), classes)
    # Refuse a wrong class or stage before anything is decoded.
    label = None if question.label is None else _find_label(question.label, loaded)
    stage = len(loaded.model.size.depths) if question.stage is None else question.stage
    stage = stage if question.block is None else question.block[0]
    find_extents(loaded.model.size, stage)
    logger.info(f"{weights}: {loaded.protocol.origin}")

    config = loaded.protocol.config
    decoder, timeout = config.dataset.decoder, config.dataset.clip_timeout_sec
    num_bad = 0
    for path, film in films.items():
        try:
            video, part = split_name(path)
            views = load_protocol_views(video, config.clip, FrameLoader(decoder, timeout, store=loaded.store), part)
            with loaded.store.open(video, decoder, timeout, part) as reader:
                numbers = protocol_frames(reader.num_video_frames, config.clip)  # [num_clips, T]
                seconds, rate = reader.read_times()[numbers], reader.frame_rate or USUAL_RATE
        except DecodeError as error:
            num_bad += 1
            logger.info(f"{printable(path)}: passed over, {printable(error.reason)}")
            continue
        if question.block is None:
            answer = _explain_class(loaded, path, views, label, stage)
        else:
            answer = _explain_attention(loaded, views, question.block, question.position)
        logger.info(f"{printable(path)}: {printable(answer.title)}; {answer.method}")
        clips = _caption(loaded, path, views, answer, numbers, seconds)
        _write_film(film, clips, rate)
        save_sheets([draw_clips(clips)], film.with_suffix(".png"), 1)
        if outputs.has_maps:
            metadata = {"path": path, "model": weights, "vswin": __version__, **answer.metadata}
            with replacing(film.with_suffix(".npz")) as partial, partial.open("wb") as file:
                np.savez_compressed(
                    file,
                    heat=answer.heat,
                    map=answer.map,
                    frames=np.stack([clip.numbers for clip in clips]),  # [V, T]
                    seconds=np.stack([clip.seconds for clip in clips]),  # [V, T]
                    about=json.dumps(metadata),
                )
        logger.info("wrote " + ", ".join(printable(str(file)) for file in outputs.files(film)))
    logger.info(loaded.describe())
    if num_bad:
        logger.info(f"{num_bad} of {len(films)} videos could not be decoded and were passed over")
        raise SystemExit(1)


def _find_label(text: str, loaded: LoadedModel) -> int:
    names = loaded.class_names
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    near = difflib.get_close_matches(text, names) if loaded.has_names else []
    advice = f"did you mean {' or '.join(near)}?" if near else f"give a name, or a number from 0 to {len(names) - 1}"
    raise InputError(f"--class {text}: the model has no such class; {advice}")


def _explain_class(loaded: LoadedModel, path: str, views: np.ndarray, label: int | None, stage: int) -> Answer:
    """Shows what speaks for a class; by default, the class that the average over the views predicts."""
    model = loaded.model
    # One view at a time, so that many views need no more memory.
    features = [stage_features(model, view[None], stage) for view in views]
    logits = tf.concat([finish(model, view_features, stage) for view_features in features], axis=0)  # [V, K]
    probabilities = loaded.activate(logits).numpy().mean(axis=0)  # [K]
    check_finite(probabilities[None], [path])
    chosen = int(probabilities.argmax()) if label is None else label
    maps = np.concatenate([make_maps(model, view_features, [chosen], stage) for view_features in features])
    heat = normalize(interpolate(maps, views.shape[1:4], find_extents(model.size, stage)))  # [V, T, H, W]
    name, probability = loaded.class_names[chosen], float(probabilities[chosen])
    # The probability comes first: a long name is cut at its end.
    title = f"{100 * probability:.1f} % {name}"
    method = f"Grad-CAM of stage {stage}" + ("" if maps.any() else ", where nothing speaks for this class")
    metadata = {"method": "grad_cam", "stage": stage, "class": name, "label": chosen, "probability": probability}
    return Answer(heat, maps, title, method, metadata)


def _explain_attention(
    loaded: LoadedModel, views: np.ndarray, stage_and_block: tuple[int, int], position: Triple | None
) -> Answer:
    """Shows the attention map of a token."""
    stage, block = stage_and_block
    found = [find_attention_map(loaded.model, view[None], stage, block, position) for view in views]
    maps = np.concatenate([attention.weights for attention in found])  # [V, T', H', W']
    heat = np.concatenate([attention.spread(views.shape[1:4]) for attention in found])  # [V, T, H, W]
    num_heads = loaded.model.size.num_heads[stage - 1]
    title = f"attention of stage {stage}, block {block}"
    method = f"average of {num_heads} heads" if num_heads > 1 else "its only head"
    token, extents = found[0].token, found[0].extents
    metadata = {"method": "attention", "stage": stage, "block": block, "token": list(token)}
    frame, row, column = (index * extent for index, extent in zip(token, extents, strict=True))
    return Answer(heat, maps, title, method, metadata, ((frame, row, column), extents))


def _caption(
    loaded: LoadedModel, path: str, views: np.ndarray, answer: Answer, numbers: np.ndarray, seconds: np.ndarray
) -> list[HeatedClip]:
    """Combines the views of a video, uint8 [V, T, H, W, 3], with heat and captions."""
    clip = loaded.protocol.config.clip
    tokens = " x ".join(map(str, answer.map.shape[1:]))
    heated = []
    for view, (frames, heat) in enumerate(zip(views, answer.heat, strict=True)):
        number = view % clip.num_clips
        lines = [f"{answer.method}; {tokens} tokens (frames x rows x columns)", _LEGEND, printable(Path(path).name)]
        if len(views) > 1:
            crop = _CROPS[clip.num_crops][view // clip.num_clips]
            lines.append(f"clip {number + 1} of {clip.num_clips}, {crop}")
        boxes: list[tuple[int, int, int, int] | None] = [None] * len(frames)
        if answer.token is not None:
            (first, top, left), (count, rows, columns) = answer.token
            boxes[first : first + count] = [(top, left, rows, columns)] * len(boxes[first : first + count])
            lines.append(f"white box: the token that attends, in frames {first} to {first + count - 1} of the clip")
        title = printable(answer.title)
        heated.append(HeatedClip(frames, heat, numbers[number], seconds[number], title, lines, boxes))
    return heated


def _write_film(film: Path, clips: Sequence[HeatedClip], rate: Fraction) -> None:
    """Writes the clips as a film that runs as fast as the video, although it leaves out frames."""
    numbers = clips[0].numbers
    step = max(1, round(float(np.median(np.diff(numbers))))) if len(numbers) > 1 else 1
    frames = draw_film(clips)
    first = next(frames)
    height, width = first.shape[:2]
    with replacing(film) as partial:
        encode_video(str(partial), chain([first], frames), (width, height), rate / step, num_threads=0)


def draw_film(clips: Sequence[HeatedClip]) -> Iterator[np.ndarray]:
    """Draws the frames of a film, uint8 [H, W, 3] RGB with even sides: clip after clip, unchanged beside heated.

    The texts of all clips must break into the same number of lines, so that all frames have one size.
    """
    for clip in clips:
        for index in range(len(clip.frames)):
            lines = [*clip.lines, f"{clip.unit} {clip.time(index)}"]
            yield np.asarray(draw_sheet([Panel(clip.title, lines, [_draw_pair(clip, index, _FILM_HEIGHT)])]))


def draw_clips(clips: Sequence[HeatedClip]) -> Image.Image:
    """Draws a contact sheet: up to eight evenly spread frames of each clip, unchanged above and with heat below."""
    panels = []
    for clip in clips:
        first, last = 0, len(clip.frames) - 1
        if any(clip.boxes):
            # A token attends only in its window, so the sheet shows the frames with heat.
            first, last = np.flatnonzero(clip.heat.any(axis=(1, 2)))[[0, -1]].tolist()
        chosen = np.linspace(first, last, min(_SHEET_FRAMES, last - first + 1)).round().astype(int).tolist()
        times = ", ".join(map(clip.time, chosen))
        pairs = [_draw_pair(clip, index, _SHEET_HEIGHT) for index in chosen]
        rows = [list(row) for row in zip(*pairs, strict=True)]
        panels.append(Panel(clip.title, [*clip.lines, f"{clip.unit}s: {times}"], rows))
    return draw_sheet(panels)


def _draw_pair(clip: HeatedClip, index: int, height: int) -> list[np.ndarray]:
    """Scales a frame to a height, unchanged and with heat, and marks the box in both."""
    frame = _scale(clip.frames[index], height)
    # OpenCV draws in place.
    pair = [frame.copy(), draw_heat(frame, np.clip(_scale(clip.heat[index], height), 0, 1))]
    box = clip.boxes[index]
    if box is not None:
        top, left, rows, columns = np.rint(np.array(box) * height / len(clip.frames[index])).astype(int).tolist()
        # Around the token, so that its own heat shows.
        for reach, color in ((1, _MARK), (2, _MARK_EDGE)):
            corners = (left - reach, top - reach), (left + columns - 1 + reach, top + rows - 1 + reach)
            for image in pair:
                cv2.rectangle(image, *corners, color)
    return pair


def draw_heat(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays heat, float32 [H, W] in [0, 1], over a frame, uint8 [H, W, 3] RGB, which becomes gray.

    More heat shows more colour: from blue through green and yellow to red.
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]  # [H, W, 1]
    # The map ends in a dark red, which would not look like the largest heat on a dark picture.
    colors = cv2.applyColorMap(np.rint(_BRIGHTEST * heat).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]  # [H, W, 3]
    opacity = _OPACITY * heat[..., None]  # [H, W, 1]
    return np.rint((1 - opacity) * gray + opacity * colors).astype(np.uint8)


def _scale(image: np.ndarray, height: int) -> np.ndarray:
    rows, columns = image.shape[:2]
    interpolation = cv2.INTER_AREA if height < rows else cv2.INTER_LINEAR
    return cv2.resize(image, (max(1, round(columns * height / rows)), height), interpolation=interpolation)
