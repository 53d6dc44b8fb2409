"""Official names of our variables, and the layout behind each.

Both directions follow the objects of the model, never the names Keras gives to variables, which change with
scopes. Used by `load`, by checkpoints, and by the optimizer to form its parameter groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras as keras

    from vswin.models.layers import SwinBlock3D
    from vswin.models.video_swin import VideoSwin

HEAD_PREFIX = "cls_head.fc_cls"

# Axes of a kernel: ours [in, out] and [t, h, w, in, out]; official [out, in] and [out, in, t, h, w].
_TO_OFFICIAL = {2: (1, 0), 5: (4, 3, 0, 1, 2)}
_FROM_OFFICIAL = {2: (1, 0), 5: (2, 3, 4, 1, 0)}


def named_weights(model: VideoSwin) -> dict[str, tf.Variable]:
    """Maps the official name of each weight to our variable, in the order of the official state dict.

    Args:
        model: a model whose variables exist.

    Returns:
        Every trainable variable exactly once; buffers such as `relative_position_index` have no counterpart.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, names of its modules.
    """
    return dict(_walk_model(model))


def official_tensors(model: VideoSwin) -> dict[str, np.ndarray]:
    """Copies the weights of a model into official names and layout, as checkpoints hold them."""
    return {name: to_official(name, variable.numpy()) for name, variable in named_weights(model).items()}


def to_official(name: str, array: np.ndarray) -> np.ndarray:
    """Changes our layout of the weight called `name` into the official one."""
    return _transpose(name, array, _TO_OFFICIAL)


def from_official(name: str, array: np.ndarray) -> np.ndarray:
    """Changes the official layout of the weight called `name` into ours."""
    return _transpose(name, array, _FROM_OFFICIAL)


def _transpose(name: str, array: np.ndarray, axes: dict[int, tuple[int, ...]]) -> np.ndarray:
    """Transposes kernels; norms, biases and bias tables are laid out alike on both sides."""
    is_kernel = name.endswith(".weight") and array.ndim in axes
    return np.transpose(array, axes[array.ndim]) if is_kernel else array  # [out, in, ...] or [..., in, out]


def _walk_model(model: VideoSwin) -> Iterator[tuple[str, tf.Variable]]:
    backbone = model.backbone
    yield from _walk_kernel("backbone.patch_embed.proj", backbone.patch_embed.proj)
    yield from _walk_norm("backbone.patch_embed.norm", backbone.patch_embed.norm)
    for i, stage in enumerate(backbone.stages):
        for j, block in enumerate(stage.blocks):
            yield from _walk_block(f"backbone.layers.{i}.blocks.{j}", block)
        if stage.downsample is not None:
            yield from _walk_kernel(f"backbone.layers.{i}.downsample.reduction", stage.downsample.reduction)
            yield from _walk_norm(f"backbone.layers.{i}.downsample.norm", stage.downsample.norm)
    yield from _walk_norm("backbone.norm", backbone.norm)
    yield from _walk_kernel(HEAD_PREFIX, model.head.linear)


def _walk_block(prefix: str, block: SwinBlock3D) -> Iterator[tuple[str, tf.Variable]]:
    yield from _walk_norm(f"{prefix}.norm1", block.norm1)
    yield f"{prefix}.attn.relative_position_bias_table", block.attn.relative_position_bias_table
    yield from _walk_kernel(f"{prefix}.attn.qkv", block.attn.qkv)
    yield from _walk_kernel(f"{prefix}.attn.proj", block.attn.proj)
    yield from _walk_norm(f"{prefix}.norm2", block.norm2)
    yield from _walk_kernel(f"{prefix}.mlp.fc1", block.mlp.fc1)
    yield from _walk_kernel(f"{prefix}.mlp.fc2", block.mlp.fc2)


def _walk_kernel(prefix: str, layer: keras.layers.Layer) -> Iterator[tuple[str, tf.Variable]]:
    """Names the variables of a dense layer or a convolution."""
    yield f"{prefix}.weight", layer.kernel
    if layer.use_bias:
        yield f"{prefix}.bias", layer.bias


def _walk_norm(prefix: str, layer: keras.layers.LayerNormalization) -> Iterator[tuple[str, tf.Variable]]:
    yield f"{prefix}.weight", layer.gamma
    yield f"{prefix}.bias", layer.beta
