"""Draw a model's predictions on video frames: the best classes now, and a bar of the best class over time.

The prediction at each frame is a weighted average of the overlapping clips around it.
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
from vswin.data.decode import FrameReader
from vswin.data.sampling import segments, uniform_clips
from vswin.data.transforms import center_crop, resize_short_side

T = TypeVar("T")

# Okabe and Ito's colours, which most people tell apart, without black; all further classes share a gray.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OTHER = (150, 150, 150)
# A word with the space before it, or its part up to an underscore, slash or hyphen.
_PIECE = re.compile(r"\s*[^\s_/-]*[_/-]|\s*[^\s_/-]+|\s+")
_WHITE, _FAINT, _BLACK = (255, 255, 255), (200, 200, 200), (0, 0, 0)
_SHADE = 0.32  # share of the picture's brightness behind the text
_SMALLEST_FONT = 9
_MOST_CLASSES = 3
_SMALL_FRAME = 128  # height in pixels
_LARGEST_SHARE, _LARGEST_SHARE_OF_SMALL = 0.42, 0.6  # of a frame's height, for text and bar


class Timeline(NamedTuple):
    """The probabilities of n clips, float32 [n, K], and the frame index at the centre of each, float64 [n], increasing.

    `reach` is the number of frames from a clip's first frame to its last. A clip counts for frames up to this distance
    from its centre; its weight falls with the distance.
    """

    centres: np.ndarray
    probabilities: np.ndarray
    reach: float

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Averages the clips around frames with indices [m]: probabilities, float32 [m, K]; each row sums to 1.

        A frame beyond the reach of all clips gets the probabilities of the nearest clip.
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
    """Classifies clips along the whole video; decoding runs ahead of the model.

    `classify` turns centre-cropped clips, uint8 [n, T, crop, crop, 3], into probabilities, float32 [n, K]. `on_clips`
    receives the number of clips done and their total.

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
    """Places clips along the whole video: each overlaps half of the previous one, and the last ends with the video.

    "segments" sampling takes one clip from the whole video, so the prediction would never change. Its clips are placed
    as for "dense" instead, with a smaller stride where the video is too short for two clips.

    Returns:
        Frame indices, int64 [n, T], in [0, num_video_frames). A video shorter than a clip starts again.
    """
    stride = clip.frame_stride
    if clip.sampling == "segments":
        stride = min(stride, max(1, num_video_frames // (2 * clip.num_frames)))
    last = num_video_frames - 1 - (clip.num_frames - 1) * stride
    if last < 0 and clip.sampling == "segments":
        return segments(num_video_frames, clip.num_frames)[None]  # [1, T]
    if last < 0:
        return uniform_clips(num_video_frames, clip.num_frames, stride, 1)
    # All clips are on one grid, so that they share frames.
    hop = max(1, clip.num_frames // 2) * stride
    starts = np.unique([*range(0, last + 1, hop), last // stride * stride])
    return starts[:, None] + stride * np.arange(clip.num_frames)  # [n, T]


def _read_clips(reader: FrameReader, clip: ClipConfig, placed: np.ndarray) -> Iterator[np.ndarray]:
    """Yields clips, uint8 [n, T, crop, crop, 3], for one model step at a time; reads each frame once."""
    kept: dict[int, np.ndarray] = {}
    for start in range(0, len(placed), clip.views_per_step):
        numbers = placed[start : start + clip.views_per_step]
        missing = np.setdiff1d(numbers, list(kept))
        if len(missing):
            frames = center_crop(reader.read(missing, partial(resize_short_side, size=clip.resize)), clip.crop)
            kept |= dict(zip(missing.tolist(), frames, strict=True))
        yield np.stack([np.stack([kept[number] for number in row]) for row in numbers.tolist()])
        # Later clips start later and no longer need these frames.
        kept = {number: frame for number, frame in kept.items() if number > numbers[-1].min()}


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Prepares each item in a thread while the previous one is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


class Annotator:
    """Draws on the frames of one video; all sizes follow from the frame size and stay the same throughout.

    The lower part of the frame shows up to three classes with their probabilities, as many as fit, and the bar below
    them. Each pixel column of the bar is a moment in the colour of its best class; a mark shows the current moment. A
    frame too narrow for this shows only the name of the best class and the bar.
    """

    def __init__(
        self, timeline: Timeline, class_names: Sequence[str], num_frames: int, height: int, width: int
    ) -> None:
        """Prepares what all frames of this size in pixels share; `class_names` are the timeline's K classes."""
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
        """Draws on a copy of the frame with index `number`, uint8 [H, W, 3] RGB."""
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
        """Assigns colours to the classes of the bar, the most frequent first."""
        labels, counts = np.unique(self._best_labels, return_counts=True)
        ordered = labels[np.argsort(-counts, kind="stable")].tolist()
        return dict(zip(ordered, _COLORS, strict=False))

    @cached_property
    def _bar(self) -> np.ndarray:
        """Draws the bar, uint8 [bar_height, W, 3], with a dark line at the top."""
        row = np.array([self._color(label) for label in self._best_labels.tolist()], np.uint8)  # [W, 3]
        bar = np.repeat(row[None], self._bar_height, axis=0)  # [bar_height, W, 3]
        bar[0] = 0
        return bar

    def _color(self, label: int) -> tuple[int, int, int]:
        return self._colors.get(label, _OTHER)

    def _mark(self, panel: np.ndarray, number: int) -> None:
        """Marks the current frame in the bar, white between black edges, and never cuts the mark off."""
        half = max(1, self._bar_height // 8)
        with_edge = half + max(1, half // 2)
        center = int((number + 0.5) * self._width / self._num_frames)
        center = max(min(center, self._width - 1 - with_edge), with_edge)
        for reach, color in ((with_edge, _BLACK), (half, _WHITE)):
            panel[-self._bar_height :, center - reach : center + reach + 1] = color

    def _count_lines(self) -> int:
        """Counts the lines that the longest name among the best classes needs."""
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
        """Writes a class: a patch of its colour, its name, and its probability at the right."""
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
        """Gives the width in pixels that a name may take."""
        return self._width - self._text_left if self._is_narrow else self._room_beside_percent

    def _fit(self, name: str, num_lines: int) -> list[str]:
        """Breaks a name into at most `num_lines` lines; an ellipsis replaces the rest."""
        lines = self._break(name)
        if len(lines) > num_lines:
            lines[num_lines - 1 :] = [self._shorten("".join(lines[num_lines - 1 :]))]
        return [line.strip() for line in lines]

    def _break(self, name: str) -> list[str]:
        """Breaks a name between words, and a word wider than a line between letters; no character is lost."""
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
        """Cuts a text so that it fits together with an ellipsis."""
        while text and not self._fits(f"{text}…"):
            text = text[:-1]
        return f"{text.rstrip()}…"

    def _fits(self, line: str) -> bool:
        return self._font.getlength(line.strip()) <= self._room


def _font_path() -> str:
    """Finds the font that ships with matplotlib; it covers most alphabets."""
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
