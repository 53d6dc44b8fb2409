"""Random erasing in the training step: one box of a clip becomes the mean colour, in all its frames.

Acts on normalised clips, where the mean colour is 0, as the official Something-Something v2 recipe does.

Source: timm 0.4, data/random_erasing.py, RandomErasing in mode "const"; its use in Video-Swin-Transformer
    mmaction/datasets/pipelines/augmentations.py, RandomErasing, which draws one box for all frames.
"""

import math

import tensorflow as tf

from vswin.models.draws import ERASING_STREAM, stream_seed

_AREA = (0.02, 1 / 3)  # shares of the frame
_ASPECT = (0.3, 1 / 0.3)  # height / width, log-uniform
_NUM_CANDIDATES = 10


def make_erasing_boxes(
    seed: tf.Tensor | int,
    step: tf.Tensor | int,
    positions: tf.Tensor,
    global_batch_size: int,
    frame: tuple[int, int],
    probability: float,
) -> tf.Tensor:
    """Draws the boxes of the clips at `positions` of a global batch, the same for any number of replicas.

    Args:
        seed: seed of the run.
        step: optimizer step.
        positions: places of the clips in the global batch, int32 [B].
        global_batch_size: clips per step over all replicas.
        frame: height and width of the frames.
        probability: share of the clips that get a box.

    Returns:
        Boxes (top, left, height, width), int32 [B, 4]; height and width are 0 where nothing is erased.
    """
    height, width = frame
    key = stream_seed(seed, step, ERASING_STREAM)
    uniform = tf.random.stateless_uniform([global_batch_size, 1 + 4 * _NUM_CANDIDATES], key, alg="philox")
    uniform = tf.gather(uniform, positions)  # [B, 41]
    is_erased = uniform[:, 0] < probability
    areas, aspects, tops, lefts = tf.split(uniform[:, 1:], 4, axis=1)  # each [B, 10]
    areas = (_AREA[0] + areas * (_AREA[1] - _AREA[0])) * (height * width)
    aspects = tf.exp(math.log(_ASPECT[0]) + aspects * (math.log(_ASPECT[1]) - math.log(_ASPECT[0])))
    heights, widths = tf.round(tf.sqrt(areas * aspects)), tf.round(tf.sqrt(areas / aspects))
    tops, lefts = tf.floor(tops * (height - heights + 1)), tf.floor(lefts * (width - widths + 1))
    does_fit = (heights < height) & (widths < width)
    candidates = tf.cast(tf.stack([tops, lefts, heights, widths], axis=2), tf.int32)  # [B, 10, 4]
    boxes = tf.gather(candidates, tf.argmax(does_fit, axis=1), batch_dims=1)  # [B, 4]
    return tf.where((is_erased & tf.reduce_any(does_fit, axis=1))[:, None], boxes, 0)


def erase(clips: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Erases one box of each clip.

    Args:
        clips: normalised, [B, T, H, W, 3].
        boxes: int32 [B, 4] as `make_erasing_boxes` draws them.

    Returns:
        [B, T, H, W, 3] of the same type.
    """
    return tf.where(box_mask(boxes, clips), tf.zeros([], clips.dtype), clips)


def box_mask(boxes: tf.Tensor, clips: tf.Tensor) -> tf.Tensor:
    """Marks the pixels of clips [B, T, H, W, 3] inside of boxes int32 [B, 4]: bool [B, 1, H, W, 1]."""
    tops, lefts, heights, widths = tf.unstack(boxes[:, None], axis=2)  # each [B, 1]
    rows, columns = tf.range(tf.shape(clips)[2]), tf.range(tf.shape(clips)[3])  # [H], [W]
    is_row = (rows >= tops) & (rows < tops + heights)  # [B, H]
    is_column = (columns >= lefts) & (columns < lefts + widths)  # [B, W]
    return is_row[:, None, :, None, None] & is_column[:, None, None, :, None]  # [B, 1, H, W, 1]
