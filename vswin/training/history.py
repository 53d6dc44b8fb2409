"""The figures of every epoch in a CSV file."""

import csv
from pathlib import Path

import tf_keras as keras

from vswin.atomic import replacing


class HistoryFile(keras.callbacks.Callback):
    """Writes the logs of each epoch as a row of `history.csv`.

    The whole file is written anew each time, so that a full disk cannot cut off its last row, and rows of epochs
    that a killed run had logged but not saved disappear: they come again.

    Args:
        path: the file; rows of an earlier session are kept.
        first_epoch: epoch that this session starts with, counted from 0.

    Attributes:
        rows: column -> value of each epoch so far, as read or logged.
    """

    def __init__(self, path: Path, first_epoch: int) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, str | float]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows.extend(row for row in csv.DictReader(file) if int(row["epoch"]) < first_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds the row of the epoch."""
        self.rows.append({"epoch": epoch, **logs})
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.rows[-1], restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
