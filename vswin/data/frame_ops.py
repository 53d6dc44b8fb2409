"""Change one frame, on uint8: the operations of RandAugment.

All take a frame, uint8 [H, W, 3] RGB, and return another of the same shape; parameters are shares of the frame, so
that they mean the same at any size. Pixels are those of imgaug 0.4.0, which leaves filters, enhancers and affine
maps to Pillow; so do these, but for the filters, which OpenCV sums several times faster to the same pixels.
`vswin.data.rand_augment` draws the parameters.

Source: imgaug 0.4.0, augmenters/pillike.py, augmenters/arithmetic.py (`cutout_`, `invert_`), augmenters/color.py
    (`quantize_uniform_to_n_bits_`).
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vswin.data import transforms
from vswin.data.transforms import Box

# Gray level of what an operation uncovers or cuts out.
FILL = 128
_LEVELS = np.arange(256)
# imgaug leaves smaller frames to Pillow, which counts the brightest level differently.
_EQUALIZED_BY_PILLOW_BELOW = 64 * 64 * 3


def identity(frame: np.ndarray) -> np.ndarray:
    """Changes nothing."""
    return frame


def mirror(frame: np.ndarray) -> np.ndarray:
    """Mirrors left to right."""
    return cv2.flip(frame, 1)


def crop_sides(frame: np.ndarray, top: float, right: float, bottom: float, left: float) -> np.ndarray:
    """Cuts shares of the height or width off the four sides, and resizes to the old size."""
    height, width = frame.shape[:2]
    first_row, first_column = round(height * top), round(width * left)
    rows = height - first_row - round(height * bottom)
    columns = width - first_column - round(width * right)
    box = Box(first_row, first_column, rows, columns)
    return transforms.resize_frame(transforms.crop(frame[None], box)[0], height, width)


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
    """Makes the levels of each channel about equally frequent."""
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


def invert(frame: np.ndarray) -> np.ndarray:
    """Turns every level v into 255 - v."""
    return cv2.bitwise_not(frame)


def solarize(frame: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts the levels from `threshold` up."""
    return cv2.LUT(frame, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def posterize(frame: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the `bits` highest bits of every level."""
    return frame & np.uint8(256 - 2 ** (8 - bits))


def rotate(frame: np.ndarray, degrees: float) -> np.ndarray:
    """Turns about the centre, clockwise where `degrees` is above 0."""
    height, width = frame.shape[:2]
    angle = -np.deg2rad(degrees)
    turn = [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    return _warp(frame, turn, (width * 0.5, height * 0.5))


def shear_x(frame: np.ndarray, degrees: float) -> np.ndarray:
    """Shifts rows, the more the lower they are; by the hyperbolic tangent of the angle, as imgaug does."""
    return _warp(frame, [[1, np.tanh(np.deg2rad(degrees)), 0], [0, 1, 0], [0, 0, 1]])


def shear_y(frame: np.ndarray, degrees: float) -> np.ndarray:
    """Shifts columns, the more the further right they are; by the hyperbolic tangent of the angle."""
    return _warp(frame, [[1, 0, 0], [np.tanh(np.deg2rad(degrees)), 1, 0], [0, 0, 1]])


def translate_x(frame: np.ndarray, share: float) -> np.ndarray:
    """Shifts to the right by a share of the width."""
    return _warp(frame, [[1, 0, share * frame.shape[1]], [0, 1, 0], [0, 0, 1]])


def translate_y(frame: np.ndarray, share: float) -> np.ndarray:
    """Shifts down by a share of the height."""
    return _warp(frame, [[1, 0, 0], [0, 1, share * frame.shape[0]], [0, 0, 1]])


def cutout(frame: np.ndarray, x: float, y: float, size: float) -> np.ndarray:
    """Fills a square with gray.

    Args:
        frame: uint8 [H, W, 3].
        x: Its centre, as a share of the width.
        y: Its centre, as a share of the height.
        size: Its side, as a share of the height; what lies outside is cut off.
    """
    height, width = frame.shape[:2]
    half = size / 2 * height
    left, right = (min(max(int(x * width + side), 0), width) for side in (-half, half))
    top, bottom = (min(max(int(y * height + side), 0), height) for side in (-half, half))
    frame = frame.copy()
    frame[top:bottom, left:right] = FILL
    return frame


def enhance_color(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every pixel from its gray."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(frame)).enhance(factor))


def enhance_contrast(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every level from the frame's mean gray."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(frame)).enhance(factor))


def enhance_brightness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales every level."""
    return cv2.LUT(frame, np.clip(np.float32(factor) * _LEVELS.astype(np.float32), 0, 255).astype(np.uint8))


def enhance_sharpness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every level from the smoothed frame."""
    return np.asarray(Image.blend(Image.fromarray(smooth(frame)), Image.fromarray(frame), factor))


def blur(frame: np.ndarray) -> np.ndarray:
    """Averages over a ring of 16 neighbours, two pixels away."""
    kernel = np.ones((5, 5), np.float32)
    kernel[1:4, 1:4] = 0
    return _filter(frame, kernel)


def smooth(frame: np.ndarray) -> np.ndarray:
    """Averages over 3 x 3 pixels, the middle one five times."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    return _filter(frame, kernel)


def _filter(frame: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Averages with whole weights, half up; leaves the edges alone, as Pillow does.

    Source: Pillow, PIL/ImageFilter.py, BLUR and SMOOTH.
    """
    total, edge = int(kernel.sum()), len(kernel) // 2
    averages = ((2 * np.arange(255 * total + 1) + total) // (2 * total)).astype(np.uint8)
    inside = (slice(edge, -edge), slice(edge, -edge))
    filtered = frame.copy()
    filtered[inside] = averages[cv2.filter2D(frame, cv2.CV_16S, kernel)[inside]]
    return filtered


def _warp(frame: np.ndarray, forward: list[list[float]], center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Maps the plane about a centre; nearest neighbour, in the single precision of the original."""
    x, y = center
    to_center = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], np.float32)
    from_center = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float32)
    matrix = from_center @ (np.array(forward, np.float32) @ to_center)
    backward = tuple(np.linalg.inv(matrix)[:2].ravel().tolist())  # [6]
    height, width = frame.shape[:2]
    image = Image.fromarray(frame).transform((width, height), Image.Transform.AFFINE, backward, fillcolor=(FILL,) * 3)
    return np.asarray(image)
