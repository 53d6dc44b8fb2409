"""Attention windows as pure functions on token grids: padding, partition, shift mask, relative positions.

Rolling a grid and cutting it into windows only reorders its tokens. So the order is computed on an index of one number
per token, and the features move once, in a single gather. Sizes are int32 tensors: with static shapes they fold to
constants, and the same code serves any T, H and W. Called by `layers` and `video_swin`.
"""

from typing import NamedTuple

import tensorflow as tf

from vswin.models.zoo import Triple

# Added to the logit of two tokens that meet in a window only because the grid was rolled.
MASKED_LOGIT = -100.0
# Rolling splits each of the three axes of a window into at most two parts.
NUM_REGIONS = 8


class Windows(NamedTuple):
    """Holds how one token grid is cut into windows.

    Args:
        size: window in tokens after shrinking to the grid, int32 [3].
        order: index of each token in the padded grid, window by window, int32 [nW*N].
        inverse: position in `order` of each index in the padded grid, int32 [nW*N].
        regions: region of each token, int32 [nW, N]; tokens of a window have different regions if they are neighbours
            only because the grid was rolled. None if windows are not shifted.
    """

    size: tf.Tensor
    order: tf.Tensor
    inverse: tf.Tensor
    regions: tf.Tensor | None


def plan_windows(grid: tf.Tensor, window_size: Triple, is_shifted: bool) -> Windows:
    """Plans the windows of a token grid, int32 [3], as `to_windows` and `from_windows` need them.

    The full window (t, h, w) shrinks to a smaller grid. Shifted windows are shifted by half the full window, but not
    along an axis that fits into one window.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, SwinTransformerBlock3D and
        get_window_size.
    """
    full = tf.constant(window_size, tf.int32)
    window = tf.minimum(grid, full)
    shift = tf.where(grid > full, full // 2 if is_shifted else tf.zeros_like(full), 0)
    padded = grid + (-grid) % window
    order = window_order(padded, window, shift)
    regions = token_regions(padded, window, shift) if is_shifted else None
    return Windows(window, order, tf.math.invert_permutation(order), regions)


def pad_grid(x: tf.Tensor, multiple: tf.Tensor) -> tf.Tensor:
    """Pads time, rows and columns of [B, T, H, W, C] with zeros at their end to multiples, int32 [3]."""
    extra = (-tf.shape(x)[1:4]) % multiple
    ends = tf.pad(extra[:, None], [[1, 1], [1, 0]])  # [5, 2]: before, after; axes B T H W C
    padded = tf.pad(x, ends)  # [B, Tp, Hp, Wp, C]
    # Unknown extents hide the channels from shape inference as well, and the layers after this need them.
    padded.set_shape([x.shape[0], None, None, None, x.shape[4]])
    return padded


def to_windows(x: tf.Tensor, windows: Windows) -> tf.Tensor:
    """Pads and rolls a token grid, and cuts it into windows: [B, T, H, W, C] -> [B*nW, N, C]."""
    channels = x.shape[-1]
    tokens = pad_grid(x, windows.size)
    tokens = tf.reshape(tokens, [-1, tf.size(windows.order), channels])  # [B, nW*N, C]
    tokens = reorder_tokens(tokens, windows.order, windows.inverse)
    return tf.reshape(tokens, [-1, tf.reduce_prod(windows.size), channels])  # [B*nW, N, C]


def from_windows(tokens: tf.Tensor, windows: Windows, shape: tf.Tensor) -> tf.Tensor:
    """Undoes `to_windows`: [B*nW, N, C] -> [B, T, H, W, C], whose `shape` before padding is int32 [5]."""
    grid = shape[1:4]
    padded = grid + (-grid) % windows.size
    tokens = tf.reshape(tokens, [-1, tf.size(windows.order), tokens.shape[-1]])  # [B, nW*N, C]
    tokens = reorder_tokens(tokens, windows.inverse, windows.order)
    x = tf.reshape(tokens, tf.concat([shape[:1], padded, shape[4:]], axis=0))  # [B, Tp, Hp, Wp, C]
    return tf.slice(x, [0, 0, 0, 0, 0], shape)  # [B, T, H, W, C]


@tf.custom_gradient
def reorder_tokens(tokens: tf.Tensor, order: tf.Tensor, inverse: tf.Tensor) -> tuple:
    """Reorders tokens [B, L, C] by a permutation, int32 [L].

    The gradient gathers with the inverse permutation, while the default one scatters and adds.
    """

    def gradient(upstream: tf.Tensor) -> tuple:
        return tf.gather(upstream, inverse, axis=1), None, None  # [B, L, C]

    return tf.gather(tokens, order, axis=1), gradient  # [B, L, C]


def window_order(padded: tf.Tensor, window: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Lists the tokens of a grid window by window, after rolling it back by the shift.

    Takes tokens per axis (multiples of the window), window and shift, each int32 [3]; returns a permutation of
    range(T*H*W), int32 [nW*N].
    Source: swin_transformer.py, window_partition after torch.roll.
    """
    # Token i of a rolled axis is token i + shift of the grid.
    t, h, w = ((x + shift[i]) % padded[i] for i, x in enumerate(_axes(padded, window)))
    return tf.reshape((t * padded[1] + h) * padded[2] + w, [-1])  # [nW*N]


def token_regions(padded: tf.Tensor, window: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Numbers the parts of each window of a rolled grid, to separate tokens that only rolling brought together.

    Takes the same as `window_order`; returns the part of each token, from 0 to 7, window by window, int32 [nW, N].
    Source: swin_transformer.py, compute_mask.
    """
    # The last `shift` tokens of an axis were rolled in from its beginning.
    parts = (x >= padded[i] - shift[i] for i, x in enumerate(_axes(padded, window)))
    t, h, w = (tf.cast(part, tf.int32) for part in parts)
    return tf.reshape(t * 4 + h * 2 + w, [-1, tf.reduce_prod(window)])  # [nW, N]


def region_channels(regions: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes channels that separate tokens which are neighbours only because the grid was rolled.

    Appended to queries and keys, they make the mask part of the product. The product costs a quarter more, but needs no
    tensor as large as the logits; in each precision it is exact where nothing is masked.

    Returns:
        Channels of queries and of keys, [nW, N, 8] each. The product of two tokens is 0 in one region, -100 otherwise.
    Source: swin_transformer.py, compute_mask, which makes a mask for the products.
    """
    queries = tf.one_hot(regions, NUM_REGIONS, on_value=0.0, off_value=MASKED_LOGIT, dtype=dtype)  # [nW, N, 8]
    return queries, tf.one_hot(regions, NUM_REGIONS, dtype=dtype)  # [nW, N, 8]


def expand_bias(table: tf.Tensor, window_size: Triple, num_tokens: tf.Tensor) -> tf.Tensor:
    """Looks up the bias of each pair of tokens in a window.

    Two pairs of frames with the same distance in time have the same biases. So one block is gathered per distance,
    number by number, and the result is gathered from blocks, row by row, which takes half the time.

    A shrunk window keeps the rows of the first `num_tokens` tokens of the full window. This is right if only time
    shrinks; for rows and columns it is what published weights were trained with.

    Args:
        table: a row for each difference of two positions, [(2Wt-1)*(2Wh-1)*(2Ww-1), nH].
        window_size: full window (Wt, Wh, Ww).
        num_tokens: tokens N of the current window, int32 scalar, at most those of the full window.

    Returns:
        [nH, N, N] in the dtype of the table; its gradient is dense.
    Source: swin_transformer.py, WindowAttention3D.__init__, and its index[:N, :N] in forward.
    """
    (frames, height, width), (rows, heads) = window_size, table.shape
    area, distances = height * width, 2 * frames - 1
    within = (2 * width - 1) * tf.range(height)[:, None] + tf.range(width)  # [Wh, Ww]
    within = tf.reshape(within, [-1])  # [Wh*Ww]
    # The row of a pair is linear in the difference of its positions; adding the last one makes the smallest row 0.
    pairs = within[:, None] - within[None, :] + within[-1]  # [Wh*Ww, Wh*Ww]
    pairs = pairs + tf.range(distances)[:, None, None] * (rows // distances)  # [2Wt-1, Wh*Ww, Wh*Ww]
    # Gathering along the second axis gives a dense gradient; along the first it gives IndexedSlices.
    blocks = tf.gather(tf.transpose(table), pairs, axis=1)  # [nH, 2Wt-1, Wh*Ww, Wh*Ww]
    blocks = tf.reshape(blocks, [heads, distances * area, area])  # [nH, (2Wt-1)*Wh*Ww, Wh*Ww]
    frame = tf.range(frames)
    apart = frame[:, None, None] - frame + frames - 1  # [Wt, 1, Wt]
    lines = apart * area + tf.range(area)[:, None]  # [Wt, Wh*Ww, Wt]
    lines = tf.reshape(lines, [frames * area, frames])[:num_tokens]  # [N, Wt]
    bias = tf.gather(blocks, lines, axis=1)  # [nH, N, Wt, Wh*Ww]
    return tf.reshape(bias, [heads, -1, frames * area])[:, :, :num_tokens]  # [nH, N, N]


def _axes(padded: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Numbers the tokens of each axis such that the three broadcast to a grid cut into windows.

    Without a transposition, for which oneDNN has no integers on many CPUs.
    """
    (nt, nh, nw), (wt, wh, ww) = tf.unstack(padded // window), tf.unstack(window)
    t = tf.reshape(tf.range(padded[0]), [nt, 1, 1, wt, 1, 1])
    h = tf.reshape(tf.range(padded[1]), [nh, 1, 1, wh, 1])
    w = tf.reshape(tf.range(padded[2]), [nw, 1, 1, ww])
    return t, h, w  # together [nt, nh, nw, Wt, Wh, Ww]
