import sys
from contextlib import contextmanager

import pytest
import tf_keras as keras

from vswin.training.loggers import HistoryFile, TensorBoardLog, open_loggers


def test_files_are_the_default_and_wandb_is_not_imported(compose_train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vswin.training.wandb_log", None)
    with open_loggers(compose_train(), tmp_path, 0) as callbacks:
        assert [type(callback) for callback in callbacks] == [HistoryFile, TensorBoardLog]


def test_logs_can_be_switched_off(compose_train, tmp_path):
    config = compose_train("logger.csv=false", "logger.tensorboard=false")
    with open_loggers(config, tmp_path, 0) as callbacks:
        assert callbacks == []


def test_rows_of_epochs_that_come_again_are_dropped(compose_train, tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n0,1.0\n1,2.0\n")
    with open_loggers(compose_train("logger.tensorboard=false"), tmp_path, 1) as (history,):
        history.on_epoch_end(1, {"loss": 3.0})
    assert (tmp_path / "history.csv").read_text() == "epoch,loss\n0,1.0\n1,3.0\n"


def test_wandb_is_closed_when_training_fails(compose_train, tmp_path, monkeypatch):
    from vswin.training import wandb_log

    events = []

    @contextmanager
    def open_wandb(*_):
        events.append("open")
        try:
            yield keras.callbacks.Callback()
        finally:
            events.append("closed")

    monkeypatch.setattr(wandb_log, "open_wandb", open_wandb)
    config = compose_train("logger=wandb")
    assert (config.logger.csv, config.logger.tensorboard) == (True, True)

    def train() -> None:
        with open_loggers(config, tmp_path, 0) as callbacks:
            assert len(callbacks) == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert events == ["open", "closed"]


def test_workers_beside_the_chief_log_nothing(compose_train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vswin.training.wandb_log", None)
    with open_loggers(compose_train("logger=wandb"), tmp_path, 0, is_chief=False) as callbacks:
        assert callbacks == []
    assert list(tmp_path.iterdir()) == []
