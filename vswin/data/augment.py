"""Change the colours and shapes of frames at random: colour jitter and RandAugment, one draw for all frames of a clip.

Every operation maps a frame, uint8 [H, W, 3] RGB, to a frame of the same shape. Parameters are fractions of the frame
size, so they mean the same at any size.

RandAugment's magnitude M runs from 0 to 30. An operation maps M to the parameter value of imgaug 0.4.0, whose
`RandAugment` the official Something-Something v2 recipe uses. timm's values for the same number, on its scale from 0
to 10, are stronger. The pixels equal imgaug's as well: imgaug delegates filters, enhancers and affine maps to Pillow,
and so does this module, except that OpenCV computes the filters several times faster with the same result.

Source: imgaug 0.4.0, augmenters/collections.py, RandAugment; its use in Video-Swin-Transformer
    mmaction/datasets/pipelines/augmentations.py, Imgaug; augmenters/pillike.py, augmenters/arithmetic.py (`cutout_`,
    `invert_`), augmenters/color.py (`quantize_uniform_to_n_bits_`).
Source: torchvision, transforms/transforms.py, ColorJitter, with transforms/_functional_tensor.py; mmaction2 wraps it
    in `TorchVisionWrapper` and has its own ColorJitter with the same ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vswin.data.transforms import Box, crop, resize_frame

LARGEST_MAGNITUDE = 30
# Side crops of magnitude M take up to M pixels in a frame of this size; other sizes scale in proportion.
_CROPPED_FROM = 224
# Gray level of uncovered or cut-out pixels.
FILL = 128
_LEVELS = np.arange(256)
_FLOAT_LEVELS = _LEVELS.astype(np.float32)
# imgaug delegates smaller frames to Pillow, which counts the brightest level differently.
_EQUALIZED_BY_PILLOW_BELOW = 64 * 64 * 3
# Scales floats in 0..1 to bytes as torchvision does: 1 becomes 255, without rounding.
_TO_BYTES = 255.999
_GRAY = np.array([0.2989, 0.587, 0.114], np.float32)

Parameters = dict[str, float]


class Operation(NamedTuple):
    """An operation with drawn parameters.

    Attributes:
        text: Description, e.g. "rotated by +7.0 deg".
        change: Maps a frame, uint8 [H, W, 3] RGB, to the changed frame of the same shape.
    """

    text: str
    change: Callable[[np.ndarray], np.ndarray]


def apply_operations(frames: np.ndarray, operations: Sequence[Operation]) -> np.ndarray:
    """Applies operations to every frame of a clip, uint8 [T, H, W, 3], one after another."""
    if not operations:
        return frames
    changed = np.empty_like(frames)
    for frame, target in zip(frames, changed, strict=True):
        for operation in operations:
            frame = operation.change(frame)
        target[:] = frame
    return changed


def draw_color_jitter(strengths: Sequence[float], rng: np.random.Generator) -> list[Operation]:
    """Draws up to four colour changes, in random order.

    `strengths` lists brightness, contrast, saturation and hue. The first three draw a factor uniformly from
    max(0, 1 - strength) to 1 + strength. Hue draws a shift uniformly from -strength to strength, as a fraction of the
    colour circle, at most 0.5. A change with strength 0 is skipped.
    """
    operations = []
    scales = {"brightness": scale_brightness, "contrast": scale_contrast, "saturation": scale_saturation}
    for (name, scale), strength in zip(scales.items(), strengths[:3], strict=True):
        if strength > 0:
            factor = float(rng.uniform(max(0.0, 1 - strength), 1 + strength))
            operations.append(Operation(f"{name} jittered x {factor:.2f}", partial(scale, factor=factor)))
    if (hue := strengths[3]) > 0:
        shift = rng.uniform(-hue, hue)
        operations.append(Operation(f"hue jittered by {360 * shift:+.0f} deg", partial(shift_hue, shift=shift)))
    return [operations[index] for index in rng.permutation(len(operations))]


def draw_rand_augment(preset: str, num_ops: int, magnitude: int, rng: np.random.Generator) -> list[Operation]:
    """Draws RandAugment's operations for a clip, in the order in which they apply.

    Args:
        preset: "none", "official" or "no_flip". "official" always cuts a little off the sides and mirrors a clip with
            probability 0.5, even if the data set forbids flips. "no_flip" is the same without mirroring, the only
            operation that swaps left and right.
        num_ops: Number of different operations, up to 18.
        magnitude: Their strength, 0 to 30.
        rng: Source of the draws.
    """
    if preset == "none":
        return []
    operations = []
    if preset == "official" and rng.random() < 0.5:
        operations.append(Operation("mirrored by RandAugment", partial(cv2.flip, flipCode=1)))
    top, right, bottom, left = (rng.uniform(0, magnitude, 4) / _CROPPED_FROM).tolist()
    text = "sides cut by " + ", ".join(f"{100 * side:.1f}" for side in (top, right, bottom, left)) + " %"
    operations.append(Operation(text, partial(crop_sides, top=top, right=right, bottom=bottom, left=left)))
    names = list(RAND_AUGMENT)
    chosen = rng.permutation(len(names))[:num_ops]
    return operations + [draw_operation(names[index], magnitude, rng) for index in chosen]


def draw_operation(name: str, magnitude: int, rng: np.random.Generator) -> Operation:
    """Draws the parameters of one RandAugment operation."""
    text, change, draw = RAND_AUGMENT[name]
    if draw is None:
        return Operation(text, change)
    parameters = draw(magnitude, rng)
    return Operation(text.format(**parameters).replace("%", " %"), partial(change, **parameters))


def scale_brightness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales every level by a factor >= 0."""
    return cv2.LUT(frame, _to_levels(np.float32(factor) * _FLOAT_LEVELS))


def scale_contrast(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every level from the frame's mean gray."""
    mean = _gray(frame).mean(dtype=np.float64)
    return cv2.LUT(frame, _to_levels(np.float32(factor) * _FLOAT_LEVELS + np.float32((1 - factor) * mean)))


def scale_saturation(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every pixel from its gray."""
    gray = np.float32(1 - factor) * _gray(frame)[..., None]  # [H, W, 1]
    return _to_levels(np.float32(factor) * frame + gray)


def shift_hue(frame: np.ndarray, shift: float) -> np.ndarray:
    """Shifts the hue in HSV by a fraction of the colour circle."""
    hsv = cv2.cvtColor(frame.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * shift)) % 360
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(_TO_BYTES)).astype(np.uint8)


def _gray(frame: np.ndarray) -> np.ndarray:
    """Returns integer gray levels, float32 [H, W]."""
    red, green, blue = cv2.split(frame)
    gray = _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue
    return np.floor(gray)


def _to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def crop_sides(frame: np.ndarray, top: float, right: float, bottom: float, left: float) -> np.ndarray:
    """Cuts fractions of the height or width off the four sides and resizes to the original size."""
    height, width = frame.shape[:2]
    first_row, first_column = round(height * top), round(width * left)
    rows = height - first_row - round(height * bottom)
    columns = width - first_column - round(width * right)
    box = Box(first_row, first_column, rows, columns)
    return resize_frame(crop(frame[None], box)[0], height, width)


def autocontrast(frame: np.ndarray) -> np.ndarray:
    """Stretches each channel so that its darkest level becomes 0 and its brightest 255."""
    table = np.empty((256, 3), np.uint8)
    for number, channel in enumerate(cv2.split(frame)):
        low, high = int(channel.min()), int(channel.max())
        scale = 255 / (high - low) if high > low else 1.0
        shift = -low * scale if high > low else 0.0
        table[:, number] = np.clip(_LEVELS * scale + shift, 0, 255)
    return cv2.LUT(frame, table[None])


def equalize(frame: np.ndarray) -> np.ndarray:
    """Equalises the histogram of each channel."""
    if frame.size < _EQUALIZED_BY_PILLOW_BELOW:
        return np.asarray(ImageOps.equalize(Image.fromarray(frame)))
    table = np.empty((256, 3), np.uint8)
    for channel in range(3):
        counts = cv2.calcHist([frame], [channel], None, [256], [0, 256])[:, 0].astype(np.int64)  # [256]
        step = counts[:-1].sum() // 255
        if np.count_nonzero(counts) <= 1 or step == 0:
            table[:, channel] = _LEVELS
            continue
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])  # [256]
        table[:, channel] = np.minimum((step // 2 + below) // step, 255)
    return cv2.LUT(frame, table[None])


def solarize(frame: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts all levels >= `threshold`."""
    return cv2.LUT(frame, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def rotate(frame: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates about the centre, clockwise if `degrees` > 0."""
    height, width = frame.shape[:2]
    angle = -np.deg2rad(degrees)
    turn = [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    return _warp(frame, turn, (width * 0.5, height * 0.5))


def shear(frame: np.ndarray, degrees: float, axis: int) -> np.ndarray:
    """Shears as imgaug does: shifts rows (axis 0) or columns (1), more the further down or right they are."""
    matrix = np.eye(3)
    matrix[axis, 1 - axis] = np.tanh(np.deg2rad(degrees))
    return _warp(frame, matrix)


def translate(frame: np.ndarray, fraction: float, axis: int) -> np.ndarray:
    """Shifts right by a fraction of the width (axis 0), or down by a fraction of the height (axis 1)."""
    matrix = np.eye(3)
    matrix[axis, 2] = fraction * frame.shape[1 - axis]
    return _warp(frame, matrix)


def cutout(frame: np.ndarray, x: float, y: float, size: float) -> np.ndarray:
    """Fills a square of side `size` at (x, y) with gray; `x` is a fraction of width, `y` and `size` of height."""
    height, width = frame.shape[:2]
    half = size / 2 * height
    left, right = (min(max(int(x * width + side), 0), width) for side in (-half, half))
    top, bottom = (min(max(int(y * height + side), 0), height) for side in (-half, half))
    frame = frame.copy()
    frame[top:bottom, left:right] = FILL
    return frame


def enhance(frame: np.ndarray, factor: float, kind: Callable[[Image.Image], Any]) -> np.ndarray:
    """Scales each pixel's distance from its own gray (`ImageEnhance.Color`) or from the mean gray (`Contrast`)."""
    return np.asarray(kind(Image.fromarray(frame)).enhance(factor))


def enhance_brightness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales every level."""
    return cv2.LUT(frame, np.clip(np.float32(factor) * _FLOAT_LEVELS, 0, 255).astype(np.uint8))


def enhance_sharpness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every level from the smoothed frame."""
    return np.asarray(Image.blend(Image.fromarray(smooth(frame)), Image.fromarray(frame), factor))


def blur(frame: np.ndarray) -> np.ndarray:
    """Averages over the ring of 16 neighbours at a distance of two pixels."""
    kernel = np.ones((5, 5), np.float32)
    kernel[1:4, 1:4] = 0
    return _filter(frame, kernel)


def smooth(frame: np.ndarray) -> np.ndarray:
    """Averages over 3 x 3 pixels; the middle pixel has weight 5."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    return _filter(frame, kernel)


def _filter(frame: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Averages with integer weights, rounds half up and keeps the edges (Pillow, PIL/ImageFilter.py, BLUR, SMOOTH)."""
    total, edge = int(kernel.sum()), len(kernel) // 2
    averages = ((2 * np.arange(255 * total + 1) + total) // (2 * total)).astype(np.uint8)
    inside = (slice(edge, -edge), slice(edge, -edge))
    filtered = frame.copy()
    filtered[inside] = averages[cv2.filter2D(frame, cv2.CV_16S, kernel)[inside]]
    return filtered


def _warp(frame: np.ndarray, forward: Any, center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Applies an affine map about a centre, nearest neighbour, in single precision like imgaug."""
    x, y = center
    to_center = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], np.float32)
    from_center = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float32)
    matrix = from_center @ (np.array(forward, np.float32) @ to_center)
    backward = tuple(np.linalg.inv(matrix)[:2].ravel().tolist())  # [6]
    height, width = frame.shape[:2]
    image = Image.fromarray(frame).transform((width, height), Image.Transform.AFFINE, backward, fillcolor=(FILL,) * 3)
    return np.asarray(image)


def _signed(name: str, largest: float, offset: float = 0) -> Callable[[int, np.random.Generator], Parameters]:
    """Makes a function that scales `largest`, the value at magnitude 30, draws its sign and adds it to `offset`."""

    def draw(magnitude: int, rng: np.random.Generator) -> Parameters:
        value = largest * magnitude / LARGEST_MAGNITUDE
        return {name: offset + (value if rng.random() < 0.5 else -value)}

    return draw


def _cutout_parameters(magnitude: int, rng: np.random.Generator) -> Parameters:
    x, y = rng.random(2).tolist()
    return {"x": x, "y": y, "size": 20 / 32 * magnitude / LARGEST_MAGNITUDE}


_FACTOR = _signed("factor", 0.9, offset=1)
# RandAugment's eighteen operations in imgaug's order: description, change, and the function that draws its parameters.
RAND_AUGMENT: dict[
    str, tuple[str, Callable[..., np.ndarray], Callable[[int, np.random.Generator], Parameters] | None]
] = {
    "identity": ("identity", lambda frame: frame, None),
    "autocontrast": ("autocontrast", autocontrast, None),
    "equalize": ("equalized", equalize, None),
    "invert": ("inverted", cv2.bitwise_not, None),
    "rotate": ("rotated by {degrees:+.1f} deg", rotate, _signed("degrees", 30)),
    "posterize": (
        "posterized to {bits} bits",
        lambda frame, bits: frame & np.uint8(256 - 2 ** (8 - bits)),  # keeps the highest bits of every level
        lambda m, _: {"bits": 8 - 6 * m // LARGEST_MAGNITUDE},
    ),
    "solarize": (
        "solarized from {threshold}",
        solarize,
        lambda m, _: {"threshold": 256 - 256 * m // LARGEST_MAGNITUDE},
    ),
    "color": ("colour x {factor:.2f}", partial(enhance, kind=ImageEnhance.Color), _FACTOR),
    "contrast": ("contrast x {factor:.2f}", partial(enhance, kind=ImageEnhance.Contrast), _FACTOR),
    "brightness": ("brightness x {factor:.2f}", enhance_brightness, _FACTOR),
    "sharpness": ("sharpness x {factor:.2f}", enhance_sharpness, _FACTOR),
    "shear_x": ("rows sheared by {degrees:+.1f} deg", partial(shear, axis=0), _signed("degrees", np.rad2deg(0.3))),
    "shear_y": ("columns sheared by {degrees:+.1f} deg", partial(shear, axis=1), _signed("degrees", np.rad2deg(0.3))),
    "translate_x": ("shifted by {fraction:+.1%} in x", partial(translate, axis=0), _signed("fraction", 0.33)),
    "translate_y": ("shifted by {fraction:+.1%} in y", partial(translate, axis=1), _signed("fraction", 0.33)),
    "cutout": ("cutout of {size:.0%}", cutout, _cutout_parameters),
    "blur": ("blurred", blur, None),
    "smooth": ("smoothed", smooth, None),
}
