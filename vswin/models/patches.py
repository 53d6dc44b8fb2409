"""Patch embedding (voxels to tokens) and patch merging (stage to stage). Called by `video_swin` and `stage`."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.models.layers import dense, layer_norm
from vswin.models.windows import pad_grid
from vswin.models.zoo import Triple


@keras.saving.register_keras_serializable("vswin")
class PatchEmbed3D(keras.layers.Layer):
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

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "embed_dim": self.embed_dim, "patch_size": self.patch_size}


@keras.saving.register_keras_serializable("vswin")
class PatchProjection(keras.layers.Layer):
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

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "embed_dim": self.embed_dim, "patch_size": self.patch_size}


@keras.saving.register_keras_serializable("vswin")
class PatchMerging(keras.layers.Layer):
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

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "dim": self.dim, "init_std": self.init_std}
