import csv
import resource
from pathlib import Path

import pytest

from vswin.training.loggers import HistoryFile


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_epoch_is_a_row(tmp_path):
    history = HistoryFile(tmp_path / "history.csv", 0)
    history.on_epoch_end(0, {"loss": 0.5, "val_top1": 0.25})
    history.on_epoch_end(1, {"loss": 0.125, "val_top1": 1.0})
    assert (tmp_path / "history.csv").read_text() == "epoch,loss,val_top1\n0,0.5,0.25\n1,0.125,1.0\n"


def test_epochs_that_were_logged_and_not_saved_come_again(tmp_path):
    path = tmp_path / "history.csv"
    first = HistoryFile(path, 0)
    for epoch in range(3):
        first.on_epoch_end(epoch, {"loss": 10.0 + epoch})
    second = HistoryFile(path, 2)
    second.on_epoch_end(2, {"loss": 20.0})
    assert [(row["epoch"], row["loss"]) for row in read(path)] == [("0", "10.0"), ("1", "11.0"), ("2", "20.0")]


def test_a_figure_that_is_new_is_empty_in_earlier_rows(tmp_path):
    path = tmp_path / "history.csv"
    HistoryFile(path, 0).on_epoch_end(0, {"loss": 1.0, "gone": 2.0})
    HistoryFile(path, 1).on_epoch_end(1, {"loss": 3.0, "new": 4.0})
    assert read(path) == [
        {"epoch": "0", "loss": "1.0", "new": ""},
        {"epoch": "1", "loss": "3.0", "new": "4.0"},
    ]


def test_a_row_that_cannot_be_written_leaves_the_earlier_ones(tmp_path):
    path = tmp_path / "history.csv"
    history = HistoryFile(path, 0)
    history.on_epoch_end(0, {"loss": 1.0})
    before = path.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            history.on_epoch_end(1, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
