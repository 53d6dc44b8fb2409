"""Draw frames of clips with captions: one contact sheet, or a film of sheets."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vswin.atomic import replacing
from vswin.console import printable
from vswin.data.pyav_encoder import encode_video

_BACKGROUND, _TITLE_COLOR, _TEXT_COLOR, _FRAME_COLOR = "#ffffff", "#111111", "#555555", "#d62728"
_MARGIN, _GAP, _FONT_SIZE, _LINE_HEIGHT = 16, 4, 13, 18
_NARROWEST = 640


class Panel(NamedTuple):
    """The drawing of one clip: a title, further lines, and images, uint8 [h, w, 3], in rows of equal length."""

    title: str
    lines: list[str]
    rows: list[list[np.ndarray]]

    @property
    def column_widths(self) -> list[int]:
        """The widest image of each column, in pixels."""
        return [max(image.shape[1] for image in column) for column in zip(*self.rows, strict=True)]


def draw_sheet(panels: Sequence[Panel]) -> Image.Image:
    """Draws one or more panels below each other; the sheet has even sides, as films need them."""
    width = max(_NARROWEST, *(sum(width + _GAP for width in panel.column_widths) - _GAP for panel in panels))
    font, bold = ImageFont.load_default(_FONT_SIZE), ImageFont.load_default(_FONT_SIZE + 2)
    texts = [[part for line in panel.lines for part in _break(printable(line), font, width)] for panel in panels]
    row_heights = [[max(image.shape[0] for image in row) + _GAP for row in panel.rows] for panel in panels]
    heights = [_LINE_HEIGHT * (1 + len(text)) + _GAP + sum(rows) for text, rows in zip(texts, row_heights, strict=True)]
    height = 2 * _MARGIN + sum(heights) + _MARGIN * (len(panels) - 1)
    sheet = Image.new("RGB", (width + 2 * _MARGIN + width % 2, height + height % 2), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for panel, text, rows in zip(panels, texts, row_heights, strict=True):
        draw.text((_MARGIN, top), printable(panel.title), fill=_TITLE_COLOR, font=bold)
        for number, line in enumerate(text, start=1):
            draw.text((_MARGIN, top + number * _LINE_HEIGHT), line, fill=_TEXT_COLOR, font=font)
        top += _LINE_HEIGHT * (1 + len(text)) + _GAP
        for images, row_height in zip(panel.rows, rows, strict=True):
            left = _MARGIN
            for image, column_width in zip(images, panel.column_widths, strict=True):
                sheet.paste(Image.fromarray(image), (left, top))
                left += column_width + _GAP
            top += row_height
        top += _MARGIN
    return sheet


def _break(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Breaks a line between words so that every part fits into a width in pixels."""
    lines = [""]
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def thumbnail(frame: np.ndarray, height: int) -> np.ndarray:
    """Resizes a frame, uint8 [H, W, 3], to a height in pixels, keeping its proportions."""
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    is_smaller = height < frame.shape[0]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_NEAREST)


def outline(frame: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Draws the edges of a box on a copy of a frame, uint8 [H, W, 3]."""
    image = Image.fromarray(frame)
    thickness = max(1, round(min(frame.shape[:2]) / 80))
    box = (left, top, left + width - 1, top + height - 1)
    ImageDraw.Draw(image).rectangle(box, outline=_FRAME_COLOR, width=thickness)
    return np.asarray(image)


def save_sheets(sheets: Sequence[Image.Image], path: Path, frames_per_sec: float) -> None:
    """Writes one sheet as `.png`, or several sheets of one size as `.gif` or `.mp4`; replaces an old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        if path.suffix == ".png":
            sheets[0].save(partial, format="PNG")
        elif path.suffix == ".gif":
            # One palette for all frames, or the colours would flicker.
            palette = sheets[len(sheets) // 2].quantize(255)
            frames = [sheet.quantize(palette=palette, dither=Image.Dither.NONE) for sheet in sheets]
            milliseconds = round(1000 / frames_per_sec)
            options = {"append_images": frames[1:], "duration": milliseconds, "loop": 0}
            frames[0].save(partial, format="GIF", save_all=True, **options)
        else:
            rate = Fraction(frames_per_sec).limit_denominator(1000)
            encode_video(str(partial), map(np.asarray, sheets), sheets[0].size, rate)
