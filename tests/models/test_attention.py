"""Attention in chunks of a few windows equals attention in all windows at once, gradients included."""

import numpy as np
import pytest
import tensorflow as tf

from vswin.models import attention
from vswin.models.attention import attend, chunk_size

HEADS, TOKENS, CHANNELS, WINDOWS = 2, 5, 3, 6
REGIONS = tf.constant(np.random.default_rng(1).integers(0, 8, [WINDOWS, TOKENS]), tf.int32)


def formula(qkv: np.ndarray, bias: np.ndarray, regions: np.ndarray | None) -> np.ndarray:
    """Attends head by head and window by window, as the paper writes it."""
    attended = np.zeros([*qkv.shape[:2], HEADS, CHANNELS])
    for window, head in np.ndindex(len(qkv), HEADS):
        q, k, v = (qkv[window, :, part, head] for part in range(3))
        logits = q @ k.T / np.sqrt(CHANNELS) + bias[head]
        if regions is not None:
            region = regions[window % WINDOWS].numpy()
            logits = logits + np.where(region[:, None] == region, 0, -100)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        attended[window, :, head] = weights / weights.sum(axis=1, keepdims=True) @ v
    return attended.reshape(*qkv.shape[:2], -1)


def draw(num_tokens: int = TOKENS) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal([2 * WINDOWS, num_tokens, 3, HEADS, CHANNELS]).astype("f4")
    return tf.constant(qkv), tf.constant(rng.standard_normal([HEADS, num_tokens, num_tokens]).astype("f4"))


def differentiate(qkv, bias, regions) -> list[np.ndarray]:
    """Returns the attended values, and the gradients of all inputs for weights that differ everywhere."""
    with tf.GradientTape() as tape:
        tape.watch((qkv, bias))
        attended = attend(qkv, bias, regions)
        weights = tf.reshape(tf.range(tf.size(attended)), tf.shape(attended)) % 7
        total = tf.reduce_sum(tf.cast(attended, tf.float32) * tf.cast(weights, tf.float32))
    return [attended, *tape.gradient(total, (qkv, bias))]


def has_loop(shape: list[int | None]) -> bool:
    @tf.function(autograph=False)
    def run(qkv):
        return attend(qkv, tf.zeros([HEADS, TOKENS, TOKENS]), REGIONS)

    graph = run.get_concrete_function(tf.TensorSpec(shape)).graph
    return any("While" in operation.type for operation in graph.get_operations())


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["unshifted", "shifted"])
@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_the_formula(limit, regions, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_LOGITS", limit)
    qkv, bias = draw()
    np.testing.assert_allclose(attend(qkv, bias, regions), formula(qkv.numpy(), bias.numpy(), regions), atol=1e-6)


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["unshifted", "shifted"])
@pytest.mark.parametrize("mode", ["eager", "graph", "XLA"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2**-5), ("float16", 2**-8)])
def test_chunks_change_neither_values_nor_gradients(dtype, tolerance, mode, regions, monkeypatch):
    qkv, bias = draw()
    qkv = tf.cast(qkv, dtype)
    graph = tf.function(differentiate, autograph=False, jit_compile=mode == "XLA")
    run = differentiate if mode == "eager" else graph
    whole = differentiate(qkv, bias, regions)
    monkeypatch.setattr(attention, "CHUNK_LOGITS", 3 * HEADS * TOKENS**2)
    assert chunk_size(qkv.shape, WINDOWS) == 3
    for ours, expected in zip(run(qkv, bias, regions), whole, strict=True):
        assert ours.dtype == expected.dtype
        expected = tf.cast(expected, tf.float32).numpy()
        np.testing.assert_allclose(tf.cast(ours, tf.float32), expected, atol=tolerance * np.abs(expected).max())


def test_nothing_as_large_as_all_logits_is_kept_for_the_gradient(monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_LOGITS", HEADS * 40**2)
    qkv, bias = draw(40)
    regions = tf.zeros([WINDOWS, 40], tf.int32)
    graph = tf.function(differentiate, autograph=False).get_concrete_function(qkv, bias, regions).graph
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    shapes = [tf.TensorShape(shape) for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    sizes = [shape.num_elements() or 0 for shape in shapes]
    assert qkv.shape.num_elements() in sizes
    assert HEADS * 40**2 in sizes
    assert max(sizes) < len(qkv) * HEADS * 40**2 / 2


@pytest.mark.parametrize(
    ("shape", "num_windows", "limit", "expected"),
    [
        ([128, 392, 3, 3, 32], 128, 1 << 20, 2),  # the first block of Swin-T: 461,000 logits per window
        ([24, 10, 3, 2, 4], 24, 1_700, 8),
        ([24, 10, 3, 2, 4], 12, 1_700, 6),  # two samples of 12 windows: a chunk stays inside one sample
        ([7, 10, 3, 2, 4], 7, 1_300, 1),
        ([7, 10, 3, 2, 4], 7, 100, 1),  # one window alone exceeds the limit
        ([7, 10, 3, 2, 4], 7, 1_400, None),
        ([7, 10, 3, 2, 4], None, 100, None),
        ([None, 10, 3, 2, 4], 7, 100, None),
        ([7, None, 3, 2, 4], 7, 100, None),
    ],
)
def test_chunks_are_as_large_as_the_limit_and_the_number_of_windows_allow(
    shape, num_windows, limit, expected, monkeypatch
):
    monkeypatch.setattr(attention, "CHUNK_LOGITS", limit)
    assert chunk_size(tf.TensorShape(shape), num_windows) == expected


def test_only_graphs_of_known_and_large_shapes_have_a_loop(monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_LOGITS", 100)
    assert has_loop([6, TOKENS, 3, HEADS, CHANNELS])
    assert not has_loop([None, TOKENS, 3, HEADS, CHANNELS])
    monkeypatch.setattr(attention, "CHUNK_LOGITS", 6 * HEADS * TOKENS**2)
    assert not has_loop([6, TOKENS, 3, HEADS, CHANNELS])


def test_gpus_get_all_windows_at_once(monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_LOGITS", 100)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert not has_loop([6, TOKENS, 3, HEADS, CHANNELS])
