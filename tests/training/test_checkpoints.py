import numpy as np
import pytest
import tf_keras as keras

import vswin
from vswin.training.checkpoints import Checkpoints
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.weights.files import read_metadata
from vswin.zoo import ModelSize

SIZE = ModelSize(4, (1, 1), (1, 2), window_size=(2, 2, 3))


def make_checkpoints(folder) -> Checkpoints:
    model = vswin.build_model(SIZE, num_classes=3)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in model.trainable_variables}
    optimizer = AdamW(0.1, groups)
    optimizer.build(model.trainable_variables)
    return Checkpoints(folder, model, optimizer, {"class_names": ["a", "b", "c"]})


def head_of(checkpoints: Checkpoints) -> np.ndarray:
    return checkpoints.classifier.head.linear.bias.numpy()


def test_the_best_weights_are_those_of_the_first_best_epoch(tmp_path):
    checkpoints = make_checkpoints(tmp_path)
    for epoch, top1 in enumerate([0.2, 0.6, 0.6, 0.4]):
        checkpoints.classifier.head.linear.bias.assign([epoch, 0.0, 0.0])
        checkpoints.on_epoch_end(epoch, {"val_top1": top1})
    assert vswin.read_checkpoint(tmp_path)["cls_head.fc_cls.bias"][0] == 1
    metadata = read_metadata(tmp_path)
    assert (metadata["epoch"], metadata["val_top1"], metadata["class_names"]) == (2, 0.6, ["a", "b", "c"])


def test_the_last_state_comes_back_with_its_optimizer_and_its_best(tmp_path):
    first = make_checkpoints(tmp_path)
    for epoch, top1 in enumerate([0.5, 0.25]):
        first.classifier.head.linear.bias.assign_add([1.0, 2.0, 3.0])
        first.optimizer.iterations.assign_add(10)
        first.on_epoch_end(epoch, {"val_top1": top1})
    second = make_checkpoints(tmp_path)
    assert second.restore() == 2
    np.testing.assert_array_equal(head_of(second), [2, 4, 6])
    assert int(second.optimizer.iterations) == 20
    second.on_epoch_end(2, {"val_top1": 0.4})
    assert read_metadata(tmp_path)["epoch"] == 1


def test_an_empty_folder_restores_nothing(tmp_path):
    keras.utils.set_random_seed(1)
    checkpoints = make_checkpoints(tmp_path)
    before = head_of(checkpoints)
    assert checkpoints.restore() == 0
    np.testing.assert_array_equal(head_of(checkpoints), before)


def test_a_state_of_another_model_is_refused(tmp_path):
    make_checkpoints(tmp_path).on_epoch_end(0, {"val_top1": 0.5})
    model = vswin.build_model(ModelSize(4, (2, 1), (1, 2), window_size=(2, 2, 3)), num_classes=3)
    other = Checkpoints(tmp_path, model, AdamW(0.1, {}), {})
    with pytest.raises(AssertionError):
        other.restore()
