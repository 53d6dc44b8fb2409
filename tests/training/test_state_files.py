"""States of a run on the disk: what is written in the background is what was there at the call."""

import errno
import os
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from vswin.errors import InputError
from vswin.training import checkpoints
from vswin.training.checkpoints import StateFiles


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


def test_states_of_earlier_sessions_go_first(tmp_path):
    files, variable = make_files(tmp_path)
    write(files, variable, 1, 2)
    files.finish()
    later, variable = make_files(tmp_path)
    assert later.read_newest("") == 2
    write(later, variable, 3)
    later.finish()
    assert later.numbers() == [2, 3]


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_damaged_state_is_set_aside_and_the_one_before_it_read(tmp_path, suffix):
    files, variable = make_files(tmp_path)
    write(files, variable, 1, 2)
    files.finish()
    path = tmp_path / f"ckpt-2.{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    other, values = make_files(tmp_path)
    assert other.read_newest("") == 1
    assert values.numpy()[0] == 1.0
    assert other.numbers() == [1]
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == [
        "ckpt-2.data-00000-of-00001",
        "ckpt-2.index",
    ]


def test_without_a_whole_state_there_is_an_error_with_the_way_out(tmp_path):
    files, variable = make_files(tmp_path)
    assert files.read_newest("") is None
    write(files, variable, 1)
    files.finish()
    (tmp_path / "ckpt-1.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(InputError, match=r"every state in .* is damaged; copy them again, or start anew"):
        make_files(tmp_path)[0].read_newest("start anew")
    # Nor does it start over when it is asked once more.
    with pytest.raises(InputError, match=r"every state in .* is damaged"):
        make_files(tmp_path)[0].read_newest("start anew")


def test_a_worker_that_is_not_the_chief_leaves_no_files(tmp_path):
    files, variable = make_files(tmp_path, is_chief=False)
    write(files, variable, 1, 2)
    files.finish()
    assert list(tmp_path.iterdir()) == []
