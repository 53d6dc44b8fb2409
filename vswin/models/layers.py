"""The layers of a Video Swin Transformer: patches, window attention, MLP, block, normalisation and head.

Dense layers come from Keras, operations between matrix products from `fused`. Attributes are named as in the official
state dict. Drop-path and dropout multipliers are arguments: a layer never draws random numbers (see `draws`). Called by
`video_swin`.
"""

import inspect
import math
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.models.attention import attend
from vswin.models.fused import gelu, normalize_rows
from vswin.models.windows import Windows, expand_bias, from_windows, pad_grid, to_windows
from vswin.models.zoo import Triple


class Layer(keras.layers.Layer):
    """A layer that keeps the arguments of its constructor as attributes of the same names."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name not in ("self", "kwargs")]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("vswin")
class PatchEmbed3D(Layer):
    """Embeds each patch of voxels as one token, then normalises it.

    Args:
        embed_dim: channels C of a token.
        patch_size: voxels per token (t, h, w).
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, PatchEmbed3D.
    """

    def __init__(self, embed_dim: int, patch_size: Triple, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.patch_size = patch_size
        self.proj = PatchProjection(embed_dim, patch_size, dtype=self.dtype_policy, name="proj")
        self.norm = layer_norm(self, "norm")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [B, T, H, W, 3], any extents, to tokens [B, T', H', W', C]; zeros fill the last patches."""
        return self.norm(self.proj(pad_grid(x, tf.constant(self.patch_size))))


@keras.saving.register_keras_serializable("vswin")
class PatchProjection(Layer):
    """Projects each patch of voxels: a convolution whose stride is its kernel, computed as one matrix product.

    TensorFlow's convolution takes 40 s for the gradient of one small batch in float16 on a CPU.

    Args:
        embed_dim: channels C of a token.
        patch_size: voxels per token (t, h, w).
    """

    use_bias = True

    def __init__(self, embed_dim: int, patch_size: Triple, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.patch_size = patch_size

    def build(self, input_shape: Any) -> None:
        """Creates the kernel, float32 [t, h, w, 3, C], and the bias, float32 [C]."""
        # Uniform within 1 / sqrt(fan_in): the official code leaves the convolution to PyTorch's default.
        initializer = keras.initializers.VarianceScaling(1 / 3, distribution="uniform")
        shape = (*self.patch_size, input_shape[-1], self.embed_dim)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        self.bias = self.add_weight(name="bias", shape=(self.embed_dim,), initializer="zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [B, T, H, W, 3], multiples of the patch, to [B, T/t, H/h, W/w, C]."""
        (t, h, w), channels = self.patch_size, x.shape[-1]
        B, T, H, W = (tf.shape(x)[axis] for axis in range(4))
        # Two transpositions of low rank: gather h rows of t frames, then w columns of these.
        x = tf.reshape(x, [B * (T // t), t, H // h, h, W * channels])  # [B*T/t, t, H/h, h, W*3]
        x = tf.transpose(x, [0, 2, 1, 3, 4])  # [B*T/t, H/h, t, h, W*3]
        x = tf.reshape(x, [-1, t * h, W // w, w * channels])  # [B*T/t*H/h, t*h, W/w, w*3]
        x = tf.transpose(x, [0, 2, 1, 3])  # [B*T/t*H/h, W/w, t*h, w*3]
        x = tf.reshape(x, [B, T // t, H // h, W // w, t * h * w * channels])  # [B, T/t, H/h, W/w, t*h*w*3]
        kernel = tf.reshape(self.kernel, [-1, self.embed_dim])  # [t*h*w*3, C]
        return tf.tensordot(x, kernel, axes=1) + self.bias  # [B, T/t, H/h, W/w, C]


@keras.saving.register_keras_serializable("vswin")
class PatchMerging(Layer):
    """Merges 2 x 2 neighbouring tokens of a frame into one of twice the channels.

    Args:
        dim: channels C of a token before merging.
        init_std: standard deviation of the initial kernels.
    Source: swin_transformer.py, PatchMerging.
    """

    def __init__(self, dim: int, init_std: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.init_std = init_std
        self.norm = layer_norm(self, "norm")
        self.reduction = dense(self, 2 * dim, "reduction", use_bias=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [B, T, H, W, C] to [B, T, ceil(H/2), ceil(W/2), 2C]."""
        x = pad_grid(x, tf.constant([1, 2, 2]))
        B, T, H, W = (tf.shape(x)[axis] for axis in range(4))
        # One transposition of low rank; channels have the order (row, column) = (0, 0), (1, 0), (0, 1), (1, 1).
        x = tf.reshape(x, [-1, 2, W, self.dim])  # [B*T*H/2, 2, W, C]
        x = tf.transpose(x, [0, 2, 1, 3])  # [B*T*H/2, W, 2, C]
        x = tf.reshape(x, [B, T, H // 2, W // 2, 4 * self.dim])  # [B, T, H/2, W/2, 4C]
        return self.reduction(self.norm(x))


@keras.saving.register_keras_serializable("vswin")
class WindowAttention3D(Layer):
    """Lets the tokens of each window attend to each other, with a learned bias per relative position.

    Bias and softmax are computed in float32 under every precision policy.

    Args:
        dim: channels C.
        num_heads: attention heads nH.
        window_size: full window (t, h, w); the bias table has a row for each difference of two positions.
        init_std: standard deviation of the initial kernels.
    Source: swin_transformer.py, WindowAttention3D.
    """

    def __init__(self, dim: int, num_heads: int, window_size: Triple, init_std: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.num_heads = num_heads
        self.window_size = window_size
        self.init_std = init_std
        self.qkv = dense(self, 3 * dim, "qkv")
        self.proj = dense(self, dim, "proj")

    def build(self, input_shape: Any) -> None:
        """Creates the bias table, float32 [(2Wt-1)*(2Wh-1)*(2Ww-1), nH]."""
        rows = math.prod(2 * extent - 1 for extent in self.window_size)
        self.relative_position_bias_table = self.add_weight(
            name="relative_position_bias_table",
            shape=(rows, self.num_heads),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, x: tf.Tensor, regions: tf.Tensor | None = None) -> tf.Tensor:
        """Attends within windows.

        Args:
            x: tokens [B*nW, N, C]; the windows of one sample are adjacent.
            regions: tokens of different regions do not attend to each other, int32 [nW, N]; None: all are in one.

        Returns:
            [B*nW, N, C].
        """
        qkv, bias = self.project(x)
        attended = attend(qkv, bias, regions)  # [B*nW, N, C]
        return tf.reshape(self.proj(as_rows(attended)), tf.shape(x))  # [B*nW, N, C]

    def project(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the inputs of `attention.attend` from tokens [B*nW, N, C].

        Returns:
            Queries, keys and values [B*nW, N, 3, nH, d], and the bias, float32 [nH, N, N].
        """
        num_tokens = tf.shape(x)[1]
        head_dim = self.dim // self.num_heads
        qkv = self.qkv(as_rows(x))  # [B*nW*N, 3*C]
        qkv = tf.reshape(qkv, [-1, num_tokens, 3, self.num_heads, head_dim])  # [B*nW, N, 3, nH, d]
        return qkv, expand_bias(self.relative_position_bias_table, self.window_size, num_tokens)


@keras.saving.register_keras_serializable("vswin")
class Mlp(Layer):
    """Applies two dense layers with an exact GELU between them to each token.

    Args:
        dim: channels C in and out.
        hidden_dim: channels between.
        init_std: standard deviation of the initial kernels.
    Source: swin_transformer.py, Mlp.
    """

    def __init__(self, dim: int, hidden_dim: int, init_std: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden_dim = hidden_dim
        self.init_std = init_std
        self.fc1 = dense(self, hidden_dim, "fc1")
        self.fc2 = dense(self, dim, "fc2")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [..., C] to [..., C]."""
        rows = self.fc2(gelu(self.fc1(as_rows(x))))  # [tokens, C]
        return tf.reshape(rows, tf.shape(x))  # [..., C]


@keras.saving.register_keras_serializable("vswin")
class SwinBlock3D(Layer):
    """Adds window attention, then an MLP, to the tokens; each branch normalises its input first.

    Args:
        dim: channels C.
        num_heads: attention heads nH.
        window_size: full window (t, h, w).
        mlp_ratio: hidden channels of the MLP as a multiple of C.
        init_std: standard deviation of the initial kernels.
    Source: swin_transformer.py, SwinTransformerBlock3D.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: Triple,
        mlp_ratio: float = 4.0,
        init_std: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        shared = {"init_std": init_std, "dtype": self.dtype_policy}
        self.dim = dim
        self.num_heads = num_heads
        self.window_size = window_size
        self.mlp_ratio = mlp_ratio
        self.init_std = init_std
        self.norm1 = layer_norm(self, "norm1")
        self.attn = WindowAttention3D(dim, num_heads, window_size, name="attn", **shared)
        self.norm2 = layer_norm(self, "norm2")
        self.mlp = Mlp(dim, int(dim * mlp_ratio), name="mlp", **shared)

    def call(self, x: tf.Tensor, windows: Windows, drop_path: tf.Tensor | None = None) -> tf.Tensor:
        """Runs both branches.

        Args:
            x: tokens [B, T, H, W, C].
            windows: how (T, H, W) is cut into windows, shifted or not.
            drop_path: multipliers of the two branches, float32 [B, 2]; None drops nothing.

        Returns:
            [B, T, H, W, C].
        """
        attended = self.attn(to_windows(self.norm1(x), windows), windows.regions)  # [B*nW, N, C]
        attended = from_windows(attended, windows, tf.shape(x))  # [B, T, H, W, C]
        x = x + _scale_samples(attended, drop_path, 0)
        return x + _scale_samples(self.mlp(self.norm2(x)), drop_path, 1)


def _scale_samples(x: tf.Tensor, multipliers: tf.Tensor | None, branch: int) -> tf.Tensor:
    """Multiplies each sample of [B, T, H, W, C] by its own number in multipliers [B, 2]."""
    if multipliers is None:
        return x
    return x * tf.cast(multipliers[:, branch, None, None, None, None], x.dtype)


@keras.saving.register_keras_serializable("vswin")
class LayerNorm(keras.layers.LayerNormalization):
    """Keras's layer normalisation of the last axis, in fewer passes over memory."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalises the channels of [..., C]."""
        rows = tf.reshape(x, [-1, x.shape[-1]])  # [tokens, C]
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        return tf.reshape(normalize_rows(rows, gamma, beta, self.epsilon), tf.shape(x))  # [..., C]


@keras.saving.register_keras_serializable("vswin")
class ClassificationHead(Layer):
    """Averages features over time and space and maps them to logits of K classes, in float32 under every policy.

    Source: Video-Swin-Transformer mmaction/models/heads/i3d_head.py, I3DHead.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        self.linear = keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32", name="linear")

    def call(self, features: tf.Tensor, training: bool = False, dropout: tf.Tensor | None = None) -> tf.Tensor:
        """Classifies features.

        Args:
            features: [B, T', H', W', 8C].
            training: whether `dropout` applies.
            dropout: multipliers of the averaged features, float32 [B, 8C]; None drops nothing.

        Returns:
            Logits, float32 [B, K].
        """
        pooled = tf.reduce_mean(tf.cast(features, tf.float32), axis=[1, 2, 3])  # [B, 8C]
        if training and dropout is not None:
            pooled *= dropout
        return self.linear(pooled)


def dense(owner: keras.layers.Layer, units: int, name: str, use_bias: bool = True) -> keras.layers.Dense:
    """Makes a dense layer inside `owner`, in its precision."""
    # The official distribution is truncated at +-2, a hundred standard deviations away: it is simply normal.
    initializer = keras.initializers.RandomNormal(stddev=owner.init_std)
    return keras.layers.Dense(
        units, use_bias=use_bias, kernel_initializer=initializer, dtype=owner.dtype_policy, name=name
    )


def layer_norm(owner: keras.layers.Layer, name: str) -> LayerNorm:
    """Makes a normalisation of the channels inside `owner`, in its precision."""
    return LayerNorm(epsilon=1e-5, dtype=owner.dtype_policy, name=name)


def as_rows(x: tf.Tensor) -> tf.Tensor:
    """Reshapes the tokens of [..., C] to one matrix, so that TensorFlow computes a product and its bias together.

    Float16 keeps its shape: on processors with AVX-512 FP16, oneDNN computes one matrix thirty times as slowly.
    """
    return x if x.dtype == tf.float16 else tf.reshape(x, [-1, x.shape[-1]])  # [tokens, C]
