"""States and best weights on the disk: the background thread writes the values from the time of the call."""

import errno
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import vswin
from vswin.cluster import Workers
from vswin.errors import InputError
from vswin.models.zoo import ModelSize
from vswin.runtime import start_log
from vswin.training import checkpoints
from vswin.training.checkpoints import Checkpoints, StateFiles
from vswin.training.optimizer import AdamW, ParameterGroup
from vswin.training.trainer import Trainer
from vswin.weights.checkpoint import read_metadata

SIZE = ModelSize(4, (1,), (1,), window_size=(2, 2, 3))
STEPS = 10


def make_checkpoints(
    folder: Path, patience: int | None = None, size: ModelSize = SIZE, monitor: str = "val_top1"
) -> Checkpoints:
    model = vswin.build_model(size, num_classes=3)
    groups = {variable.name: ParameterGroup("all", 1.0, 0.0) for variable in model.trainable_variables}
    trainer = Trainer(model, global_batch_size=4, seed=0)
    trainer.compile(optimizer=AdamW(0.1, groups))
    trainer.optimizer.build(model.trainable_variables)
    workers = Workers(tf.distribute.get_strategy())
    checkpoints = Checkpoints(folder, trainer, STEPS, {"class_names": ["a", "b", "c"]}, workers, patience, 2, monitor)
    checkpoints.set_params({"epochs": 9})
    checkpoints.set_model(trainer)
    return checkpoints


def train_epochs(checkpoints: Checkpoints, *val_top1: float, first: int = 0) -> None:
    """Ends epochs; a state's head bias tells its epoch: [epoch, 0, 0], counted from 1."""
    for epoch, top1 in enumerate(val_top1, start=first):
        checkpoints.trainer.model.head.linear.bias.assign([epoch + 1, 0, 0])
        checkpoints.on_epoch_end(epoch, {"val_top1": top1})
    checkpoints.finish_saving()


def epoch_of(checkpoints: Checkpoints) -> float:
    return checkpoints.trainer.model.head.linear.bias.numpy()[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints" / "last").glob("ckpt*"))


def state_files(*numbers: int) -> list[str]:
    return sorted(f"ckpt-{number}.{end}" for number in numbers for end in ("index", "data-00000-of-00001"))


def test_the_last_state_comes_back_with_its_optimizer_and_the_first_best_weights(tmp_path):
    first = make_checkpoints(tmp_path)
    first.trainer.optimizer.iterations.assign(20)
    train_epochs(first, 0.2, 0.6)
    second = make_checkpoints(tmp_path)
    assert second.restore() == 2
    assert (epoch_of(second), int(second.trainer.optimizer.iterations)) == (2, 20)
    assert second.position == "epoch 2"
    train_epochs(second, 0.6, 0.4, first=2)
    assert vswin.read_checkpoint(tmp_path)["cls_head.fc_cls.bias"][0] == 2
    metadata = read_metadata(tmp_path)
    assert (metadata["epoch"], metadata["val_top1"], metadata["class_names"]) == (2, 0.6, ["a", "b", "c"])


def test_a_state_inside_an_epoch_comes_back_with_the_metrics_of_its_steps(tmp_path):
    first = make_checkpoints(tmp_path)
    train_epochs(first, 0.5)
    first.trainer.saved_metrics[0].update_state([1.0, 2.0])
    first.save_state(1, 4)
    second = make_checkpoints(tmp_path)
    assert second.restore() == 1
    assert (second.steps_saved, second.position) == (4, "epoch 2, step 4 of 10")
    second.trainer.reset_metrics()
    second.on_epoch_begin(1)
    second.trainer.saved_metrics[0].update_state([6.0])
    assert float(second.trainer.saved_metrics[0].result()) == 3.0
    second.trainer.reset_metrics()
    second.on_epoch_begin(2)
    assert float(second.trainer.saved_metrics[0].result()) == 0.0


def test_older_states_go_only_when_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    run = make_checkpoints(tmp_path)
    train_epochs(run, 0.1, 0.2)
    synced = []

    def sync(path: Path) -> None:
        synced.append(path.name)
        assert set(state_files(10, 20)) < set(files(tmp_path))

    monkeypatch.setattr(checkpoints, "sync_file", sync)
    monkeypatch.setattr(checkpoints, "sync_folder", sync)
    train_epochs(run, 0.3, first=2)
    assert sorted(synced) == [*state_files(30), "last"]


def test_a_kill_between_best_weights_and_state_does_not_make_them_disagree(tmp_path, monkeypatch):
    first = make_checkpoints(tmp_path)
    train_epochs(first, 0.5)

    def die(epochs_done: int, steps_done: int, wait: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(first, "save_state", die)
    with pytest.raises(KeyboardInterrupt):
        train_epochs(first, 0.75, first=1)
    second = make_checkpoints(tmp_path)
    assert second.restore() == 1
    assert (second.bests[0].epoch, second.bests[0].value) == (2, 0.75)
    # The same epoch again, on a device that is not deterministic.
    train_epochs(second, 0.7, 0.72, first=1)
    assert (second.bests[0].epoch, second.bests[0].value) == (2, 0.75)
    assert read_metadata(tmp_path)["val_top1"] == 0.75


def flip_a_byte(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    path.write_bytes(contents)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("data-00000-of-00001", flip_a_byte),
        ("data-00000-of-00001", lambda path: os.truncate(path, 1000)),
        ("data-00000-of-00001", Path.unlink),
        ("index", lambda path: os.truncate(path, 700)),
        ("index", lambda path: os.truncate(path, 0)),
    ],
)
def test_a_damaged_state_costs_the_work_since_the_one_before(tmp_path, capsys, suffix, damage):
    train_epochs(make_checkpoints(tmp_path), 0.1, 0.2)
    damage(tmp_path / "checkpoints" / "last" / f"ckpt-20.{suffix}")
    start_log(None)
    second = make_checkpoints(tmp_path)
    assert (second.restore(), epoch_of(second)) == (1, 1)
    assert "ckpt-20.* is damaged" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "last" / "damaged" / "ckpt-20.index").exists()
    train_epochs(second, 0.2, first=1)
    third = make_checkpoints(tmp_path)
    assert (third.restore(), epoch_of(third)) == (2, 2)


def test_a_state_of_another_network_is_refused(tmp_path):
    train_epochs(make_checkpoints(tmp_path), 0.5)
    deeper, wider = ModelSize(4, (2,), (1,), window_size=(2, 2, 3)), ModelSize(8, (1,), (1,), window_size=(2, 2, 3))
    for size in (deeper, wider):
        with pytest.raises(InputError, match=r"ckpt-10\.\* does not fit this network: another version of vswin"):
            make_checkpoints(tmp_path, size=size).restore()


def test_an_epoch_of_another_length_is_refused(tmp_path):
    train_epochs(make_checkpoints(tmp_path), 0.5)
    longer = make_checkpoints(tmp_path)
    longer.steps_per_epoch = STEPS + 1
    with pytest.raises(InputError, match="did not have 11 steps as it has now, so its training videos were others"):
        longer.restore()


def test_best_weights_that_are_gone_are_an_error(tmp_path):
    train_epochs(make_checkpoints(tmp_path), 0.5)
    (tmp_path / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors is gone, the best weights of 1 epochs; put it back, or"):
        make_checkpoints(tmp_path).restore()


@contextmanager
def file_size_limited(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [1_000, 10_000])
def test_a_state_that_cannot_be_written_leaves_the_one_before_it_and_nothing_else(tmp_path, limit):
    checkpoints = make_checkpoints(tmp_path)
    train_epochs(checkpoints, 0.5)
    with pytest.raises(tf.errors.OpError, match=os.strerror(errno.EFBIG)), file_size_limited(limit):
        train_epochs(checkpoints, 0.4, first=1)
    assert checkpoints.position == "epoch 1"
    assert files(tmp_path) == state_files(10)
    second = make_checkpoints(tmp_path)
    assert (second.restore(), epoch_of(second)) == (1, 1)


def test_best_weights_that_cannot_be_written_leave_those_before_them(tmp_path):
    checkpoints = make_checkpoints(tmp_path)
    train_epochs(checkpoints, 0.5)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), file_size_limited(1_000):
        train_epochs(checkpoints, 0.75, first=1)
    assert read_metadata(tmp_path)["epoch"] == 1
    assert (checkpoints.bests[0].epoch, checkpoints.bests[0].value) == (1, 0.5)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["best.safetensors", "last"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    train_epochs(make_checkpoints(tmp_path), 0.5)
    last = tmp_path / "checkpoints" / "last"
    (last / "ckpt-20_temp").mkdir()
    (last / "ckpt-20_temp" / "part-00000-of-00001.data-00000-of-00001").touch()
    (last / "ckpt-30.data-00000-of-00001").touch()
    (tmp_path / "checkpoints" / ".best.safetensors.1.partial").touch()
    assert make_checkpoints(tmp_path).restore() == 1
    assert files(tmp_path) == state_files(10)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["best.safetensors", "last"]


def test_patience_counts_the_epochs_since_the_first_best_one(tmp_path, capsys):
    start_log(None)
    checkpoints = make_checkpoints(tmp_path, patience=2)
    train_epochs(checkpoints, 0.5, 0.4, 0.6, 0.6)
    assert not checkpoints.trainer.stop_training
    train_epochs(checkpoints, 0.6, first=4)
    assert checkpoints.trainer.stop_training
    assert "stopped early: no better val top-1 for patience=2 epochs" in capsys.readouterr().out
    for patience, is_stalled in ((2, True), (3, False), (None, False)):
        resumed = make_checkpoints(tmp_path, patience)
        assert (resumed.restore(), resumed.is_stalled(5)) == (5, is_stalled)


def make_files(folder, num_kept=2, size=1000, is_chief=True):
    variable = tf.Variable(np.zeros(size, np.float32))
    return StateFiles(folder, tf.train.Checkpoint(values=variable), num_kept, is_chief), variable


def write(files, variable, *numbers):
    for number in numbers:
        variable.assign(tf.fill(variable.shape, float(number)))
        files.write(number)


def test_training_may_go_on_while_a_state_is_written(tmp_path):
    files, variable = make_files(tmp_path, size=2**22)
    write(files, variable, 7)
    assert files.unfinished == 7
    variable.assign_add(tf.ones_like(variable))
    files.finish()
    assert (files.unfinished, files.is_written(), files.numbers()) == (None, True, [7])
    other, values = make_files(tmp_path, size=2**22)
    assert other.read_newest("") == 7
    assert set(values.numpy()) == {7.0}


def test_a_disk_that_takes_long_holds_up_no_step(tmp_path, monkeypatch):
    disk_has_it = threading.Event()
    monkeypatch.setattr(checkpoints, "sync_folder", lambda folder: disk_has_it.wait(30))
    files, variable = make_files(tmp_path)
    write(files, variable, 7)
    while not (tmp_path / "ckpt-7.index").exists():
        time.sleep(0.01)
    time.sleep(0.05)
    assert not files.is_written()
    disk_has_it.set()
    files.finish()
    assert (files.is_written(), files.numbers()) == (True, [7])


def test_a_state_that_the_disk_does_not_take_at_last_costs_no_earlier_one(tmp_path, monkeypatch):
    files, variable = make_files(tmp_path, num_kept=1)
    write(files, variable, 1)
    files.finish()

    def fail(path):
        os.truncate(tmp_path / "ckpt-2.index", 30)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync_file", fail)
        write(files, variable, 2)
        with pytest.raises(OSError, match="Input/output error"):
            files.finish()
    assert (files.unfinished, files.is_written(), files.numbers()) == (None, True, [1])
    assert make_files(tmp_path)[0].read_newest("") == 1
    write(files, variable, 3)
    files.finish()
    assert files.numbers() == [3]


def test_old_states_go_from_a_folder_whose_name_is_a_pattern_too(tmp_path):
    folder = tmp_path / "run[1]"
    for numbers in ((1, 2, 3), (4,)):
        files, variable = make_files(folder, num_kept=1)
        write(files, variable, *numbers)
        files.finish()
        assert files.numbers() == [numbers[-1]]
        files.close()
    assert make_files(folder)[0].read_newest("") == 4


def test_so_many_states_are_kept_and_none_goes_before_the_next_is_written(tmp_path):
    files, variable = make_files(tmp_path, num_kept=3)
    write(files, variable, 1, 2, 3, 4)
    assert files.numbers()[:3] == [1, 2, 3]
    files.finish()
    assert files.numbers() == [2, 3, 4]


def test_without_a_whole_state_there_is_an_error_with_the_way_out(tmp_path):
    files, variable = make_files(tmp_path)
    assert files.read_newest("") is None
    write(files, variable, 1)
    files.finish()
    (tmp_path / "ckpt-1.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(InputError, match=r"every state in .* is damaged; copy them again, or start anew"):
        make_files(tmp_path)[0].read_newest("start anew")
    # A second call does not start over, either.
    with pytest.raises(InputError, match=r"every state in .* is damaged"):
        make_files(tmp_path)[0].read_newest("start anew")


def test_a_worker_that_is_not_the_chief_leaves_no_files(tmp_path):
    files, variable = make_files(tmp_path, is_chief=False)
    write(files, variable, 1, 2)
    files.finish()
    files.close()
    assert list(tmp_path.iterdir()) == []
