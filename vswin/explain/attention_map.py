"""Compute the attention map of a token: its attention to each token of its window, averaged over heads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vswin.errors import InputError
from vswin.explain.grad_cam import block_input, find_extents, normalize, spread
from vswin.models.attention import attention_weights
from vswin.models.video_swin import SwinStage, VideoSwin
from vswin.models.windows import to_windows
from vswin.models.zoo import Triple


class AttentionMap(NamedTuple):
    """The attention of a token to the tokens of its window.

    Attributes:
        weights: Attention to each token of the grid, float32 [B, T', H', W']; 0 outside the window. The sum is 1 minus
            the attention to padding tokens.
        token: Position of the token in the grid.
        extents: Frames, rows and columns that a token covers.
    """

    weights: np.ndarray
    token: Triple
    extents: Triple

    def spread(self, shape: Triple) -> np.ndarray:
        """Spreads the weights, divided by the largest one, over a clip (T, H, W): float32 [B, T, H, W] in [0, 1]."""
        return spread(normalize(self.weights), shape, self.extents)


def find_attention_map(
    model: VideoSwin, clips: np.ndarray, stage: int, block: int, position: Triple | None = None
) -> AttentionMap:
    """Computes the attention map of a token in one block, for clips uint8 [B, T, H, W, 3] RGB.

    Stages, and blocks within a stage, count from 1; even blocks have shifted windows. `position` is a frame, row and
    column of the clip that the token covers, counted from 0; None takes the middle.

    Raises:
        InputError: if the stage, block or position does not exist.
        TypeError: if the clips are not uint8.
    """
    extents = find_extents(model.size, stage)
    depth = model.size.depths[stage - 1]
    if not 1 <= block <= depth:
        raise InputError(f"block {block}: stage {stage} of the model has the blocks 1 to {depth}")
    shape = clips.shape[1:4]
    frame, row, column = (extent // 2 for extent in shape) if position is None else position
    if not all(0 <= index < extent for index, extent in zip((frame, row, column), shape, strict=True)):
        raise InputError(
            f"position {frame},{row},{column}: frame, row and column count from 0, and the clip has "
            f"{' x '.join(map(str, shape))}"
        )
    token = (frame // extents[0], row // extents[1], column // extents[2])
    x = block_input(model, tf.constant(clips), stage, block)  # [B, T', H', W', C]
    return AttentionMap(_attend(model.backbone.stages[stage - 1], block, x, token), token, extents)


def _attend(stage: SwinStage, block: int, x: tf.Tensor, token: Triple) -> np.ndarray:
    """Computes the attention, float32 [B, T', H', W'], of one token to all tokens of x, [B, T', H', W', C]."""
    windows = stage.plan_windows(x)[(block - 1) % 2]
    own_block = stage.blocks[block - 1]
    grid, size = np.array(x.shape[1:4]), windows.size.numpy()
    padded = grid + -grid % size
    num_tokens = int(size.prod())
    # Only the window of the token is computed.
    window, number = divmod(int(windows.inverse[np.ravel_multi_index(token, padded)]), num_tokens)
    cut = to_windows(own_block.norm1(x), windows)  # [B*nW, N, C]
    cut = tf.reshape(cut, [x.shape[0], -1, num_tokens, x.shape[-1]])[:, window]  # [B, N, C]
    qkv, bias = own_block.attn.project(cut)  # [B, N, 3, nH, d], [nH, N, N]
    q, k, _ = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # each [B, nH, N, d]
    regions = None if windows.regions is None else windows.regions[window : window + 1]  # [1, N]
    weights = attention_weights(q, k, bias, regions)[:, :, number]  # [B, nH, N]
    weights = tf.reduce_mean(tf.cast(weights, tf.float32), axis=1)  # [B, N]
    padded_map = np.zeros([x.shape[0], int(padded.prod())], np.float32)
    padded_map[:, windows.order[window * num_tokens : (window + 1) * num_tokens].numpy()] = weights.numpy()
    frames, rows, columns = grid.tolist()
    return padded_map.reshape(-1, *padded)[:, :frames, :rows, :columns]  # [B, T', H', W']
