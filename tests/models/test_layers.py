import numpy as np
import pytest
import tensorflow as tf

from vswin.models.head import ClassificationHead
from vswin.models.layers import Mlp, SwinBlock3D, WindowAttention3D
from vswin.models.patches import PatchEmbed3D, PatchMerging, PatchProjection
from vswin.models.stage import SwinStage
from vswin.models.video_swin import Normalize, VideoSwinBackbone
from vswin.models.windows import plan_windows
from vswin.models.zoo import ModelSize

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4), patch_size=(2, 4, 2))
LAYERS = [
    (PatchEmbed3D, {"embed_dim": 6, "patch_size": (2, 4, 3)}),
    (PatchProjection, {"embed_dim": 6, "patch_size": (2, 4, 3)}),
    (WindowAttention3D, {"dim": 10, "num_heads": 5, "window_size": (2, 3, 4), "init_std": 0.3}),
    (Mlp, {"dim": 6, "hidden_dim": 9, "init_std": 0.3}),
    (SwinBlock3D, {"dim": 10, "num_heads": 5, "window_size": (2, 3, 4), "mlp_ratio": 2.0, "init_std": 0.3}),
    (PatchMerging, {"dim": 6, "init_std": 0.3}),
    (
        SwinStage,
        {
            "dim": 10,
            "depth": 3,
            "num_heads": 5,
            "window_size": (2, 3, 4),
            "mlp_ratio": 2.0,
            "init_std": 0.3,
            "is_last": True,
            "remat": True,
        },
    ),
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


def test_init_std_reaches_every_kernel_of_a_stage():
    stage = SwinStage(64, 2, 4, (2, 2, 2), init_std=0.3)
    stage(tf.zeros([2, 2, 4, 6, 64]))
    kernels = [variable for variable in stage.trainable_variables if "kernel" in variable.name]
    assert len(kernels) == 2 * 4 + 1
    for kernel in kernels:
        assert float(tf.math.reduce_std(kernel)) == pytest.approx(0.3, rel=0.05)


def test_attention_equals_the_formula():
    layer = WindowAttention3D(6, 2, (2, 1, 2))
    x = np.random.default_rng(0).standard_normal((4, 4, 6)).astype("f4")
    regions = np.array([[0, 1, 1, 0], [2, 2, 2, 3]], "i4")
    layer(x, regions)
    layer.relative_position_bias_table.assign(np.arange(18.0).reshape(9, 2))
    assert layer.relative_position_bias_table.shape == (9, 2)
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


def test_table_keeps_its_size_and_config_when_windows_shrink():
    layer = WindowAttention3D(6, 2, (8, 7, 7))
    layer(tf.zeros([2, 4 * 7 * 7, 6]))
    assert layer.relative_position_bias_table.shape == (15 * 13 * 13, 2)
    assert layer.get_config()["window_size"] == (8, 7, 7)


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


def test_initial_weights_follow_the_official_distributions():
    layer = SwinBlock3D(64, 4, (2, 3, 4))
    layer(tf.zeros([2, 2, 3, 4, 64]), plan_windows(tf.constant([2, 3, 4]), (2, 3, 4), is_shifted=False))
    np.testing.assert_allclose(np.std(layer.mlp.fc1.kernel), 0.02, rtol=0.05)
    assert np.abs(layer.mlp.fc1.kernel).max() > 0.05
    assert not np.any(layer.mlp.fc1.bias)
