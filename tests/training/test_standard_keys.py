import numpy as np

from vswin.training.loggers import standard_keys


def test_every_figure_of_an_epoch_has_its_name():
    logs = {"loss": 1.5, "top1": np.float32(0.25), "lr": 1e-3, "val_loss": 2, "val_top1": 0.5, "val_ema_top1": 0.75}
    named = standard_keys(logs)
    assert list(named.items()) == [
        ("train/loss", 1.5),
        ("train/top1", 0.25),
        ("train/lr", 1e-3),
        ("val/loss", 2.0),
        ("val/top1", 0.5),
        ("val/ema_top1", 0.75),
    ]
    assert {type(value) for value in named.values()} == {float}


def test_keys_that_nobody_knows_are_kept_and_do_not_collide():
    logs = {"new": 1.0, "val_new": 2.0, "value": 3.0, "interval_sec": 4.0, "val_val_x": 5.0}
    assert standard_keys(logs) == {
        "train/new": 1.0,
        "val/new": 2.0,
        "train/value": 3.0,
        "train/interval_sec": 4.0,
        "val/val_x": 5.0,
    }
    assert standard_keys({}) == {}
