"""Draw changes of brightness, contrast, saturation and hue; one draw for all frames of a clip.

Source: torchvision, transforms/transforms.py, ColorJitter, with transforms/_functional_tensor.py; mmaction2 offers it
    as `TorchVisionWrapper` and has a ColorJitter of its own with the same ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np

from vswin.data.operations import Operation

# From floats in 0..1 to bytes, as torchvision does: 1 becomes 255, without rounding.
_TO_BYTES = 255.999
_LEVELS = np.arange(256, dtype=np.float32)
_GRAY = np.array([0.2989, 0.587, 0.114], np.float32)


def draw_color_jitter(strengths: Sequence[float], rng: np.random.Generator) -> list[Operation]:
    """Draws the changes, in random order.

    Args:
        strengths: Of brightness, contrast and saturation, whose factors are uniform in 1 - strength (at least 0) to
            1 + strength, and of hue, whose shift is uniform in -strength to strength of the colour circle, at most
            0.5. What has strength 0 is left out.
        rng: Source of the draws.

    Returns:
        Up to four operations.
    """
    brightness, contrast, saturation, hue = strengths
    operations = []
    if brightness > 0:
        factor = _factor(brightness, rng)
        operations.append(Operation(f"brightness jittered x {factor:.2f}", partial(scale_brightness, factor=factor)))
    if contrast > 0:
        factor = _factor(contrast, rng)
        operations.append(Operation(f"contrast jittered x {factor:.2f}", partial(scale_contrast, factor=factor)))
    if saturation > 0:
        factor = _factor(saturation, rng)
        operations.append(Operation(f"saturation jittered x {factor:.2f}", partial(scale_saturation, factor=factor)))
    if hue > 0:
        shift = rng.uniform(-hue, hue)
        operations.append(Operation(f"hue jittered by {360 * shift:+.0f} deg", partial(shift_hue, shift=shift)))
    return [operations[index] for index in rng.permutation(len(operations))]


def scale_brightness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales every level of a frame, uint8 [H, W, 3], by a factor >= 0."""
    return cv2.LUT(frame, _to_levels(np.float32(factor) * _LEVELS))


def scale_contrast(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every level of a frame, uint8 [H, W, 3], from the frame's mean gray."""
    mean = _gray(frame).mean(dtype=np.float64)
    return cv2.LUT(frame, _to_levels(np.float32(factor) * _LEVELS + np.float32((1 - factor) * mean)))


def scale_saturation(frame: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of every pixel of a frame, uint8 [H, W, 3], from its gray."""
    gray = np.float32(1 - factor) * _gray(frame)[..., None]  # [H, W, 1]
    return _to_levels(np.float32(factor) * frame + gray)


def shift_hue(frame: np.ndarray, shift: float) -> np.ndarray:
    """Turns the hues of a frame, uint8 [H, W, 3], by a share of the colour circle, in HSV."""
    hsv = cv2.cvtColor(frame.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * shift)) % 360
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(_TO_BYTES)).astype(np.uint8)


def _factor(strength: float, rng: np.random.Generator) -> float:
    return float(rng.uniform(max(0.0, 1 - strength), 1 + strength))


def _gray(frame: np.ndarray) -> np.ndarray:
    """Returns whole gray levels, float32 [H, W]."""
    red, green, blue = cv2.split(frame)
    gray = _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue
    return np.floor(gray)


def _to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
