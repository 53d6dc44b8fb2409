import numpy as np
import pytest
import tensorflow as tf

from vswin.models.layers import (
    ClassificationHead,
    Mlp,
    PatchEmbed3D,
    PatchMerging,
    PatchProjection,
    SwinBlock3D,
    WindowAttention3D,
)
from vswin.models.video_swin import Normalize, SwinStage, VideoSwinBackbone
from vswin.models.windows import plan_windows
from vswin.models.zoo import ModelSize
from vswin.runtime import set_precision

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4), patch_size=(2, 4, 2))
BLOCK = {"dim": 10, "num_heads": 5, "window_size": (2, 3, 4), "init_std": 0.3}
LAYERS = [
    (PatchEmbed3D, {"embed_dim": 6, "patch_size": (2, 4, 3)}),
    (PatchProjection, {"embed_dim": 6, "patch_size": (2, 4, 3)}),
    (WindowAttention3D, BLOCK),
    (Mlp, {"dim": 6, "hidden_dim": 9, "init_std": 0.3}),
    (SwinBlock3D, BLOCK | {"mlp_ratio": 2.0}),
    (PatchMerging, {"dim": 6, "init_std": 0.3}),
    (SwinStage, BLOCK | {"depth": 3, "mlp_ratio": 2.0, "is_last": True, "remat": True}),
    (VideoSwinBackbone, {"size": SIZE, "remat": True}),
    (ClassificationHead, {"num_classes": 7}),
    (Normalize, {}),
]


@pytest.mark.parametrize(("layer_class", "arguments"), LAYERS)
def test_a_layer_can_be_rebuilt_from_its_config(layer_class, arguments):
    layer = layer_class(**arguments, name="it", dtype="mixed_bfloat16")
    twin = layer_class.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    for key, value in arguments.items():
        assert getattr(twin, key) == value
    assert twin.dtype_policy.name == "mixed_bfloat16"


def test_initial_weights_follow_the_official_distributions():
    stage = SwinStage(64, 2, 4, (2, 2, 2), init_std=0.3)
    stage(tf.zeros([2, 2, 4, 6, 64]))
    kernels = [variable for variable in stage.trainable_variables if "kernel" in variable.name]
    assert len(kernels) == 2 * 4 + 1
    for kernel in kernels:
        assert float(tf.math.reduce_std(kernel)) == pytest.approx(0.3, rel=0.05)
    head, mlp = ClassificationHead(50), Mlp(64, 256)
    head(tf.zeros([2, 1, 1, 1, 100]))
    mlp(tf.zeros([2, 64]))
    for layer, std in ((head.linear, 0.01), (mlp.fc1, 0.02)):
        np.testing.assert_allclose(np.std(layer.kernel), std, rtol=0.05)
        assert not np.any(layer.bias)


def test_attention_equals_the_formula():
    layer = WindowAttention3D(6, 2, (2, 1, 2))
    x = np.random.default_rng(0).standard_normal((4, 4, 6)).astype("f4")
    regions = np.array([[0, 1, 1, 0], [2, 2, 2, 3]], "i4")
    layer(x, regions)
    layer.relative_position_bias_table.assign(np.arange(18.0).reshape(9, 2))
    ours = layer(x, regions).numpy()

    q, k, v = np.split(x @ layer.qkv.kernel.numpy(), 3, axis=-1)
    position = np.array([[t, w] for t in range(2) for w in range(2)])
    difference = position[:, None] - position[None] + 1
    expected = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        logits = q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(3)
        logits += 2.0 * (3 * difference[..., 0] + difference[..., 1]) + head
        logits += np.where(regions[:, :, None] == regions[:, None], 0, -100)[[0, 1, 0, 1]]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        expected.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    expected = np.concatenate(expected, -1) @ layer.proj.kernel.numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_the_gradient_of_a_bias_table_is_dense():
    layer = WindowAttention3D(6, 2, (2, 1, 2))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.random.normal([4, 4, 6])) ** 2)
    assert isinstance(tape.gradient(loss, layer.relative_position_bias_table), tf.Tensor)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_drop_path_multiplies_each_branch_of_each_sample(is_shifted):
    block = SwinBlock3D(10, 5, (2, 3, 4))
    x = tf.random.normal([2, 4, 5, 6, 10])
    windows = plan_windows(tf.constant([4, 5, 6]), (2, 3, 4), is_shifted)
    plain = block(x, windows)
    np.testing.assert_array_equal(block(x, windows, tf.ones([2, 2])), plain)
    np.testing.assert_array_equal(block(x, windows, tf.zeros([2, 2])), x)
    mixed = block(x, windows, tf.constant([[1.0, 1.0], [0.0, 2.0]]))
    np.testing.assert_allclose(mixed[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(mixed[1], x[1] + 2 * block.mlp(block.norm2(x))[1], atol=1e-6)


def test_second_block_of_a_stage_is_shifted():
    stage = SwinStage(4, 2, 2, (2, 2, 2), is_last=True)
    x = tf.random.normal([2, 2, 4, 6, 4])
    grid = tf.constant([2, 4, 6])
    expected = stage.blocks[0](x, plan_windows(grid, (2, 2, 2), is_shifted=False))
    expected = stage.blocks[1](expected, plan_windows(grid, (2, 2, 2), is_shifted=True))
    np.testing.assert_allclose(stage(x), expected, atol=1e-6)


def test_mlp_uses_the_exact_gelu():
    layer = Mlp(1, 1)
    layer(tf.zeros([2, 1]))
    layer.fc1.kernel.assign([[1.0]])
    layer.fc2.kernel.assign([[1.0]])
    np.testing.assert_allclose(layer(tf.constant([[-2.0], [3.0]])), [[-0.0455003], [2.9959503]], atol=1e-6)


@pytest.mark.parametrize("patch_size", [(2, 4, 4), (1, 2, 3), (2, 3, 1)])
def test_the_projection_is_a_convolution_in_values_and_gradients(patch_size):
    t, h, w = patch_size
    x = tf.random.stateless_normal([2, 2 * t, 3 * h, 5 * w, 3], seed=[0, 1])
    layer = PatchProjection(7, patch_size)
    layer(x)
    layer.bias.assign(np.arange(7.0))
    with tf.GradientTape() as tape:
        given = layer(x, training=True)
        loss = tf.reduce_sum(given**2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    with tf.GradientTape() as tape:
        expected = tf.nn.conv3d(x, layer.kernel, [1, *patch_size, 1], "VALID") + layer.bias
        loss = tf.reduce_sum(expected**2)
    assert given.shape == (2, 2, 3, 5, 7)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    for a, b in zip(gradients, tape.gradient(loss, layer.trainable_variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_projection_multiplies_in_low_precision(precision):
    set_precision(precision)
    layer = PatchProjection(7, (2, 4, 2))
    x = tf.random.stateless_normal([2, 4, 8, 4, 3], seed=[0, 1])
    assert layer(x).dtype.name == precision
    assert layer.kernel.dtype == tf.float32
    expected = tf.nn.conv3d(x, layer.kernel, [1, 2, 4, 2, 1], "VALID")
    np.testing.assert_allclose(tf.cast(layer(x), tf.float32), expected, atol=0.05)


def test_patch_embedding_fills_the_last_patches_with_zeros():
    layer = PatchEmbed3D(4, (2, 4, 4))
    x = tf.random.normal([2, 3, 5, 9, 3])
    whole = tf.pad(x, [[0, 0], [0, 1], [0, 3], [0, 3], [0, 0]])
    assert layer(x).shape == (2, 2, 2, 3, 4)
    np.testing.assert_array_equal(layer(x), layer(whole))


def test_merging_takes_neighbours_row_first():
    layer = PatchMerging(1)
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32).reshape(1, 1, 2, 3, 1).repeat(2, axis=0)
    layer.build(x.shape)
    neighbours = []
    layer.norm.call = lambda values: neighbours.append(values.numpy()) or values
    assert layer(x).shape == (2, 1, 1, 2, 2)
    # (0,0), (1,0), (0,1), (1,1) in (row, column); the padding column is zero.
    assert neighbours[0][1, 0, 0].tolist() == [[1, 4, 2, 5], [3, 6, 0, 0]]


def test_the_head_averages_then_drops_only_in_training_in_float32():
    head = ClassificationHead(3, dtype="mixed_float16")
    features = tf.random.normal([2, 2, 3, 4, 5])
    dropout = tf.constant([[0.0] * 5, [2.0] * 5])
    plain = head(features, training=False, dropout=dropout)
    assert plain.dtype == tf.float32
    pooled = tf.reduce_mean(tf.cast(tf.cast(features, tf.float16), tf.float32), axis=[1, 2, 3]).numpy()
    np.testing.assert_allclose(plain, pooled @ head.linear.kernel.numpy(), atol=1e-5)
    dropped = head(features, training=True, dropout=dropout)
    np.testing.assert_allclose(dropped[0], np.zeros(3), atol=1e-7)
    np.testing.assert_allclose(dropped[1], 2 * plain[1], atol=1e-6)
