"""The weights shown are the block's attention weights, mapped back from shifted and padded windows."""

import itertools

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.explain.attention_map import find_attention_map
from vswin.models.attention import attend
from vswin.models.windows import from_windows, to_windows


@pytest.mark.parametrize("block", [1, 2], ids=["unshifted", "shifted"])
def test_weights_times_values_are_what_the_block_attends_to(model, clips, block):
    """In the first stage, whose only head is the average of all heads."""
    stage = model.backbone.stages[0]
    x = stage.run_blocks(model.backbone.patch_embed(model.normalize(clips)), num_blocks=block - 1)  # [2, 5, 19, 11, 8]
    windows, own = stage.plan_windows(x)[block - 1], stage.blocks[block - 1]
    qkv, bias = own.attn.project(to_windows(own.norm1(x), windows))  # [B*nW, N, 3, 1, 8]
    attended = from_windows(attend(qkv, bias, windows.regions), windows, np.array(x.shape)).numpy()
    kernel, offset = (weight.numpy()[..., 16:] for weight in (own.attn.qkv.kernel, own.attn.qkv.bias))
    values = own.norm1(x).numpy() @ kernel + offset  # [2, 5, 19, 11, 8]
    corners = itertools.product((0, 2, 4), (0, 9, 17, 18), (0, 5, 10))
    for t, h, w in corners:
        attention = find_attention_map(model, clips, 1, block, (min(2 * t, 8), 4 * h + 3, 4 * w))
        assert attention.token == (t, h, w)
        # A padding token is all zeros, so its value is the offset.
        rest = 1 - attention.weights.sum(axis=(1, 2, 3))
        found = np.einsum("bthw,bthwc->bc", attention.weights, values) + rest[:, None] * offset
        np.testing.assert_allclose(found, attended[:, t, h, w], rtol=1e-4, atol=1e-4)


def test_heads_are_averaged_and_no_token_attends_beyond_its_window(model, clips):
    # The third stage has 5 x 5 x 3 tokens; windows have 4 x 3 x 3.
    attention = find_attention_map(model, clips, 3, 1, (0, 0, 0))
    assert attention.weights.shape == (2, 5, 5, 3)
    np.testing.assert_allclose(attention.weights.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert (attention.weights[:, :4, :3] > 0).all()
    assert not attention.weights[:, 4:].any()
    assert not attention.weights[:, :, 3:].any()
    # Shifted by 2, 1 and 0 (as the window covers all columns): frames 2 to 5, rows 1 to 3.
    shifted = find_attention_map(model, clips, 3, 2, (4, 16, 0)).weights
    assert shifted[:, 2:, 1:4].min() > 0
    assert not shifted[:, :2].any()
    # Tokens rolled in from the other end are masked.
    wrapped = find_attention_map(model, clips, 3, 2, (0, 0, 0)).weights
    assert (wrapped[:, :2, :1] > 0).all()
    assert max(wrapped[:, 2:].max(), wrapped[:, :, 1:].max()) < 1e-30


def test_the_middle_is_the_default_and_the_greatest_weight_is_one(model, clips):
    attention = find_attention_map(model, clips, 2, 1)
    assert (attention.token, attention.extents) == ((2, 4, 2), (2, 8, 8))
    spread = attention.spread((9, 76, 44))
    assert spread.shape == (2, 9, 76, 44)
    np.testing.assert_array_equal(spread.max(axis=(1, 2, 3)), 1)
    # All pixels of a token have the same value.
    np.testing.assert_array_equal(
        spread[:, 4:6, 32:40, 16:24], np.broadcast_to(spread[:, 4:5, 32:33, 16:17], (2, 2, 8, 8))
    )


@pytest.mark.parametrize(
    ("stage", "block", "position", "words"),
    [
        (5, 1, None, "stage 5: the model has the stages 1 to 4"),
        (2, 3, None, "block 3: stage 2 of the model has the blocks 1 to 2"),
        (2, 0, None, "block 0"),
        (1, 1, (9, 0, 0), "position 9,0,0: .* the clip has 9 x 76 x 44"),
        (1, 1, (0, -1, 0), "position 0,-1,0"),
    ],
)
def test_what_is_refused(model, clips, stage, block, position, words):
    with pytest.raises(InputError, match=words):
        find_attention_map(model, clips, stage, block, position)
