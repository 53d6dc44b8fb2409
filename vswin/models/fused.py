"""Chains of elementwise operations in few passes over memory, forwards and backwards.

TensorFlow runs one operation after another, and each reads and writes all its numbers. XLA turns a chain into one loop,
and a hand-written gradient keeps only the input, while automatic ones also keep intermediate results. Matrix products
stay with TensorFlow. Everything is computed in float32 and returned in the dtype of the input. Called by `layers` and
`attention`.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

# Compiling takes a fraction of a second per shape, which smaller tensors never win back.
MIN_ELEMENTS = 1 << 20

ResultT = TypeVar("ResultT")


def in_one_pass(chain: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Lets XLA compile a chain of operations if its first argument is known to be large.

    TensorFlow runs the chain if the shape is unknown when a graph is made, as in an export: XLA would compile again for
    each new shape.
    """
    compiled = tf.function(chain, jit_compile=True, autograph=False)

    @functools.wraps(chain)
    def run(first: tf.Tensor, *others: tf.Tensor | None) -> ResultT:
        num_elements = first.shape.num_elements()
        is_large = num_elements is not None and num_elements >= MIN_ELEMENTS
        return (compiled if is_large else chain)(first, *others)

    return run


@tf.custom_gradient
def gelu(x: tf.Tensor) -> tuple:
    """Applies the exact GELU, x * Phi(x), to each number; shape and dtype stay.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units; torch.nn.GELU().
    """
    return _gelu(x), functools.partial(_gelu_gradient, x)


@in_one_pass
def _gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=False)


@in_one_pass
def _gelu_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(x, tf.float32)
    probability = 0.5 + 0.5 * tf.math.erf(wide * math.sqrt(0.5))
    density = tf.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return tf.cast(tf.cast(upstream, tf.float32) * (probability + wide * density), x.dtype)


@tf.custom_gradient
def normalize_rows(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tuple:
    """Normalises each row of [R, C] to mean 0 and variance 1, then scales and shifts its channels, float32 [C].

    Source: Ba et al., Layer Normalization; torch.nn.LayerNorm.
    """
    y, mean, scale = _normalize(x, gamma, beta, epsilon)

    def gradient(upstream: tf.Tensor) -> tuple:
        return *_normalize_gradient(x, gamma, mean, scale, upstream), None

    return y, gradient


@in_one_pass
def _normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, ...]:
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(wide, axis=-1, keepdims=True)  # [R, 1]
    centred = wide - mean
    scale = tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + epsilon)  # [R, 1]
    return tf.cast(centred * scale * gamma + beta, x.dtype), mean, scale


@in_one_pass
def _normalize_gradient(
    x: tf.Tensor, gamma: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, upstream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    upstream = tf.cast(upstream, tf.float32)
    normal = (tf.cast(x, tf.float32) - mean) * scale  # [R, C]
    inner = upstream * gamma
    along_mean = tf.reduce_mean(inner, axis=-1, keepdims=True)  # [R, 1]
    along_normal = tf.reduce_mean(inner * normal, axis=-1, keepdims=True)  # [R, 1]
    dx = scale * (inner - along_mean - normal * along_normal)
    return tf.cast(dx, x.dtype), tf.reduce_sum(upstream * normal, axis=0), tf.reduce_sum(upstream, axis=0)


def biased_softmax(logits: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Adds a bias, float32 [nH, N, N], to attention logits [B*nW, nH, N, N]; gives the softmax over the last axis."""

    @tf.custom_gradient
    def run(logits: tf.Tensor, bias: tf.Tensor) -> tuple:
        # TensorFlow computes the sum because it adds in place: a second tensor as large as the logits, the largest
        # tensors, would raise the memory of a pass through the network by half.
        attention = tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32) + bias), logits.dtype)
        return attention, functools.partial(_softmax_gradient, attention)

    return run(logits, bias)


@in_one_pass
def _softmax_gradient(attention: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    wide = tf.cast(attention, tf.float32)
    weighted = wide * tf.cast(upstream, tf.float32)
    dlogits = weighted - wide * tf.reduce_sum(weighted, axis=-1, keepdims=True)  # [B*nW, nH, N, N]
    return tf.cast(dlogits, attention.dtype), tf.reduce_sum(dlogits, axis=0)  # [B*nW, nH, N, N], [nH, N, N]
