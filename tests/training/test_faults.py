"""What a run says when a disk or the memory ends it."""

import errno
import os
from types import SimpleNamespace

import pytest
import tensorflow as tf

from vswin.errors import InputError
from vswin.training.faults import faults_explained
from vswin.workers import Workers

GO_ON = "python train.py resume=true"


def fail_with_tensorflow() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "/disk/ckpt-3_temp/part-0; No space left on device")


def fail_with_python() -> None:
    raise OSError(28, os.strerror(28), "/disk/history.csv")


def explain(fail, compose_train, folder, place="", *overrides):
    config = compose_train(*overrides)
    strategy = tf.distribute.OneDeviceStrategy("cpu:0")
    checkpoints = SimpleNamespace(
        place=place, workers=Workers(strategy), trainer=SimpleNamespace(distribute_strategy=strategy)
    )
    with pytest.raises(InputError) as caught, faults_explained(config, checkpoints, folder, GO_ON):
        fail()
    return str(caught.value)


@pytest.mark.parametrize("fail", [fail_with_tensorflow, fail_with_python])
@pytest.mark.parametrize(
    ("place", "words"), [("epoch 3", "the state after epoch 3 is saved and whole"), ("", "no state is saved yet")]
)
def test_a_full_disk_is_explained(fail, place, words, compose_train, tmp_path):
    assert explain(fail, compose_train, tmp_path, place) == (
        f"writing into {tmp_path} failed: No space left on device; {words}. Make room, then go on with\n  {GO_ON}"
    )


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_disk_that_is_lost_is_explained(code, compose_train, tmp_path):
    def fail():
        raise OSError(code, os.strerror(code))

    message = explain(fail, compose_train, tmp_path, "epoch 1")
    assert message.startswith(f"writing into {tmp_path} failed: {os.strerror(code)}; the state after epoch 1 is saved")
    assert "See to the disk, then go on with" in message


def test_a_folder_that_was_removed_is_named(compose_train, tmp_path):
    def fail():
        (tmp_path / "gone" / "history.csv").write_text("")

    message = explain(fail, compose_train, tmp_path / "gone", "epoch 1")
    assert message == (
        f"the folder of the run, {tmp_path / 'gone'}, was moved or removed while it went on. The state after epoch 1 "
        f"is whole in it: bring it back, or name its new place with output_dir=, and go on with\n  {GO_ON}\n"
        "  If it is gone, start again"
    )


def fail_for_memory() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[1024,3,392,392]")


@pytest.mark.parametrize(
    ("overrides", "way_out"),
    [
        (("batch_size=6",), "runtime.remat=true"),
        (("batch_size=6", "runtime.remat=true"), "runtime.micro_batches=2"),
        (("batch_size=6", "runtime.remat=true", "augment.mixup=0.8"), "runtime.micro_batches=3"),
        (("batch_size=6", "model.freeze=[backbone.*]"), "runtime.micro_batches=2"),
        (("batch_size=6", "runtime.remat=true", "runtime.micro_batches=3"), "runtime.micro_batches=6"),
    ],
)
def test_too_little_memory_is_explained_by_what_does_not_fit_and_what_to_try(
    overrides, way_out, compose_train, tmp_path
):
    message = explain(fail_for_memory, compose_train, tmp_path, "", *overrides)
    assert "out of memory: batch_size=6 clips of 8 x 64 x 64 with runtime.micro_batches=" in message
    assert "No state is saved yet." in message
    assert message.splitlines()[-1] == f"  {GO_ON} {way_out}"


def test_no_setting_is_named_where_none_takes_less(compose_train, tmp_path):
    overrides = ("batch_size=6", "runtime.remat=true", "runtime.micro_batches=6")
    message = explain(fail_for_memory, compose_train, tmp_path, "", *overrides)
    assert message.endswith("No state is saved yet. No setting is left that leaves the step as it is")


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ENOENT, os.strerror(errno.ENOENT), "video.mp4")])
def test_other_errors_stay_what_they_are(error, compose_train, tmp_path):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    checkpoints = SimpleNamespace(place="", workers=Workers(tf.distribute.get_strategy()))
    with pytest.raises(type(error)) as caught, faults_explained(compose_train(), checkpoints, tmp_path, GO_ON):
        raise error
    assert caught.value is error
