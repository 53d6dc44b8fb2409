"""Draw heat over the frames of clips, as a contact sheet and as the frames of a film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from vswin.data.contact_sheet import Panel, draw_sheet

_SHEET_FRAMES = 8
_SHEET_HEIGHT, _FILM_HEIGHT = 160, 318  # pixels; two frames of a film fill the narrowest sheet
_OPACITY = 0.7  # of heat 1
_BRIGHTEST = 225  # index 0..255 in the colour map, for heat 1
_MARK, _MARK_EDGE = (255, 255, 255), (0, 0, 0)


class HeatedClip(NamedTuple):
    """A clip and its heat.

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


def draw_clips(clips: Sequence[HeatedClip]) -> Image.Image:
    """Draws a contact sheet: up to eight evenly spread frames of each clip, unchanged above and with heat below."""
    panels = []
    for clip in clips:
        chosen = _choose_frames(clip)
        pairs = [_draw_pair(clip, index, _SHEET_HEIGHT) for index in chosen]
        shown = ", ".join(_tell_time(clip, index) for index in chosen)
        unit = "frames" if np.isnan(clip.seconds[0]) else "seconds"
        panels.append(
            Panel(clip.title, [*clip.lines, f"{unit}: {shown}"], [list(row) for row in zip(*pairs, strict=True)])
        )
    return draw_sheet(panels)


def draw_film(clips: Sequence[HeatedClip]) -> Iterator[np.ndarray]:
    """Draws the frames of a film, uint8 [H, W, 3] RGB with even sides: clip after clip, unchanged beside heated.

    The texts of all clips must break into the same number of lines, so that all frames have one size.
    """
    for clip in clips:
        unit = "frame" if np.isnan(clip.seconds[0]) else "second"
        for index in range(len(clip.frames)):
            lines = [*clip.lines, f"{unit} {_tell_time(clip, index)}"]
            pair = _draw_pair(clip, index, _FILM_HEIGHT)
            yield np.asarray(draw_sheet([Panel(clip.title, lines, [list(pair)])]))


def draw_heat(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays heat, float32 [H, W] in [0, 1], over a frame, uint8 [H, W, 3] RGB, which becomes gray.

    More heat shows more colour: from blue through green and yellow to red.
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]  # [H, W, 1]
    # The map ends in a dark red, which would not look like the largest heat on a dark picture.
    colors = cv2.applyColorMap(np.rint(_BRIGHTEST * heat).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]  # [H, W, 3]
    share = _OPACITY * heat[..., None]  # [H, W, 1]
    return np.rint((1 - share) * gray + share * colors).astype(np.uint8)


def _choose_frames(clip: HeatedClip) -> list[int]:
    """Spreads a sheet's frames over the clip, or over the frames with heat, as a token attends only in its window."""
    first, last = 0, len(clip.frames) - 1
    if any(clip.boxes):
        first, last = np.flatnonzero(clip.heat.any(axis=(1, 2)))[[0, -1]].tolist()
    return np.linspace(first, last, min(_SHEET_FRAMES, last - first + 1)).round().astype(int).tolist()


def _draw_pair(clip: HeatedClip, index: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales a frame to a height, unchanged and with heat, and marks the box in both."""
    frame = _scale(clip.frames[index], height)
    heated = draw_heat(frame, np.clip(_scale(clip.heat[index], height), 0, 1))
    box = clip.boxes[index]
    if box is None:
        return frame, heated
    top, left, rows, columns = np.rint(np.array(box) * height / len(clip.frames[index])).astype(int).tolist()
    # OpenCV draws in place.
    marked = [np.ascontiguousarray(image.copy()) for image in (frame, heated)]
    for image in marked:
        # Around the token, so that its own heat shows.
        for reach, color in ((1, _MARK), (2, _MARK_EDGE)):
            cv2.rectangle(
                image, (left - reach, top - reach), (left + columns - 1 + reach, top + rows - 1 + reach), color
            )
    return marked[0], marked[1]


def _scale(image: np.ndarray, height: int) -> np.ndarray:
    rows, columns = image.shape[:2]
    interpolation = cv2.INTER_AREA if height < rows else cv2.INTER_LINEAR
    return cv2.resize(image, (max(1, round(columns * height / rows)), height), interpolation=interpolation)


def _tell_time(clip: HeatedClip, index: int) -> str:
    return str(clip.numbers[index]) if np.isnan(clip.seconds[0]) else f"{clip.seconds[index]:.2f}"
