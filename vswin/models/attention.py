"""Attention inside windows: products of queries and keys, bias, softmax, products with values.

The logits are the largest tensors of the network: 128 x 3 x 392 x 392 in the first block on 32 x 224 x 224 pixels. On a
CPU they are computed for a few windows at a time, so few that they stay in its cache, and the hand-written gradient
recomputes them. All of this is in float32: few CPUs compute products faster in bfloat16, and even they would have to
convert the logits for the softmax and back. Called by `layers`.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from vswin.cluster import count_cores
from vswin.models.fused import biased_softmax
from vswin.models.windows import region_channels

# 4 MB in float32, which stay near a core. Twice as many are slower again; half as many need more rounds.
CHUNK_LOGITS = 1 << 20


def attend(qkv: tf.Tensor, bias: tf.Tensor, regions: tf.Tensor | None) -> tf.Tensor:
    """Lets the tokens of each window attend to each other.

    Bias and softmax are computed in float32 for every dtype, and the products too if windows come in chunks. The mask
    is part of the product and exact in every dtype.

    Args:
        qkv: queries, keys and values of all heads, [B*nW, N, 3, nH, d]; the windows of one sample are adjacent.
        bias: added to the logits, float32 [nH, N, N].
        regions: see `windows.token_regions`, int32 [nW, N], or None if windows are not shifted.

    Returns:
        [B*nW, N, nH*d].
    Source: swin_transformer.py, WindowAttention3D.
    """
    # Without regions all windows are alike and may count as those of one sample.
    num_windows = qkv.shape[0] if regions is None else regions.shape[0]
    size = chunk_size(qkv.shape, num_windows)
    if size is None or tf.config.list_logical_devices("GPU"):  # a GPU takes them all at once
        return _attend(qkv, bias, regions)
    return _attend_in_chunks(qkv, bias, regions, size)


def chunk_size(shape: tf.TensorShape, num_windows: int | None) -> int | None:
    """Chooses how many windows to process at a time for queries, keys and values [B*nW, N, 3, nH, d].

    The number divides the windows of a sample nW. None: all at once, since there are few logits or, as in an export, an
    unknown number.
    """
    if num_windows is None or not shape.is_fully_defined():
        return None
    count, num_tokens, _, num_heads, _ = shape
    logits = num_heads * num_tokens**2  # per window
    if count * logits <= CHUNK_LOGITS:
        return None
    fitting = range(2, min(num_windows, CHUNK_LOGITS // logits) + 1)
    return max((size for size in fitting if num_windows % size == 0), default=1)


def _attend(qkv: tf.Tensor, bias: tf.Tensor, regions: tf.Tensor | None) -> tf.Tensor:
    q, k, v = _split_qkv(qkv)  # each [B*nW, nH, N, d]
    return _join_heads(tf.matmul(attention_weights(q, k, bias, regions), v))  # [B*nW, N, nH*d]


def attention_weights(q: tf.Tensor, k: tf.Tensor, bias: tf.Tensor, regions: tf.Tensor | None) -> tf.Tensor:
    """Computes the attention weights between the tokens of each window, which sum to 1 over the last axis.

    Queries and keys [B*nW, nH, N, d] -> weights [B*nW, nH, N, N]; bias and regions as in `attend`.
    """
    q = q * q.shape[-1] ** -0.5
    if regions is not None:
        of_queries, of_keys = region_channels(regions, q.dtype)
        q, k = _append_channels(q, of_queries), _append_channels(k, of_keys)
    return biased_softmax(tf.matmul(q, k, transpose_b=True), bias)  # [B*nW, nH, N, N]


def _attend_in_chunks(qkv: tf.Tensor, bias: tf.Tensor, regions: tf.Tensor | None, size: int) -> tf.Tensor:
    """Runs `_attend` in float32 on `size` windows at a time; the gradient recomputes everything inside it."""
    rounds = qkv.shape[0] // size

    def cut(x: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        # Unlike x[i * size : (i + 1) * size], this has a static shape, without which XLA cannot compile the loop.
        return tf.slice(x, [i * size, *[0] * (len(x.shape) - 1)], [size, *x.shape[1:]])

    def cut_regions(i: tf.Tensor) -> tf.Tensor | None:
        return None if regions is None else cut(regions, i % (regions.shape[0] // size))

    @tf.custom_gradient
    def run(qkv: tf.Tensor, bias: tf.Tensor) -> tuple:
        def forward(i: tf.Tensor, done: tf.TensorArray) -> tuple:
            some = _attend(tf.cast(cut(qkv, i), tf.float32), bias, cut_regions(i))
            return i + 1, done.write(i, tf.cast(some, qkv.dtype))

        def gradient(upstream: tf.Tensor) -> tuple:
            common = _softmax_gradient_term(attended, upstream, num_heads=qkv.shape[3])

            def backward(i: tf.Tensor, done: tf.TensorArray, dbias: tf.Tensor) -> tuple:
                wide_qkv, wide_upstream = (tf.cast(cut(x, i), tf.float32) for x in (qkv, upstream))
                dqkv, more = _attend_gradient(wide_qkv, wide_upstream, cut(common, i), bias, cut_regions(i))
                return i + 1, done.write(i, tf.cast(dqkv, qkv.dtype)), dbias + more

            done, dbias = _loop_over_chunks(backward, rounds, qkv.dtype, tf.zeros_like(bias))
            return tf.reshape(done.concat(), qkv.shape), dbias  # [B*nW, N, 3, nH, d], [nH, N, N]

        (done,) = _loop_over_chunks(forward, rounds, qkv.dtype)
        attended = tf.ensure_shape(done.concat(), [*qkv.shape[:2], math.prod(qkv.shape[3:])])  # [B*nW, N, nH*d]
        return attended, gradient

    return run(qkv, bias)


def _softmax_gradient_term(attended: tf.Tensor, upstream: tf.Tensor, num_heads: int) -> tf.Tensor:
    """Computes the term of the softmax's gradient that all logits of a token share, float32 [B*nW, nH, N, 1]."""
    # It is the sum over attended tokens of weight * gradient of the weight. By the gradient of the product with the
    # values, this equals the sum over channels of output * gradient of the output, which are far smaller tensors.
    # Source: Dao et al., FlashAttention, equation 4.
    product = tf.cast(attended, tf.float32) * tf.cast(upstream, tf.float32)
    return tf.reduce_sum(_split_heads(product, num_heads), axis=-1, keepdims=True)  # [B*nW, nH, N, 1]


def _attend_gradient(
    qkv: tf.Tensor, upstream: tf.Tensor, common: tf.Tensor, bias: tf.Tensor, regions: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Differentiates `_attend` in float32: the gradients of qkv [B*nW, N, 3, nH, d] and of the bias [nH, N, N]."""
    q, k, v = _split_qkv(qkv)  # each [B*nW, nH, N, d]
    scale = q.shape[-1] ** -0.5
    upstream = _split_heads(upstream, q.shape[1])  # [B*nW, nH, N, d]
    weights = attention_weights(q, k, bias, regions)  # [B*nW, nH, N, N]
    dweights = tf.matmul(upstream, v, transpose_b=True)  # [B*nW, nH, N, N]
    dlogits = weights * (dweights - common)
    dbias = tf.reduce_sum(dlogits, axis=0)  # [nH, N, N]
    dq, dk = tf.matmul(dlogits, k) * scale, tf.matmul(dlogits, q * scale, transpose_a=True)
    dv = tf.matmul(weights, upstream, transpose_a=True)
    return tf.transpose(tf.stack([dq, dk, dv]), [1, 3, 0, 2, 4]), dbias  # [B*nW, N, 3, nH, d], [nH, N, N]


def _split_qkv(qkv: tf.Tensor) -> list[tf.Tensor]:
    """Separates queries, keys and values: [B*nW, N, 3, nH, d] -> three times [B*nW, nH, N, d]."""
    return tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # of [3, B*nW, nH, N, d]


def _split_heads(x: tf.Tensor, num_heads: int) -> tf.Tensor:
    """Separates heads: [B*nW, N, nH*d] -> [B*nW, nH, N, d]."""
    shape = tf.shape(x)
    x = tf.reshape(x, [shape[0], shape[1], num_heads, x.shape[-1] // num_heads])  # [B*nW, N, nH, d]
    return tf.transpose(x, [0, 2, 1, 3])  # [B*nW, nH, N, d]


def _join_heads(x: tf.Tensor) -> tf.Tensor:
    """Joins heads: [B*nW, nH, N, d] -> [B*nW, N, nH*d]."""
    x = tf.transpose(x, [0, 2, 1, 3])  # [B*nW, N, nH, d]
    shape = tf.shape(x)
    return tf.reshape(x, [shape[0], shape[1], math.prod(x.shape[2:])])  # [B*nW, N, nH*d]


def _append_channels(x: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """Appends channels [nW, N, c], the same for each head and sample, to x [B*nW, nH, N, d]."""
    shape = tf.shape(x)
    channels = tf.tile(channels[:, None], [shape[0] // tf.shape(channels)[0], shape[1], 1, 1])  # [B*nW, nH, N, c]
    return tf.concat([x, channels], axis=-1)  # [B*nW, nH, N, d+c]


def _loop_over_chunks(body: Callable[..., tuple], rounds: int, dtype: tf.DType, *carried: tf.Tensor) -> tuple:
    """Calls `body(i, done, *carried)` for each round, several rounds at a time if there are several cores."""
    done = tf.TensorArray(dtype, rounds)
    _, *results = tf.while_loop(
        lambda i, *_: i < rounds,
        body,
        (tf.constant(0), done, *carried),
        maximum_iterations=rounds,
        parallel_iterations=count_cores(),
    )
    return tuple(results)
