"""Write copies of videos with a model's predictions drawn on them: `vswin predict --save FOLDER`.

Each frame shows the best classes at its moment, averaged over the overlapping clips around it, and a timeline of the
best class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.markup import escape
from rich.text import Text

from vswin.atomic import replacing
from vswin.config.schema import ClipConfig
from vswin.console import make_progress_bar, printable
from vswin.data.decode import USUAL_RATE, FrameReader
from vswin.data.pyav_encoder import encode_video
from vswin.data.samples import split_name
from vswin.data.sampling import segments, uniform_clips
from vswin.data.transforms import center_crop, resize_short_side
from vswin.errors import DecodeError
from vswin.inference.model import LoadedModel, make_classifier
from vswin.runtime import console, logger

# Okabe and Ito's colours, which most people tell apart, without black; all further classes share a gray.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_OTHER = (150, 150, 150)
_WHITE, _FAINT, _BLACK = (255, 255, 255), (200, 200, 200), (0, 0, 0)
_BRIGHTNESS = 0.32  # of the picture behind the text
_MOST_CLASSES = 3
_MOST_HEIGHT = 0.42  # of the frame, for text and timeline
# No frame is wide enough for more letters.
_MOST_LETTERS = 200


def save_annotated(loaded: LoadedModel, films: Mapping[str, Path]) -> int:
    """Writes an annotated copy of each video, `films` by path; returns how many could not be decoded.

    A copy has the size, the frames and the times of its video, but no sound.
    """
    if not films:
        return 0
    num_left_out = 0
    classify = make_classifier(loaded)
    clip = loaded.protocol.config.clip
    if clip.sampling == "segments":
        logger.info(f"what is shown at each moment comes from clips of {clip.num_frames} frames around it")
    with make_progress_bar(console, "") as bar:
        for number, (path, film) in enumerate(films.items(), start=1):
            task = bar.add_task(f"{number} of {len(films)}: {escape(printable(film.name))}", total=None, note="clips")
            show = partial(bar.update, task)
            try:
                # No time limit: the configured one is for a clip, but this reads the whole video twice.
                file, part = split_name(path)
                with loaded.store.open(file, loaded.protocol.config.dataset.decoder, part=part) as reader:
                    timeline = make_timeline(reader, clip, classify, show)
                    _write_film(reader, timeline, loaded.class_names, film, show)
            except DecodeError as error:
                num_left_out += 1
                console.print(Text(f"{printable(str(film))} is left out: {printable(error.reason)}", style="red"))
            else:
                is_constant = len(timeline.centres) == 1
                note = ", which shows the same throughout: the video is no longer than a clip" if is_constant else ""
                console.print(Text(f"saved {printable(str(film))}{note}"))
            bar.remove_task(task)
    return num_left_out


class Timeline(NamedTuple):
    """The probabilities of n clips, float32 [n, K], and the frame index at the centre of each, float64 [n], increasing.

    `reach` is the number of frames from a clip's first frame to its last. A clip counts for frames up to this distance
    from its centre; its weight falls with the distance.
    """

    centres: np.ndarray
    probabilities: np.ndarray
    reach: float

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Averages the clips around frames with indices [m]: probabilities, float32 [m, K].

        A frame beyond the reach of all clips gets the probabilities of the nearest clip.
        """
        distances = np.abs(np.asarray(frames, np.float64)[:, None] - self.centres)  # [m, n]
        weights = np.maximum(1 - distances / max(self.reach, 1), 0)
        nearest = distances.argmin(axis=1)
        weights[np.arange(len(weights)), nearest] += 1e-9
        weights /= weights.sum(axis=1, keepdims=True)
        return (weights @ self.probabilities).astype(np.float32)


def make_timeline(
    reader: FrameReader, clip: ClipConfig, classify: Callable[[np.ndarray], np.ndarray], show: Callable[..., Any]
) -> Timeline:
    """Classifies clips along the whole video; a thread decodes the next clips meanwhile.

    `classify` turns centre-cropped clips, uint8 [n, T, crop, crop, 3], into probabilities, float32 [n, K]. `show`
    receives the number of clips done, `completed`, and their `total`.

    Raises:
        DecodeError: if the video cannot be decoded to its end.
    """
    positions = place_clips(reader.num_video_frames, clip)
    found: list[np.ndarray] = []
    batches = _read_clips(reader, clip, positions)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, batches, None)
        while (clips := waiting.result()) is not None:
            waiting = pool.submit(next, batches, None)
            found.extend(classify(clips))
            show(completed=len(found), total=len(positions))
    first, last = positions.min(axis=1), positions.max(axis=1)  # [n]
    return Timeline((first + last) / 2, np.stack(found), float((last - first).max()))


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


def _read_clips(reader: FrameReader, clip: ClipConfig, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Yields clips, uint8 [n, T, crop, crop, 3], for one model step at a time; reads each frame once."""
    kept: dict[int, np.ndarray] = {}
    for start in range(0, len(positions), clip.views_per_step):
        numbers = positions[start : start + clip.views_per_step]
        missing = np.setdiff1d(numbers, list(kept))
        if len(missing):
            frames = center_crop(reader.read(missing, partial(resize_short_side, size=clip.resize)), clip.crop)
            kept |= dict(zip(missing.tolist(), frames, strict=True))
        yield np.stack([np.stack([kept[number] for number in row]) for row in numbers.tolist()])
        # Later clips start later and no longer need these frames.
        kept = {number: frame for number, frame in kept.items() if number > numbers[-1].min()}


def _write_film(
    reader: FrameReader, timeline: Timeline, class_names: Sequence[str], film: Path, show: Callable[..., Any]
) -> None:
    """Draws and encodes frame by frame, as 4K frames are large."""
    num_frames = reader.num_video_frames
    reader.read(np.array([num_frames - 1]), np.asarray)
    numbers = np.delete(np.arange(num_frames), reader.repeats)
    height, width = reader.frame_size
    annotator = Annotator(timeline, class_names, num_frames, height, width)

    def draw_frames() -> Iterator[np.ndarray]:
        for number in numbers.tolist():
            show(completed=number, total=num_frames, note="frames")
            yield annotator.draw(reader.read(np.array([number]), np.asarray)[0], number)  # [H, W, 3]

    with replacing(film) as partial_film:
        rate, times = reader.frame_rate or USUAL_RATE, reader.read_times()[numbers]
        encode_video(
            str(partial_film), draw_frames(), (width, height), rate, preset="veryfast", num_threads=0, times=times
        )


class Annotator:
    """Draws on the frames of one video; all sizes follow from the frame size and stay the same throughout.

    The lower part of a frame shows up to three classes, a line each, as many as fit, and the timeline below them: each
    column of pixels is a moment in the colour of its best class, and a mark shows the current moment. A narrow frame
    shows no percentages.
    """

    def __init__(
        self, timeline: Timeline, class_names: Sequence[str], num_frames: int, height: int, width: int
    ) -> None:
        """Prepares what all frames of this size in pixels share; `class_names` are the timeline's K classes."""
        self._timeline, self._num_frames = timeline, num_frames
        self._names = [printable(name)[:_MOST_LETTERS] for name in class_names]
        size = max(9, round(7 + 0.03 * min(height, width)))
        # The font that ships with matplotlib covers most alphabets.
        self._font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
        self._is_narrow = width < 12 * size
        self._margin = 2 if self._is_narrow else size // 3
        self._line_height, bar_height = round(1.3 * size), max(4, size // 2)
        num_lines = int(_MOST_HEIGHT * height - bar_height) // self._line_height
        self._num_classes = max(1, min(_MOST_CLASSES, len(class_names), num_lines))
        self._height = min(height, self._num_classes * self._line_height + bar_height + 2)

        # The most frequent classes of the timeline get a colour each.
        moments = (np.arange(width) + 0.5) * num_frames / width - 0.5
        best = timeline.at(moments).argmax(axis=1)  # [W]
        labels, counts = np.unique(best, return_counts=True)
        self._colors = dict(zip(labels[np.argsort(-counts, kind="stable")].tolist(), _COLORS, strict=False))
        row = np.array([self._colors.get(label, _OTHER) for label in best.tolist()], np.uint8)  # [W, 3]
        self._bar = np.repeat(row[None], bar_height, axis=0)  # [bar_height, W, 3]
        self._bar[0] = _BLACK

    def draw(self, frame: np.ndarray, number: int) -> np.ndarray:
        """Draws on a copy of the frame with index `number`, uint8 [H, W, 3] RGB."""
        probabilities = self._timeline.at(np.array([number]))[0]  # [K]
        drawn = frame.copy()
        panel = drawn[-self._height :]  # [h, W, 3]
        panel[:] = (panel * _BRIGHTNESS).astype(np.uint8)
        width, bar_height = panel.shape[1], len(self._bar)

        # A line for each class: a patch of its colour, its name, its probability.
        image = Image.fromarray(panel)
        draw = ImageDraw.Draw(image)
        patch = 3 if self._is_narrow else self._line_height // 2
        left = 2 * self._margin + patch
        for line, label in enumerate(np.argsort(-probabilities, kind="stable")[: self._num_classes].tolist()):
            middle = line * self._line_height + self._line_height // 2 + 1
            color = _FAINT if line else _WHITE
            top = middle - patch // 2
            box = (self._margin, top, self._margin + patch - 1, top + patch - 1)
            draw.rectangle(box, self._colors.get(label), self._colors.get(label, _OTHER))
            room = width - left
            if not self._is_narrow:
                at = (width - self._margin, middle)
                draw.text(at, f"{100 * probabilities[label]:.0f} %", color, self._font, anchor="rm")
                room -= 2 * self._margin + int(self._font.getlength("100 %"))
            draw.text((left, middle), self._shorten(self._names[label], room), color, self._font, anchor="lm")
        panel[:] = np.asarray(image)

        # The timeline, with a mark at this moment, white between black edges, which is never cut off.
        panel[-bar_height:] = self._bar
        half = max(1, bar_height // 8)
        with_edge = half + max(1, half // 2)
        center = int((number + 0.5) * width / self._num_frames)
        center = max(min(center, width - 1 - with_edge), with_edge)
        for reach, color in ((with_edge, _BLACK), (half, _WHITE)):
            panel[-bar_height:, center - reach : center + reach + 1] = color
        return drawn

    def _shorten(self, name: str, room: int) -> str:
        """Cuts a name that is wider than a number of pixels, and ends it in an ellipsis."""
        if self._font.getlength(name) <= room:
            return name
        while name and self._font.getlength(f"{name}…") > room:
            name = name[:-1]
        return f"{name.rstrip()}…"
