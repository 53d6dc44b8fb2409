"""Draw RandAugment: a few operations out of eighteen, with one magnitude; one draw for all frames of a clip.

The magnitude M runs from 0 to 30. The values that an operation gets from it are those of imgaug 0.4.0, whose
`RandAugment` is what the official Something-Something v2 recipe uses; they are weaker than those that timm gives
the same number on its scale from 0 to 10.

Source: imgaug 0.4.0, augmenters/collections.py, RandAugment; its use in Video-Swin-Transformer
    mmaction/datasets/pipelines/augmentations.py, Imgaug.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from vswin.data import frame_ops
from vswin.data.operations import Operation

LARGEST_MAGNITUDE = 30
# The side crops of magnitude M are of up to M pixels in a frame of this size, and in proportion in others.
_CROPPED_FROM = 224


def draw_rand_augment(preset: str, num_ops: int, magnitude: int, rng: np.random.Generator) -> list[Operation]:
    """Draws what RandAugment does to a clip.

    Args:
        preset: "none"; "official", which always cuts a little off the sides and mirrors every second clip, whatever
            the data set allows; "no_flip", the same without the mirroring, the only operation that turns left into
            right.
        num_ops: How many different operations, up to 18.
        magnitude: Their strength, 0 to 30.
        rng: Source of the draws.

    Returns:
        The operations, in the order in which they apply.
    """
    if preset == "none":
        return []
    operations = []
    if preset == "official" and rng.random() < 0.5:
        operations.append(Operation("mirrored by RandAugment", frame_ops.mirror))
    operations.append(_crop_sides(magnitude, rng))
    chosen = rng.permutation(len(DRAWS))[:num_ops]
    return operations + [DRAWS[index](magnitude, rng) for index in chosen]


def _crop_sides(magnitude: int, rng: np.random.Generator) -> Operation:
    sides = (rng.uniform(0, magnitude, 4) / _CROPPED_FROM).tolist()
    text = "sides cut by {:.1f}, {:.1f}, {:.1f}, {:.1f} %".format(*(100 * side for side in sides))
    return Operation(text, partial(frame_ops.crop_sides, top=sides[0], right=sides[1], bottom=sides[2], left=sides[3]))


def _signed(largest: float, magnitude: int, rng: np.random.Generator) -> float:
    """Scales the value of magnitude 30 down, and draws its sign."""
    value = largest * magnitude / LARGEST_MAGNITUDE
    return value if rng.random() < 0.5 else -value


def _identity(magnitude: int, rng: np.random.Generator) -> Operation:
    return Operation("identity", frame_ops.identity)


def _autocontrast(magnitude: int, rng: np.random.Generator) -> Operation:
    return Operation("autocontrast", frame_ops.autocontrast)


def _equalize(magnitude: int, rng: np.random.Generator) -> Operation:
    return Operation("equalized", frame_ops.equalize)


def _invert(magnitude: int, rng: np.random.Generator) -> Operation:
    return Operation("inverted", frame_ops.invert)


def _rotate(magnitude: int, rng: np.random.Generator) -> Operation:
    degrees = _signed(30, magnitude, rng)
    return Operation(f"rotated by {degrees:+.1f} deg", partial(frame_ops.rotate, degrees=degrees))


def _posterize(magnitude: int, rng: np.random.Generator) -> Operation:
    bits = 8 - 6 * magnitude // LARGEST_MAGNITUDE
    return Operation(f"posterized to {bits} bits", partial(frame_ops.posterize, bits=bits))


def _solarize(magnitude: int, rng: np.random.Generator) -> Operation:
    threshold = 256 - 256 * magnitude // LARGEST_MAGNITUDE
    return Operation(f"solarized from {threshold}", partial(frame_ops.solarize, threshold=threshold))


def _color(magnitude: int, rng: np.random.Generator) -> Operation:
    factor = 1 + _signed(0.9, magnitude, rng)
    return Operation(f"colour x {factor:.2f}", partial(frame_ops.enhance_color, factor=factor))


def _contrast(magnitude: int, rng: np.random.Generator) -> Operation:
    factor = 1 + _signed(0.9, magnitude, rng)
    return Operation(f"contrast x {factor:.2f}", partial(frame_ops.enhance_contrast, factor=factor))


def _brightness(magnitude: int, rng: np.random.Generator) -> Operation:
    factor = 1 + _signed(0.9, magnitude, rng)
    return Operation(f"brightness x {factor:.2f}", partial(frame_ops.enhance_brightness, factor=factor))


def _sharpness(magnitude: int, rng: np.random.Generator) -> Operation:
    factor = 1 + _signed(0.9, magnitude, rng)
    return Operation(f"sharpness x {factor:.2f}", partial(frame_ops.enhance_sharpness, factor=factor))


def _shear_x(magnitude: int, rng: np.random.Generator) -> Operation:
    degrees = _signed(np.rad2deg(0.3), magnitude, rng)
    return Operation(f"rows sheared by {degrees:+.1f} deg", partial(frame_ops.shear_x, degrees=degrees))


def _shear_y(magnitude: int, rng: np.random.Generator) -> Operation:
    degrees = _signed(np.rad2deg(0.3), magnitude, rng)
    return Operation(f"columns sheared by {degrees:+.1f} deg", partial(frame_ops.shear_y, degrees=degrees))


def _translate_x(magnitude: int, rng: np.random.Generator) -> Operation:
    share = _signed(0.33, magnitude, rng)
    return Operation(f"shifted by {100 * share:+.1f} % in x", partial(frame_ops.translate_x, share=share))


def _translate_y(magnitude: int, rng: np.random.Generator) -> Operation:
    share = _signed(0.33, magnitude, rng)
    return Operation(f"shifted by {100 * share:+.1f} % in y", partial(frame_ops.translate_y, share=share))


def _cutout(magnitude: int, rng: np.random.Generator) -> Operation:
    size = 20 / 32 * magnitude / LARGEST_MAGNITUDE
    x, y = rng.random(2).tolist()
    return Operation(f"cutout of {100 * size:.0f} %", partial(frame_ops.cutout, x=x, y=y, size=size))


def _blur(magnitude: int, rng: np.random.Generator) -> Operation:
    return Operation("blurred", frame_ops.blur)


def _smooth(magnitude: int, rng: np.random.Generator) -> Operation:
    return Operation("smoothed", frame_ops.smooth)


# The eighteen operations, each drawn from (magnitude, generator), in imgaug's order.
DRAWS: tuple[Callable[[int, np.random.Generator], Operation], ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _color,
    _contrast,
    _brightness,
    _sharpness,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _cutout,
    _blur,
    _smooth,
)
