"""Changes that a training step makes to normalised clips: random erasing, mixup and cutmix.

Erasing: one box of a clip becomes the mean colour, which is 0, in all its frames, as in the official
Something-Something v2 recipe. Mixing: the clips at positions p and p ^ 1 of the global batch (0 and 1, 2 and 3, ...)
are partners. They are on the same device and in the same micro-batch, so the result does not depend on the number of
devices or micro-batches.

Source: erasing: timm 0.4, data/random_erasing.py, RandomErasing in mode "const"; its use in Video-Swin-Transformer
    mmaction/datasets/pipelines/augmentations.py, RandomErasing, which draws one box for all frames. mixup:
    arXiv:1710.09412; cutmix: arXiv:1905.04899; boxes as in Video-Swin-Transformer
    mmaction/datasets/blending_utils.py, CutmixBlending; mixing in pairs as in timm, data/mixup.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from vswin.models.draws import ERASING_STREAM, MIXING_STREAM, stream_seed

_AREA = (0.02, 1 / 3)  # fractions of the frame
_ASPECT = (0.3, 1 / 0.3)  # height / width, log-uniform
_NUM_CANDIDATES = 10


@dataclass(frozen=True)
class Mixing:
    """The alphas of the Beta distributions, 0 for off; if both are on, each pair draws which of the two it uses."""

    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0


NO_MIXING = Mixing()


class MixDraws(NamedTuple):
    """The draws for mixing clips with their partners; both partners of a pair have the same draws."""

    share: tf.Tensor  # weight of a clip's own label, float32 [B]; its partner's label has the rest. 1 without mixing
    blend: tf.Tensor  # weight of a clip's own pixels outside the box, float32 [B]; 1 under cutmix
    box: tf.Tensor  # pixels taken from the partner, (top, left, height, width), int32 [B, 4]; empty under mixup


def make_erasing_boxes(
    seed: tf.Tensor | int,
    step: tf.Tensor | int,
    positions: tf.Tensor,
    global_batch_size: int,
    frame: tuple[int, int],
    probability: float,
) -> tf.Tensor:
    """Draws the boxes of the clips at `positions`, int32 [B], of a global batch, the same for any number of replicas.

    `frame` is (height, width) of the frames, and `probability` is the fraction of the clips that get a box. Boxes are
    (top, left, height, width), int32 [B, 4]; height and width are 0 where nothing is erased.
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
    """Erases a box, int32 [B, 4] from `make_erasing_boxes`, in each normalised clip [B, T, H, W, 3]."""
    return tf.where(box_mask(boxes, clips), tf.zeros([], clips.dtype), clips)


def box_mask(boxes: tf.Tensor, clips: tf.Tensor) -> tf.Tensor:
    """Marks the pixels of clips [B, T, H, W, 3] inside boxes, int32 [B, 4], as bool [B, 1, H, W, 1]."""
    tops, lefts, heights, widths = tf.unstack(boxes[:, None], axis=2)  # each [B, 1]
    rows, columns = tf.range(tf.shape(clips)[2]), tf.range(tf.shape(clips)[3])  # [H], [W]
    is_row = (rows >= tops) & (rows < tops + heights)  # [B, H]
    is_column = (columns >= lefts) & (columns < lefts + widths)  # [B, W]
    return is_row[:, None, :, None, None] & is_column[:, None, None, :, None]  # [B, 1, H, W, 1]


def make_mix_draws(
    seed: tf.Tensor | int,
    step: tf.Tensor | int,
    positions: tf.Tensor,
    global_batch_size: int,
    frame: tuple[int, int],
    mixing: Mixing,
) -> MixDraws:
    """Draws how to mix the clips at `positions`; for the arguments see `make_erasing_boxes`."""
    ones, empty = tf.ones_like(positions, tf.float32), tf.zeros([tf.size(positions), 4], tf.int32)
    if not mixing.is_on:
        return MixDraws(ones, ones, empty)
    key = stream_seed(seed, step, MIXING_STREAM)
    num_pairs = -(-global_batch_size // 2)
    pairs = positions // 2  # [B]
    uniform = tf.gather(tf.random.stateless_uniform([num_pairs, 3], key, alg="philox"), pairs)  # [B, 3]
    is_cutmix = uniform[:, 0] < (0.5 if mixing.mixup > 0 else 1.0)
    if mixing.cutmix == 0:
        is_cutmix = tf.zeros_like(is_cutmix)
    blend = tf.gather(_draw_beta(key, 1, num_pairs, mixing.mixup), pairs)  # [B]
    box, rest = _draw_box(tf.gather(_draw_beta(key, 2, num_pairs, mixing.cutmix), pairs), uniform[:, 1:], frame)
    return MixDraws(
        share=tf.where(is_cutmix, rest, blend),
        blend=tf.where(is_cutmix, 1.0, blend),
        box=tf.where(is_cutmix[:, None], box, empty),
    )


def keep_uncounted(draws: MixDraws, weights: tf.Tensor) -> MixDraws:
    """Turns mixing off for pairs with a slot of weight 0 (float32 [B]): padding, or a clip that cannot be decoded."""
    does_count = (weights > 0) & (swap(weights) > 0)
    return MixDraws(
        share=tf.where(does_count, draws.share, 1.0),
        blend=tf.where(does_count, draws.blend, 1.0),
        box=tf.where(does_count[:, None], draws.box, 0),
    )


def swap(values: tf.Tensor) -> tf.Tensor:
    """Returns for every clip its partner's value: [B, ...] with an even B, positions in ascending order."""
    pairs = tf.reshape(values, [-1, 2, *values.shape[1:]])  # [B/2, 2, ...]
    return tf.reshape(pairs[:, ::-1], tf.shape(values))  # [B, ...]


def mix_clips(clips: tf.Tensor, draws: MixDraws) -> tf.Tensor:
    """Mixes normalised clips [B, T, H, W, 3] with their partners."""
    partners = swap(clips)
    blend = tf.cast(draws.blend, clips.dtype)[:, None, None, None, None]  # [B, 1, 1, 1, 1]
    blended = blend * clips + (1 - blend) * partners
    return tf.where(box_mask(draws.box, clips), partners, blended)


def mix_targets(targets: tf.Tensor, draws: MixDraws) -> tf.Tensor:
    """Mixes the targets of the loss, float32 [B, K], with the partners' targets."""
    share = draws.share[:, None]  # [B, 1]
    return share * targets + (1 - share) * swap(targets)


def main_labels(labels: tf.Tensor, draws: MixDraws) -> tf.Tensor:
    """Picks the label with the larger weight, int32 [B]; in a tie, the clip's own label."""
    return tf.where(draws.share >= 0.5, labels, swap(labels))


def _draw_beta(key: tf.Tensor, stream: int, num_pairs: int, alpha: float) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), float32 [pairs]; 1 for alpha 0."""
    if alpha == 0:
        return tf.ones([num_pairs])
    # In float64 a small alpha does not make both gammas 0.
    gammas = tf.random.stateless_gamma([num_pairs, 2], tf.random.fold_in(key, stream), alpha, dtype=tf.float64)
    return tf.cast(gammas[:, 0] / tf.reduce_sum(gammas, axis=1), tf.float32)  # [pairs]


def _draw_box(share: tf.Tensor, center: tf.Tensor, frame: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns boxes around `center`, cut at the edges, int32 [B, 4], and the frame fractions that they leave, [B]."""
    extent = tf.constant(frame, tf.int32)  # [2]
    half = tf.cast(tf.cast(extent, tf.float32) * tf.sqrt(1 - share)[:, None], tf.int32) // 2  # [B, 2]
    middle = tf.minimum(tf.cast(center * tf.cast(extent, tf.float32), tf.int32), extent - 1)  # [B, 2]
    start, stop = tf.maximum(middle - half, 0), tf.minimum(middle + half, extent)
    box = tf.concat([start, stop - start], axis=1)  # [B, 4]
    area = tf.cast(tf.reduce_prod(stop - start, axis=1), tf.float32)
    return box, 1 - area / (frame[0] * frame[1])
