"""Tests of `vswin.training.periodic_save`: when a state is saved within an epoch."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from vswin.training import periodic_save
from vswin.training.periodic_save import PeriodicSave
from vswin.workers import Workers


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(periodic_save.time, "monotonic", lambda: now.seconds)
    return now


def run_epochs(clock, minutes, steps, epochs=2, seconds_per_step=60):
    """Takes steps, five per epoch; gives the (epoch, steps done) of the states."""
    saved, checked = [], []
    checkpoints = SimpleNamespace(steps_per_epoch=5, finish_written=lambda: None)
    checkpoints.save_state = lambda epoch, steps_done, wait: saved.append((epoch, steps_done, wait))
    finite = SimpleNamespace(check_weights=checked.append)
    callback = PeriodicSave(checkpoints, finite, Workers(tf.distribute.get_strategy()), minutes, steps)
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch)
        for batch in range(5):
            clock.seconds += seconds_per_step
            callback.on_train_batch_end(batch)
    assert [step + 1 for step in checked] == [steps_done for _, steps_done, _ in saved]
    assert not any(wait for *_, wait in saved)
    return [(epoch, steps_done) for epoch, steps_done, _ in saved]


def test_every_so_many_steps_of_the_run_but_not_at_the_end_of_an_epoch(clock):
    assert run_epochs(clock, None, 3) == [(0, 3), (1, 1), (1, 4)]
    assert run_epochs(clock, None, 5) == []


def test_every_so_many_minutes_since_the_last_state(clock):
    assert run_epochs(clock, 2, None) == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert run_epochs(clock, 2.5, None) == [(0, 3), (1, 3)]
    assert run_epochs(clock, 10, None) == []


def test_never(clock):
    assert run_epochs(clock, None, None) == []
