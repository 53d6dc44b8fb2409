"""Explain a model's predictions for videos: `vswin explain`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vswin import __version__
from vswin.atomic import check_outputs, replacing
from vswin.console import printable
from vswin.data.contact_sheet import save_sheets
from vswin.data.frames import FrameLoader
from vswin.data.pyav_encoder import USUAL_RATE, encode_video
from vswin.data.views import load_protocol_views, protocol_frames
from vswin.errors import DecodeError, InputError
from vswin.evaluation.views import check_finite
from vswin.explain.attention_map import find_gaze
from vswin.explain.draw import HeatedClip, draw_clips, draw_film
from vswin.explain.grad_cam import find_extents, finish, interpolate, make_maps, normalize, stage_features
from vswin.inference.inputs import find_videos
from vswin.inference.model import LoadedModel, open_model
from vswin.inference.protocol import find_protocol
from vswin.inference.save import name_outputs
from vswin.models.zoo import Triple
from vswin.runtime import logger, start_log

# A person looks at one clip, and small gradients need float32; overrides may change both.
_DEFAULTS = ("clip.num_clips=1", "clip.num_crops=1", "runtime.precision=float32")
_LEGEND = "gray: nothing; from blue by green and yellow to red: the more, up to the most in this clip"
_CROPS = {1: ("centre",), 3: ("left or top", "right or bottom", "centre")}


class Question(NamedTuple):
    """What to explain.

    Attributes:
        label: Name or number of the class for Grad-CAM; None: the predicted class.
        stage: Stage whose features Grad-CAM takes, counted from 1; None: the last.
        block: Stage and block, counted from 1, whose attention is shown; None: Grad-CAM.
        place: Position in the clip, as frame, row and column, of the token that attends; None: the middle.
    """

    label: str | None = None
    stage: int | None = None
    block: tuple[int, int] | None = None
    place: Triple | None = None


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
        views: uint8 [V, T, H, W, 3] RGB.
        heat: float32 [V, T, H, W] in [0, 1].
        map: The heat before it is brought to the clip and divided by its largest value, float32 [V, T', H', W'].
        title: What is shown, in one line.
        method: How it was computed, as part of a line.
        about: Metadata of the answer, written with the maps.
        token: First position and extents of the token that attends, each (frames, rows, columns); None for Grad-CAM.
    """

    views: np.ndarray
    heat: np.ndarray
    map: np.ndarray
    title: str
    method: str
    about: dict[str, Any]
    token: tuple[Triple, Triple] | None = None


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
    if question.block is None and question.place is not None:
        raise InputError("--token says where attention is looked at from; name the block, too, e.g. --attention 4.1")
    inputs = find_videos(arguments)
    films = name_outputs(inputs, outputs.folder, outputs.is_overwriting, "--output")
    check_outputs([file for film in films.values() for file in outputs.files(film)], outputs.is_overwriting)
    loaded = open_model(weights, find_protocol(weights, [*_DEFAULTS, *overrides]), classes)
    label = None if question.label is None else _find_label(question.label, loaded)
    # Refuse a wrong stage before anything is decoded.
    find_extents(loaded.model.size, _choose_stage(loaded, question))
    logger.info(f"{weights}: {loaded.protocol.origin}")
    num_bad = 0
    for path, film in films.items():
        try:
            views, numbers, seconds, rate = _load(loaded, path)
        except DecodeError as error:
            num_bad += 1
            logger.info(f"{printable(path)}: passed over, {printable(error.reason)}")
            continue
        answer = _show_class(loaded, path, views, label, question) if question.block is None else None
        answer = answer or _show_attention(loaded, views, question)
        logger.info(f"{printable(path)}: {printable(answer.title)}; {answer.method}")
        about = {"path": path, "model": weights, "vswin": __version__, **answer.about}
        _write(outputs, film, _heat(loaded, path, answer, numbers, seconds), rate, answer, about)
        logger.info("wrote " + ", ".join(printable(str(file)) for file in outputs.files(film)))
    logger.info(loaded.describe())
    if num_bad:
        logger.info(f"{num_bad} of {len(films)} videos could not be decoded and were passed over")
        raise SystemExit(1)


def _load(loaded: LoadedModel, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Fraction | None]:
    """Gives the views, uint8 [V, T, H, W, 3], the indices and times of their frames, [num_clips, T], and the rate."""
    config = loaded.protocol.config
    decoder, timeout = config.dataset.decoder, config.dataset.clip_timeout_sec
    views = load_protocol_views(path, config.clip, FrameLoader(decoder, timeout, store=loaded.store))
    with loaded.store.open(path, decoder, timeout) as reader:
        numbers = protocol_frames(reader.num_video_frames, config.clip)
        return views, numbers, reader.read_times()[numbers], reader.frame_rate


def _choose_stage(loaded: LoadedModel, question: Question) -> int:
    if question.block is not None:
        return question.block[0]
    return len(loaded.model.size.depths) if question.stage is None else question.stage


def _find_label(text: str, loaded: LoadedModel) -> int:
    names = loaded.class_names
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    near = difflib.get_close_matches(text, names) if loaded.has_names else []
    advice = f"did you mean {' or '.join(near)}?" if near else f"give a name, or a number from 0 to {len(names) - 1}"
    raise InputError(f"--class {text}: the model has no such class; {advice}")


def _show_class(loaded: LoadedModel, path: str, views: np.ndarray, label: int | None, question: Question) -> Answer:
    """Shows what speaks for a class; by default, the class that the average over the views predicts."""
    model = loaded.model
    stage = _choose_stage(loaded, question)
    # One view at a time, so that many views need no more memory.
    features = [stage_features(model, view[None], stage) for view in views]
    logits = tf.concat([finish(model, of_view, stage) for of_view in features], axis=0)  # [V, K]
    probabilities = tf.nn.softmax(logits).numpy().mean(axis=0)  # [K]
    check_finite(probabilities[None], [path])
    chosen = int(probabilities.argmax()) if label is None else label
    maps = np.concatenate([make_maps(model, of_view, [chosen], stage) for of_view in features])  # [V, T', H', W']
    heat = normalize(interpolate(maps, views.shape[1:4], find_extents(model.size, stage)))
    name, probability = loaded.class_names[chosen], float(probabilities[chosen])
    # The probability comes first: a long name is cut at its end.
    title = f"{100 * probability:.1f} % {name}"
    method = f"Grad-CAM of stage {stage}" + ("" if maps.any() else ", where nothing speaks for this class")
    about = {"method": "grad_cam", "stage": stage, "class": name, "label": chosen, "probability": probability}
    return Answer(views, heat, maps, title, method, about)


def _show_attention(loaded: LoadedModel, views: np.ndarray, question: Question) -> Answer:
    """Shows the attention map of a token."""
    stage, block = question.block or (1, 1)
    gazes = [find_gaze(loaded.model, view[None], stage, block, question.place) for view in views]
    maps = np.concatenate([gaze.weights for gaze in gazes])  # [V, T', H', W']
    heat = np.concatenate([gaze.spread(views.shape[1:4]) for gaze in gazes])  # [V, T, H, W]
    num_heads = loaded.model.size.num_heads[stage - 1]
    title = f"attention of stage {stage}, block {block}"
    method = f"average of {num_heads} heads" if num_heads > 1 else "its only head"
    about = {"method": "attention", "stage": stage, "block": block, "token": list(gazes[0].token)}
    return Answer(views, heat, maps, title, method, about, gazes[0].pixels)


def _heat(loaded: LoadedModel, path: str, answer: Answer, numbers: np.ndarray, seconds: np.ndarray) -> list[HeatedClip]:
    """Combines the views of a video with heat and captions."""
    clip = loaded.protocol.config.clip
    tokens = " x ".join(map(str, answer.map.shape[1:]))
    heated = []
    for view, (frames, heat) in enumerate(zip(answer.views, answer.heat, strict=True)):
        lines = [f"{answer.method}; {tokens} tokens (frames x rows x columns)", _LEGEND, printable(Path(path).name)]
        if len(answer.views) > 1:
            crop = _CROPS[clip.num_crops][view // clip.num_clips]
            lines.append(f"clip {view % clip.num_clips + 1} of {clip.num_clips}, {crop}")
        boxes: list[tuple[int, int, int, int] | None] = [None] * len(frames)
        if answer.token is not None:
            (first, top, left), (count, rows, columns) = answer.token
            boxes[first : first + count] = [(top, left, rows, columns)] * len(boxes[first : first + count])
            lines.append(f"white box: the token that looks, in frames {first} to {first + count - 1} of the clip")
        number = view % clip.num_clips
        title = printable(answer.title)
        heated.append(HeatedClip(frames, heat, numbers[number], seconds[number], title, lines, boxes))
    return heated


def _write(
    outputs: Outputs,
    film: Path,
    clips: Sequence[HeatedClip],
    rate: Fraction | None,
    answer: Answer,
    about: dict[str, Any],
) -> None:
    frames = draw_film(clips)
    first = next(frames)
    # The film runs as fast as the video, although it leaves out frames.
    numbers = clips[0].numbers
    step = max(1, round(float(np.median(np.diff(numbers))))) if len(numbers) > 1 else 1
    height, width = first.shape[:2]
    with replacing(film) as unfinished:
        encode_video(
            str(unfinished), chain([first], frames), (width, height), (rate or USUAL_RATE) / step, num_threads=0
        )
    save_sheets([draw_clips(clips)], film.with_suffix(".png"), 1)
    if outputs.has_maps:
        with replacing(film.with_suffix(".npz")) as unfinished, unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                heat=answer.heat,
                map=answer.map,
                frames=np.stack([clip.numbers for clip in clips]),  # [V, T]
                seconds=np.stack([clip.seconds for clip in clips]),  # [V, T]
                about=json.dumps(about),
            )
