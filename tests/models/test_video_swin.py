import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from vswin.errors import InputError
from vswin.models.draws import Draws
from vswin.models.video_swin import VideoSwin
from vswin.models.zoo import ModelSize

SIZE = ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 4), drop_path_rate=0.5)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    model = VideoSwin(SIZE, num_classes=5)
    model.build()
    return model


def make_clips(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("extents", [(8, 32, 48), (7, 33, 21), (1, 1, 1), (3, 50, 70)])
def test_any_extents(model, extents):
    clips = make_clips(2, *extents)
    logits, features = model(clips), model.features(clips)
    assert logits.shape == (2, 5)
    grid = [-(-extent // part) for extent, part in zip(extents, (2, 8, 8), strict=True)]
    assert features.shape == (2, *grid, 16)
    assert logits.dtype == features.dtype == tf.float32
    np.testing.assert_allclose(logits, model.head(features), atol=1e-6)


def test_normalization_is_per_channel_in_rgb_order(model):
    clips = np.stack([np.zeros((2, 4, 4, 3)), np.full((2, 4, 4, 3), (255, 1, 2))]).astype(np.uint8)
    normalized = model.normalize(clips)
    np.testing.assert_allclose(normalized[0, 0, 0, 0], [-2.117904, -2.035714, -1.804444], rtol=1e-6)
    np.testing.assert_allclose(normalized[1, 1, 2, 3], [2.248908, -2.018207, -1.769586], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.float16, np.int8])
def test_other_dtypes_are_refused(model, dtype):
    with pytest.raises(TypeError, match="uint8"):
        model(np.zeros((2, 4, 8, 8, 3), dtype))
    with pytest.raises(TypeError, match="uint8"):
        model.features(np.zeros((2, 4, 8, 8, 3), dtype))


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (2, 4, 8, 8, 1), (2, 3, 4, 8, 8), (1, 2, 4, 8, 8, 3)])
def test_other_shapes_are_refused(model, shape):
    with pytest.raises(InputError, match="B, T, H, W, 3"):
        model(np.zeros(shape, np.uint8))


def test_unknown_extents_give_the_same_logits(model):
    dynamic = tf.function(model, input_signature=[tf.TensorSpec([None] * 5, tf.uint8)])
    for extents in ((8, 32, 48), (5, 23, 41)):
        clips = make_clips(2, *extents)
        np.testing.assert_allclose(dynamic(clips), model(clips), atol=1e-6)


def test_training_applies_the_draws(model):
    clips = make_clips(2, 8, 32, 48)
    keep = Draws(tf.ones([2, 3, 2]), tf.ones([2, 16]))
    np.testing.assert_allclose(model(clips, training=True, draws=keep), model(clips), atol=1e-6)
    np.testing.assert_array_equal(model(clips, training=False, draws=keep), model(clips))
    drop = Draws(tf.ones([2, 3, 2]), tf.constant([[0.0] * 16, [1.0] * 16]))
    dropped = model(clips, training=True, draws=drop)
    np.testing.assert_allclose(dropped[0], model.head.linear.bias, atol=1e-6)
    np.testing.assert_allclose(dropped[1], model(clips)[1], atol=1e-6)


def test_each_block_takes_its_own_multipliers(model):
    x = model.normalize(make_clips(2, 8, 32, 48))
    plain = model.backbone(x)
    for block in range(3):
        mask = np.ones((2, 3, 2), np.float32)
        mask[1, block] = 0
        dropped = model.backbone(x, training=True, drop_path=tf.constant(mask))
        np.testing.assert_allclose(dropped[0], plain[0], atol=1e-5)
        assert np.abs(dropped[1] - plain[1]).max() > 1e-3
    np.testing.assert_array_equal(model.backbone(x, training=False, drop_path=tf.zeros([2, 3, 2])), plain)


def test_without_draws_training_draws_afresh(model):
    clips = make_clips(2, 8, 32, 48)
    traced = tf.function(lambda: model(clips, training=True))
    assert np.any(traced() != traced())


def test_plain_keras_fit_learns(model):
    clips, labels = make_clips(4, 4, 16, 24), np.array([0, 1, 2, 3])
    before = model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(clips, labels, batch_size=2, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any(np.any(old != new) for old, new in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_float16", 5e-3), ("mixed_bfloat16", 4e-2)])
def test_mixed_precision_stays_close_and_keeps_softmax_in_float32(model, policy, tolerance):
    clips = make_clips(2, 8, 32, 48)
    keras.mixed_precision.set_global_policy(policy)
    mixed = VideoSwin(SIZE, num_classes=5)
    mixed.build()
    mixed.set_weights(model.get_weights())
    features = model.features(clips).numpy()
    assert mixed.backbone(mixed.normalize(clips)).dtype == policy.removeprefix("mixed_")
    assert mixed(clips).dtype == tf.float32
    assert np.abs(mixed.features(clips) - features).max() < tolerance * np.abs(features).max()
    assert np.abs(mixed(clips) - model(clips)).max() < tolerance
    operations = tf.function(mixed).get_concrete_function(tf.constant(clips)).graph.get_operations()
    softmax = [operation.inputs[0].dtype for operation in operations if operation.type == "Softmax"]
    assert softmax == [tf.float32] * 3
    assert all(variable.dtype == tf.float32 for variable in mixed.variables)


def test_short_clips_run_on_the_weights_of_long_ones():
    size = ModelSize(8, (1, 1), (1, 2), window_size=(8, 7, 7))
    model = VideoSwin(size, num_classes=3)
    model.build()
    shapes = [variable.shape for variable in model.variables]
    assert model(make_clips(2, 8, 56, 64)).shape == (2, 3)
    assert [variable.shape for variable in model.variables] == shapes
    assert model.backbone.stages[0].blocks[0].attn.relative_position_bias_table.shape == (15 * 13 * 13, 1)
    assert model.size == size


def test_config_and_keras_file_rebuild_the_model(model, tmp_path):
    twin = VideoSwin.from_config(model.get_config())
    assert twin.get_config() == model.get_config()
    assert (twin.size, twin.num_classes, twin.dropout) == (SIZE, 5, 0.5)
    clips = make_clips(2, 8, 32, 48)
    expected = model(clips)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.size == SIZE
    np.testing.assert_array_equal(loaded(clips), expected)


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_classes": 2, "dropout": 1.0}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(InputError, match="must be"):
        VideoSwin(SIZE, **arguments)
