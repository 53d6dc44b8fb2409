"""One stage of a Video Swin Transformer: the blocks of one resolution, and merging. Called by `video_swin`."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from vswin.models.layers import SwinBlock3D
from vswin.models.patches import PatchMerging
from vswin.models.windows import Windows, plan_windows
from vswin.models.zoo import Triple


@keras.saving.register_keras_serializable("vswin")
class SwinStage(keras.layers.Layer):
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
        """Runs the stage.

        Args:
            x: tokens [B, T, H, W, C].
            drop_path: multipliers of the branches, float32 [B, depth, 2], or None.

        Returns:
            [B, T, ceil(H/2), ceil(W/2), 2C], or [B, T, H, W, C] from the last stage.
        """
        x = self.run_blocks(x, drop_path)
        return x if self.downsample is None else self.downsample(x)

    def run_blocks(self, x: tf.Tensor, drop_path: tf.Tensor | None = None, num_blocks: int | None = None) -> tf.Tensor:
        """Runs the blocks without merging.

        Args:
            x: tokens [B, T, H, W, C].
            drop_path: multipliers of the branches, float32 [B, depth, 2], or None.
            num_blocks: how many blocks, from the first on; None: all.

        Returns:
            [B, T, H, W, C].
        """
        plans = self.plan_windows(x)
        for j, block in enumerate(self.blocks[:num_blocks]):
            x = self._run_block(block, x, plans[j % 2], None if drop_path is None else drop_path[:, j])
        return x

    def plan_windows(self, x: tf.Tensor) -> tuple[Windows, Windows]:
        """Plans the windows of tokens [B, T, H, W, C], for blocks of even index and, shifted, of odd index."""
        grid = tf.shape(x)[1:4]
        even, odd = (plan_windows(grid, self.window_size, is_shifted) for is_shifted in (False, True))
        return even, odd

    def _run_block(self, block: SwinBlock3D, x: tf.Tensor, windows: Windows, drop_path: tf.Tensor | None) -> tf.Tensor:
        def run(x: tf.Tensor) -> tf.Tensor:
            return block(x, windows, drop_path)

        return tf.recompute_grad(run)(x) if self.remat else run(x)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "window_size": self.window_size,
            "mlp_ratio": self.mlp_ratio,
            "init_std": self.init_std,
            "is_last": self.is_last,
            "remat": self.remat,
        }
