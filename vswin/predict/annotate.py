"""Write on frames what a model says of them: the best classes now, and a bar of the best class over time.

What it says at each moment comes from clips that overlap, and their average around each frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vswin.config.schema import ClipConfig
from vswin.console import printable
from vswin.data.sampling import segments, uniform_clips
from vswin.data.stores import FrameReader
from vswin.data.transforms import center_crop, resize_short_side

T = TypeVar("T")

# Okabe and Ito's colours, which most people tell apart, without black; classes beyond them share a gray.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OTHER = (150, 150, 150)
# A word with the space before it, or a part of one up to an underscore or the like.
_PIECE = re.compile(r"\s*[^\s_/-]*[_/-]|\s*[^\s_/-]+|\s+")
_WHITE, _FAINT, _BLACK = (255, 255, 255), (200, 200, 200), (0, 0, 0)
_SHADE = 0.32  # of the picture shows through behind the text
_SMALLEST_FONT = 9
_MOST_CLASSES = 3
_SMALL_FRAME = 128  # pixels of its height
_LARGEST_SHARE, _LARGEST_SHARE_OF_SMALL = 0.42, 0.6  # of a frame's height, for all that is written


class Timeline(NamedTuple):
    """The probabilities of clips, float32 [n, K], by the frame in their middle, float64 [n], increasing.

    `reach` is the frames from one clip's first to its last: a clip counts for the frames up to so far from its centre,
    the less the farther.
    """

    centres: np.ndarray
    probabilities: np.ndarray
    reach: float

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Averages the clips around frames, numbers [m]: probabilities, float32 [m, K]; each row sums to 1.

        Frames beyond the reach of all clips have those of the nearest.
        """
        distances = np.abs(np.asarray(frames, np.float64)[:, None] - self.centres)  # [m, n]
        weights = np.maximum(1 - distances / max(self.reach, 1), 0)
        nearest = distances.argmin(axis=1)
        weights[np.arange(len(weights)), nearest] += 1e-9
        weights /= weights.sum(axis=1, keepdims=True)
        return (weights @ self.probabilities).astype(np.float32)


def make_timeline(
    reader: FrameReader,
    clip: ClipConfig,
    classify: Callable[[np.ndarray], np.ndarray],
    on_clips: Callable[[int, int], None],
) -> Timeline:
    """Classifies clips all along a video; decoding works ahead of the model.

    `classify` makes probabilities, float32 [n, K], of clips, uint8 [n, T, crop, crop, 3], which have the centre of each
    frame; `on_clips` is told how many are done, and of how many.

    Raises:
        DecodeError: if the video cannot be decoded to its end.
    """
    placed = place_clips(reader.num_video_frames, clip)
    found: list[np.ndarray] = []
    for clips in _ahead(_read_clips(reader, clip, placed)):
        found.extend(classify(clips))
        on_clips(len(found), len(placed))
    ends = np.stack([placed.min(axis=1), placed.max(axis=1)])  # [2, n]
    return Timeline(ends.mean(axis=0), np.stack(found), float((ends[1] - ends[0]).max()))


def place_clips(num_video_frames: int, clip: ClipConfig) -> np.ndarray:
    """Places clips all along a video, each half over the one before, the last one at the end.

    With "segments", whose one clip covers the video and so would say the same throughout, clips are as if "dense",
    closer together where there is no room for two.

    Returns:
        Frame numbers, int64 [n, T], in [0, num_video_frames). A video shorter than a clip starts again.
    """
    stride = clip.frame_stride
    if clip.sampling == "segments":
        stride = min(stride, max(1, num_video_frames // (2 * clip.num_frames)))
    last = num_video_frames - 1 - (clip.num_frames - 1) * stride
    if last < 0 and clip.sampling == "segments":
        return segments(num_video_frames, clip.num_frames)[None]  # [1, T]
    if last < 0:
        return uniform_clips(num_video_frames, clip.num_frames, stride, 1)
    # All on one grid, so that clips share their frames.
    hop = max(1, clip.num_frames // 2) * stride
    starts = np.unique([*range(0, last + 1, hop), last // stride * stride])
    return starts[:, None] + stride * np.arange(clip.num_frames)  # [n, T]


def _read_clips(reader: FrameReader, clip: ClipConfig, placed: np.ndarray) -> Iterator[np.ndarray]:
    """Reads clips, uint8 [n, T, crop, crop, 3], a step of the model at a time, each frame once."""
    kept: dict[int, np.ndarray] = {}
    for start in range(0, len(placed), clip.views_per_step):
        numbers = placed[start : start + clip.views_per_step]
        missing = np.setdiff1d(numbers, list(kept))
        if len(missing):
            frames = center_crop(reader.read(missing, partial(resize_short_side, size=clip.resize)), clip.crop)
            kept |= dict(zip(missing.tolist(), frames, strict=True))
        yield np.stack([np.stack([kept[number] for number in row]) for row in numbers.tolist()])
        # Later clips start later.
        kept = {number: frame for number, frame in kept.items() if number > numbers[-1].min()}


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Makes each item while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


class Annotator:
    """Draws on the frames of one video; all sizes follow from that of the frame, and stay the same all along.

    Over the lower edge of the picture stand up to three classes with their probabilities, as many as there is room for,
    and the bar: a column of pixels for each moment, in the colour of its best class, and a mark at the present one. In
    a frame too narrow for that the name of the best class has it to itself.
    """

    def __init__(
        self, timeline: Timeline, class_names: Sequence[str], num_frames: int, height: int, width: int
    ) -> None:
        """Prepares what all frames, of so many pixels, share; `class_names` are those of the timeline."""
        self._timeline = timeline
        self._names = [printable(name) for name in class_names]
        self._num_frames = num_frames
        self._width = width
        size = max(_SMALLEST_FONT, round(7 + 0.03 * min(height, width)))
        self._font = ImageFont.truetype(_font_path(), size)
        self._margin = max(2, size // 3)
        self._patch = max(3, round(0.65 * size))
        self._percent_width = self._font.getlength("100 %")
        self._is_narrow = self._room_beside_percent < width / 2
        self._line_height = round((1.15 if self._is_narrow else 1.3) * size)
        self._bar_height = max(4, size // 2)
        fixed = self._bar_height + 2 * self._margin
        share = _LARGEST_SHARE_OF_SMALL if height < _SMALL_FRAME else _LARGEST_SHARE
        most_lines = max(1, int(share * height - fixed) // self._line_height)
        self._num_lines = min(self._count_lines(), most_lines)
        room_for = most_lines - self._num_lines + 1
        self._num_classes = 1 if self._is_narrow else max(1, min(_MOST_CLASSES, len(class_names), room_for))
        self._height = min(height, fixed + (self._num_lines + self._num_classes - 1) * self._line_height)

    def draw(self, frame: np.ndarray, number: int) -> np.ndarray:
        """Draws on a copy of a frame of this number, uint8 [H, W, 3] RGB."""
        probabilities = self._timeline.at(np.array([number]))[0]  # [K]
        best = np.argsort(-probabilities, kind="stable")[: self._num_classes]
        drawn = frame.copy()
        panel = drawn[-self._height :]  # [h, W, 3]
        panel[:] = (panel * _SHADE).astype(np.uint8)
        image = Image.fromarray(panel)
        draw = ImageDraw.Draw(image)
        top = self._margin
        for place, label in enumerate(best.tolist()):
            lines = self._fit(self._names[label], 1 if place else self._num_lines)
            self._write(draw, top, lines, label, float(probabilities[label]), _FAINT if place else _WHITE)
            top += len(lines) * self._line_height
        panel[:] = np.asarray(image)
        panel[-self._bar_height :] = self._bar
        self._mark(panel, number)
        return drawn

    @cached_property
    def _best_labels(self) -> np.ndarray:
        """Gives the best class of each column of the bar, int64 [W]."""
        frames = (np.arange(self._width) + 0.5) * self._num_frames / self._width - 0.5
        return self._timeline.at(frames).argmax(axis=1)

    @cached_property
    def _colors(self) -> dict[int, tuple[int, int, int]]:
        """Gives the classes that are ever the best their colours, those that are for longest first."""
        labels, counts = np.unique(self._best_labels, return_counts=True)
        ordered = labels[np.argsort(-counts, kind="stable")].tolist()
        return dict(zip(ordered, _COLORS, strict=False))

    @cached_property
    def _bar(self) -> np.ndarray:
        """Draws the bar, uint8 [bar_height, W, 3], a dark line above it."""
        row = np.array([self._color(label) for label in self._best_labels.tolist()], np.uint8)  # [W, 3]
        bar = np.repeat(row[None], self._bar_height, axis=0)  # [bar_height, W, 3]
        bar[0] = 0
        return bar

    def _color(self, label: int) -> tuple[int, int, int]:
        return self._colors.get(label, _OTHER)

    def _mark(self, panel: np.ndarray, number: int) -> None:
        """Marks the present in the bar: white between black edges, whole at either end of it."""
        half = max(1, self._bar_height // 8)
        with_edge = half + max(1, half // 2)
        center = int((number + 0.5) * self._width / self._num_frames)
        center = max(min(center, self._width - 1 - with_edge), with_edge)
        for reach, color in ((with_edge, _BLACK), (half, _WHITE)):
            panel[-self._bar_height :, center - reach : center + reach + 1] = color

    def _count_lines(self) -> int:
        """Counts the lines that the longest name among the best ones needs."""
        return max(len(self._break(self._names[label])) for label in np.unique(self._best_labels).tolist())

    def _write(
        self,
        draw: ImageDraw.ImageDraw,
        top: int,
        lines: list[str],
        label: int,
        probability: float,
        color: tuple[int, int, int],
    ) -> None:
        """Writes a class: a patch of its colour, its name, and at the right its probability."""
        middle = top + self._line_height // 2
        own_color = self._color(label)
        if self._is_narrow:
            draw.rectangle((0, top, 1, top + len(lines) * self._line_height - 2), own_color)
        else:
            patch_top = middle - self._patch // 2
            box = (self._margin, patch_top, self._margin + self._patch - 1, patch_top + self._patch - 1)
            draw.rectangle(box, own_color if label in self._colors else None, own_color)
            at = (self._width - self._margin, middle)
            draw.text(at, f"{100 * probability:.0f} %", color, self._font, anchor="rm")
        for place, line in enumerate(lines):
            draw.text((self._text_left, middle + place * self._line_height), line, color, self._font, anchor="lm")

    @property
    def _text_left(self) -> int:
        return 2 + self._margin if self._is_narrow else 2 * self._margin + self._patch

    @property
    def _room_beside_percent(self) -> float:
        return self._width - 4 * self._margin - self._patch - self._percent_width

    @property
    def _room(self) -> float:
        """Gives the pixels that a name has in a line."""
        return self._width - self._text_left if self._is_narrow else self._room_beside_percent

    def _fit(self, name: str, num_lines: int) -> list[str]:
        """Breaks a name into at most so many lines; what there is no room for becomes an ellipsis."""
        lines = self._break(name)
        if len(lines) > num_lines:
            lines[num_lines - 1 :] = [self._shorten("".join(lines[num_lines - 1 :]))]
        return [line.strip() for line in lines]

    def _break(self, name: str) -> list[str]:
        """Breaks a name between words, and a word that is too long by itself between letters; nothing is lost."""
        lines = [""]
        for piece in _PIECE.findall(name):
            if self._fits(lines[-1] + piece):
                lines[-1] += piece
                continue
            lines += [""] if lines[-1] else []
            for char in piece:
                if lines[-1] and not self._fits(lines[-1] + char):
                    lines.append("")
                lines[-1] += char
        return lines

    def _shorten(self, text: str) -> str:
        """Cuts a text so that it fits with an ellipsis."""
        while text and not self._fits(f"{text}…"):
            text = text[:-1]
        return f"{text.rstrip()}…"

    def _fits(self, line: str) -> bool:
        return self._font.getlength(line.strip()) <= self._room


def _font_path() -> str:
    """Finds a font with most alphabets, which matplotlib brings."""
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
