"""What a run writes for TensorBoard, read back as TensorBoard reads it."""

import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from vswin.training.tensorboard_log import TensorBoardLog


def figures(folder: Path, key: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(key)]


@pytest.fixture
def start(compose_train, tmp_path):
    """Begins a session with some epoch, counted from 0."""

    def started(first_epoch: int) -> TensorBoardLog:
        log = TensorBoardLog(tmp_path, compose_train(), first_epoch)
        log.on_train_begin()
        return log

    return started


def wait_for_next_second() -> None:
    """Event files are read in the order of their names, which say the second they are of."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)


def test_epochs_that_come_again_after_a_kill_show_once(start, tmp_path):
    killed = start(0)
    for epoch, loss in enumerate((4.0, 3.0, 2.0)):
        killed.on_epoch_end(epoch, {"loss": loss, "val_top1": 0.5})
    wait_for_next_second()
    resumed = start(1)
    assert figures(tmp_path, "train/loss") == [(1, 4.0)]
    for epoch, loss in ((1, 3.5), (2, 2.5), (3, 1.5)):
        resumed.on_epoch_end(epoch, {"loss": loss, "val_top1": 0.75})
    resumed.on_train_end()
    assert figures(tmp_path, "train/loss") == [(1, 4.0), (2, 3.5), (3, 2.5), (4, 1.5)]
    assert figures(tmp_path, "val/top1") == [(1, 0.5), (2, 0.75), (3, 0.75), (4, 0.75)]


def test_a_session_that_goes_on_after_what_was_logged_drops_nothing(start, tmp_path):
    for epoch in (0, 1):
        wait_for_next_second()
        log = start(epoch)
        log.on_epoch_end(epoch, {"loss": 2.0 - epoch})
        log.on_train_end()
    assert figures(tmp_path, "train/loss") == [(1, 2.0), (2, 1.0)]
