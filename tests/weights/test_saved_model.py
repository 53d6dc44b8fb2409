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


@pytest.fixture
def keras_folder(tmp_path):
    model = Model()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.zeros((4, 3)), verbose=0)
    model.save(tmp_path / "keras", save_format="tf")
    return tmp_path / "keras"


def assert_as_loaded(folder):
    loaded = tf.saved_model.load(str(folder)).variables
    read = read_saved_model(folder)
    assert len(read) == 14
    assert [name for name, _ in read] == [variable.name.removesuffix(":0") for variable in loaded]
    for (name, array), variable in zip(read, loaded, strict=True):
        assert array.dtype == variable.dtype.as_numpy_dtype, name
        np.testing.assert_array_equal(array, variable.numpy())


def test_variables_of_a_keras_model_come_as_loading_gives_them_without_the_optimizer(keras_folder):
    assert_as_loaded(keras_folder)


def test_a_keras_model_saved_without_keras_reads_alike(tmp_path):
    model = Model()
    model(np.ones((4, 3)))
    tf.saved_model.save(model, str(tmp_path / "plain"))
    assert_as_loaded(tmp_path / "plain")


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


def test_a_cut_or_missing_data_file_is_damaged(folder):
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged"):
        read_saved_model(folder)
    data.unlink()
    with pytest.raises(InputError, match="damaged"):
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


def test_a_cut_or_wrong_index_is_damaged(folder):
    index = folder / "variables" / "variables.index"
    content = index.read_bytes()
    for length in range(0, len(content), 11):
        index.write_bytes(content[:length])
        with pytest.raises(InputError, match="damaged"):
            read_saved_model(folder)


def test_changed_bytes_of_the_data_are_noticed(folder):
    data = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[200] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged.*checksum|damaged.*Checksum"):
        read_saved_model(folder)


def change_objects(folder, change):
    """Applies a change to the object graph of a SavedModel."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0].object_graph_def)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("node", [-1, 10_000])
def test_an_object_graph_that_points_outside_itself_is_damaged(folder, node):
    def point_outside(objects):
        objects.nodes[0].children[0].node_id = node

    change_objects(folder, point_outside)
    with pytest.raises(InputError, match="damaged"):
        read_saved_model(folder)


def test_a_variable_that_the_checkpoint_lacks_is_damaged(folder):
    def rename(objects):
        for child in objects.nodes[0].children:
            child.local_name = f"other_{child.local_name}"

    change_objects(folder, rename)
    with pytest.raises(InputError, match="damaged"):
        read_saved_model(folder)


def test_strings_are_no_weights(tmp_path):
    module = tf.Module()
    module.text = tf.Variable("x", name="text")
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(InputError, match="has variables of string; weights are numbers"):
        read_saved_model(tmp_path)
