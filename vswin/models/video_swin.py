"""The Video Swin Transformer: clips in, logits out.

`VideoSwin` chains `normalize`, `backbone` and `head`; each can be called by itself. Built by `vswin.weights.build`.
"""

import dataclasses
import functools
from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.errors import InputError
from vswin.models.draws import Draws, make_draws
from vswin.models.layers import ClassificationHead, Layer, PatchEmbed3D, PatchMerging, SwinBlock3D, layer_norm
from vswin.models.windows import Windows, plan_windows
from vswin.models.zoo import ModelSize, Triple

# Per channel R, G, B, on the scale 0..255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@keras.saving.register_keras_serializable("vswin")
class Normalize(keras.layers.Layer):
    """Normalises uint8 pixels to mean 0 and variance 1, approximately.

    Source: Video-Swin-Transformer mmaction/datasets/pipelines/augmentations.py, Normalize.
    """

    def call(self, clips: tf.Tensor) -> tf.Tensor:
        """Normalises RGB clips, uint8 [B, T, H, W, 3], in float32, then casts to the compute dtype of the layer.

        Raises:
            TypeError: if the clips are not uint8.
            InputError: if their shape is not [B, T, H, W, 3].
        """
        if clips.dtype != tf.uint8:
            raise TypeError(f"clips must be uint8 RGB in 0..255, not {clips.dtype.name}")
        if clips.shape.rank != 5 or clips.shape[-1] not in (3, None):
            raise InputError(f"clips must have the shape [B, T, H, W, 3], not {clips.shape}")
        scale = tf.constant([1 / std for std in STD], tf.float32)
        return tf.cast((tf.cast(clips, tf.float32) - MEAN) * scale, self.compute_dtype)


@keras.saving.register_keras_serializable("vswin")
class SwinStage(Layer):
    """Runs the blocks of one resolution, every second one on shifted windows, then merges patches.

    Args:
        dim: channels C.
        depth: number of blocks.
        num_heads: attention heads nH.
        window_size: full window (t, h, w).
        mlp_ratio: hidden channels of an MLP as a multiple of C.
        init_std: standard deviation of the initial kernels.
        is_last: whether this is the last stage, which does not merge.
        remat: whether the gradient recomputes each block instead of keeping its intermediate results.
    Source: swin_transformer.py, BasicLayer.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        window_size: Triple,
        mlp_ratio: float = 4.0,
        init_std: float = 0.02,
        is_last: bool = False,
        remat: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.depth = depth
        self.num_heads = num_heads
        self.window_size = window_size
        self.mlp_ratio = mlp_ratio
        self.init_std = init_std
        self.is_last = is_last
        self.remat = remat
        shared = {"init_std": init_std, "dtype": self.dtype_policy}
        self.blocks = [
            SwinBlock3D(dim, num_heads, window_size, mlp_ratio, name=f"block{j}", **shared) for j in range(depth)
        ]
        self.downsample = None if is_last else PatchMerging(dim, name="downsample", **shared)

    def call(self, x: tf.Tensor, drop_path: tf.Tensor | None = None) -> tf.Tensor:
        """Maps tokens [B, T, H, W, C] to [B, T, ceil(H/2), ceil(W/2), 2C], or [B, T, H, W, C] in the last stage.

        `drop_path` are multipliers of the branches, float32 [B, depth, 2]; None drops nothing.
        """
        x = self.run_blocks(x, drop_path)
        return x if self.downsample is None else self.downsample(x)

    def run_blocks(self, x: tf.Tensor, drop_path: tf.Tensor | None = None, num_blocks: int | None = None) -> tf.Tensor:
        """Runs the first `num_blocks` blocks, or all, without merging; tokens stay [B, T, H, W, C]."""
        plans = self.plan_windows(x)
        for j, block in enumerate(self.blocks[:num_blocks]):
            multipliers = None if drop_path is None else drop_path[:, j]  # [B, 2]
            run = functools.partial(block.__call__, windows=plans[j % 2], drop_path=multipliers)
            x = tf.recompute_grad(run)(x) if self.remat else run(x)
        return x

    def plan_windows(self, x: tf.Tensor) -> tuple[Windows, Windows]:
        """Plans the windows of tokens [B, T, H, W, C], for blocks of even index and, shifted, of odd index."""
        grid = tf.shape(x)[1:4]
        even, odd = (plan_windows(grid, self.window_size, is_shifted) for is_shifted in (False, True))
        return even, odd


@keras.saving.register_keras_serializable("vswin")
class VideoSwinBackbone(Layer):
    """Embeds patches, runs all stages and normalises the result.

    Args:
        size: the network, as a `ModelSize` or its fields.
        remat: whether the gradient recomputes each block instead of keeping its intermediate results: same numbers,
            less memory, more time.
    Source: swin_transformer.py, SwinTransformer3D.
    """

    def __init__(self, size: ModelSize | dict[str, Any], remat: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size if isinstance(size, ModelSize) else ModelSize.from_fields(size)
        self.remat = remat
        self.patch_embed = PatchEmbed3D(
            self.size.embed_dim, self.size.patch_size, dtype=self.dtype_policy, name="patch_embed"
        )
        sizes = zip(self.size.stage_dims, self.size.depths, self.size.num_heads, strict=True)
        self.stages = [
            SwinStage(
                *sizes_of_stage,
                self.size.window_size,
                self.size.mlp_ratio,
                self.size.init_std,
                is_last=i == len(self.size.depths) - 1,
                remat=remat,
                dtype=self.dtype_policy,
                name=f"stage{i}",
            )
            for i, sizes_of_stage in enumerate(sizes)
        ]
        self.norm = layer_norm(self, "norm")

    def call(self, x: tf.Tensor, training: bool = False, drop_path: tf.Tensor | None = None) -> tf.Tensor:
        """Computes features.

        Args:
            x: normalised clips [B, T, H, W, 3], any T, H and W.
            training: whether `drop_path` applies.
            drop_path: multipliers of the branches, float32 [B, blocks, 2]; None drops nothing.

        Returns:
            [B, T/2, H/32, W/32, 8C] in the compute dtype, each extent rounded up.
        """
        x = self.patch_embed(x)
        per_stage = [None] * len(self.stages)
        if training and drop_path is not None:
            per_stage = tf.split(drop_path, self.size.depths, axis=1)  # each [B, depth, 2]
        for stage, multipliers in zip(self.stages, per_stage, strict=True):
            x = stage(x, multipliers)
        return self.norm(x)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": dataclasses.asdict(self.size)}


@keras.saving.register_keras_serializable("vswin")
class VideoSwin(keras.Model):
    """Classifies clips: `normalize`, then `backbone`, then `head`.

    Args:
        size: the network, as a `ModelSize` or its fields.
        num_classes: classes K.
        dropout: rate on the averaged features before the head, in [0, 1).
        remat: whether training trades time for memory, see `VideoSwinBackbone`.

    Raises:
        InputError: if there is no class, or the rate is out of range.
    """

    # Metadata of the weights, see `vswin.build_model`.
    class_names: list[str] | None = None
    clip: dict[str, Any] | None = None

    def __init__(
        self,
        size: ModelSize | dict[str, Any],
        num_classes: int,
        dropout: float = 0.5,
        remat: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise InputError(f"num_classes={num_classes} must be at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout} must be in [0, 1)")
        self.num_classes = num_classes
        self.dropout = dropout
        self.normalize = Normalize(dtype=self.dtype_policy, name="normalize")
        self.backbone = VideoSwinBackbone(size, remat, dtype=self.dtype_policy, name="backbone")
        self.head = ClassificationHead(num_classes, dtype="float32", name="head")

    @property
    def size(self) -> ModelSize:
        """Gives the size of the network."""
        return self.backbone.size

    def build(self, input_shape: Any = None) -> None:
        """Creates all variables; their shapes do not depend on the clips."""
        self.call(tf.zeros([1, *self.size.patch_size, 3], tf.uint8))
        self.built = True

    def call(self, clips: tf.Tensor, training: bool = False, draws: Draws | None = None) -> tf.Tensor:
        """Classifies clips.

        Args:
            clips: uint8 [B, T, H, W, 3], RGB, any T, H and W.
            training: whether drop path and dropout apply.
            draws: their multipliers; None draws new ones.

        Returns:
            Logits, float32 [B, K].

        Raises:
            TypeError: if the clips are not uint8.
            InputError: if their shape is not [B, T, H, W, 3].
        """
        return self.classify(self.normalize(clips), training, draws)

    def classify(self, x: tf.Tensor, training: bool = False, draws: Draws | None = None) -> tf.Tensor:
        """Classifies clips as `call` does, but after `normalize`: a training step mixes them in between."""
        if not training:
            return self.head(self.backbone(x))
        if draws is None:
            seed = tf.random.uniform([], maxval=tf.int32.max, dtype=tf.int32)
            batch_size = tf.shape(x)[0]
            draws = self.make_draws(seed, 0, tf.range(batch_size), batch_size)
        features = self.backbone(x, training=True, drop_path=draws.drop_path)
        return self.head(features, training=True, dropout=draws.dropout)

    def features(self, clips: tf.Tensor) -> tf.Tensor:
        """Computes the features of uint8 clips [B, T, H, W, 3]: float32 [B, T/2, H/32, W/32, 8C]."""
        return tf.cast(self.backbone(self.normalize(clips)), tf.float32)

    def make_draws(
        self, seed: tf.Tensor | int, step: tf.Tensor | int, positions: tf.Tensor, global_batch_size: tf.Tensor | int
    ) -> Draws:
        """Draws the multipliers of a training step; see `vswin.models.draws.make_draws`."""
        return make_draws(seed, step, positions, global_batch_size, self.size, self.dropout)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {
            "size": dataclasses.asdict(self.size),
            "num_classes": self.num_classes,
            "dropout": self.dropout,
            "remat": self.backbone.remat,
        }
        return {"name": self.name, "dtype": self.dtype_policy.name, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VideoSwin":
        """Rebuilds a model with its variables, so that Keras can load a saved one into them."""
        model = cls(**config)
        model.build()
        return model
