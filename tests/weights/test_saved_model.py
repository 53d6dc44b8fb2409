from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from vswin.errors import InputError
from vswin.weights.files import is_saved_model, read_saved_model


class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.LayerNormalization()
        self.mlp = keras.layers.Dense(3)

    def build(self, shape):
        self.index = tf.Variable(tf.range(4, dtype=tf.int64)[None], trainable=False)
        self.table = self.add_weight(name="table", shape=(7, 2), initializer="random_normal")
        super().build(shape)

    def call(self, x):
        return self.mlp(self.norm(x)) + self.table[0, 0]


class Model(keras.Model):
    """Holds a list of layers with nested layers, as the TF-Hub port does, and over ten variables: 10 comes after 9."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(3, name="first")
        self.blocks = [Block() for _ in range(2)]

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def test_variables_of_a_keras_model_come_as_loading_gives_them_without_the_optimizer(tmp_path):
    model = Model()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.zeros((4, 3)), verbose=0)
    model.save(tmp_path / "keras", save_format="tf")
    tf.saved_model.save(model, str(tmp_path / "plain"))
    for folder in (tmp_path / "keras", tmp_path / "plain"):
        loaded = tf.saved_model.load(str(folder)).variables
        read = read_saved_model(folder)
        assert len(read) == 14
        assert [name for name, _ in read] == [variable.name.removesuffix(":0") for variable in loaded]
        for (name, array), variable in zip(read, loaded, strict=True):
            assert array.dtype == variable.dtype.as_numpy_dtype, name
            np.testing.assert_array_equal(array, variable.numpy())


def test_a_module_without_a_list_is_read_breadth_first(tmp_path):
    module = tf.Module()
    module.deep = tf.Module()
    module.deep.last = tf.Variable([3.0], name="last")
    module.shared = module.deep
    module.near = tf.Variable(tf.constant([[1.5]], tf.float16), name="near")
    tf.saved_model.save(module, str(tmp_path))
    read = read_saved_model(tmp_path)
    assert [(name, array.dtype) for name, array in read] == [("near", np.float16), ("last", np.float32)]
    assert read[1][1] == [3.0]


def test_our_own_export_is_read_by_official_name(tmp_path):
    weights = {"backbone.norm.weight": tf.Variable([1.0], name="a"), "cls_head.fc_cls.bias": tf.Variable([2.0, 3.0])}
    exported = tf.train.Checkpoint(weights=weights)
    exported.variables = [weights["backbone.norm.weight"]]
    tf.saved_model.save(exported, str(tmp_path))
    read = read_saved_model(tmp_path)
    assert [(name, array.tolist()) for name, array in read] == [
        ("backbone.norm.weight", [1.0]),
        ("cls_head.fc_cls.bias", [2.0, 3.0]),
    ]


def test_other_folders_are_refused(tmp_path):
    assert not is_saved_model(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(InputError, match=r"is no SavedModel, which has saved_model\.pb and variables/variables\.index"):
        read_saved_model(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Saves one variable of 4000 bytes."""
    module = tf.Module()
    module.weight = tf.Variable(tf.random.normal([1000]), name="weight")
    tf.saved_model.save(module, str(tmp_path))
    assert is_saved_model(tmp_path)
    return tmp_path


def test_every_cut_of_the_graph_and_garbage_in_its_place_are_called_damaged(folder):
    path = folder / "saved_model.pb"
    content, rng = path.read_bytes(), np.random.default_rng(0)
    cuts = [content[:length] for length in [*range(0, 200, 7), *range(200, len(content), 97)]]
    for damaged in [*cuts, *(rng.bytes(length) for length in (1, 10, 1000, 100_000)), b"\xff" * 100]:
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged|TensorFlow 1"):
            read_saved_model(folder)


def test_a_graph_without_objects_is_that_of_tensorflow_1(folder):
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    with pytest.raises(InputError, match="was saved by TensorFlow 1"):
        read_saved_model(folder)


def test_variables_that_claim_more_than_the_files_hold_are_refused_before_they_are_allocated(folder, monkeypatch):
    load = tf.train.load_checkpoint

    def load_liar(path):
        reader = load(path)
        claims = {key: [10**6, 10**6] for key in reader.get_variable_to_shape_map()}
        return SimpleNamespace(
            get_tensor=reader.get_tensor,
            get_variable_to_shape_map=lambda: claims,
            get_variable_to_dtype_map=lambda: dict.fromkeys(claims, tf.uint8),
        )

    monkeypatch.setattr(tf.train, "load_checkpoint", load_liar)
    with pytest.raises(InputError, match="claim 1000000000000 bytes, and it holds 4"):
        read_saved_model(folder)


@pytest.mark.parametrize("file", ["variables.index", "variables.data-00000-of-00001"])
def test_cut_changed_or_missing_files_are_damaged(folder, file):
    path = folder / "variables" / file
    content = path.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 3] ^= 1
    for damaged in (*(content[:length] for length in range(0, len(content), len(content) // 20)), bytes(changed)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            read_saved_model(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"damaged|is no SavedModel"):
        read_saved_model(folder)


def _point_outside(child):
    child.node_id = 10_000


def _count_from_the_end(child):
    child.node_id = -1


def _rename(child):
    child.local_name = "other"


@pytest.mark.parametrize("change", [_point_outside, _count_from_the_end, _rename])
def test_an_object_graph_that_does_not_fit_is_damaged(folder, change):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for child in model.meta_graphs[0].object_graph_def.nodes[0].children:
        change(child)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="damaged"):
        read_saved_model(folder)


def test_strings_are_no_weights(tmp_path):
    module = tf.Module()
    module.text = tf.Variable("x", name="text")
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(InputError, match="has variables of string; weights are numbers"):
        read_saved_model(tmp_path)
