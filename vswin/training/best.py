"""The weights of the best epoch, kept in a file that alone knows which it was. Called by `checkpoints`."""

from pathlib import Path
from typing import Any

from vswin.errors import InputError
from vswin.models.video_swin import VideoSwin
from vswin.runtime import logger
from vswin.weights.checkpoint import read_metadata
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors


class BestWeights:
    """Saves a model whenever an epoch has been its best.

    The best epoch is the one with the highest top-1 in validation; of equals, the first. The file alone knows it: so
    nothing contradicts it if a run is killed after it was written and before the state was.

    Args:
        path: the file.
        model: whose weights it holds.
        log: which of an epoch's figures decides, e.g. `val_top1`.
        name: what the weights are called in messages.
    """

    def __init__(self, path: Path, model: VideoSwin, log: str, name: str) -> None:
        self.path = path
        self.model = model
        self.log = log
        self.name = name
        self.epoch = 0
        self.top1 = -1.0

    def offer(self, epoch: int, logs: dict[str, float], metadata: dict[str, Any], is_chief: bool) -> None:
        """Saves the weights if they are the best so far, or the file of those that were is gone.

        Args:
            epoch: the epoch that has just ended, counted from 1.
            logs: its figures.
            metadata: written beside the weights, with the epoch and, as `val_top1`, their accuracy.
            is_chief: whether this process writes.
        """
        top1 = float(logs[self.log])
        is_better, is_gone = top1 > self.top1, is_chief and self.epoch > 0 and not self.path.exists()
        if is_chief and (is_better or is_gone):
            self.path.parent.mkdir(exist_ok=True)  # but not the run's folder: it was moved where it is gone
            about = metadata | {"epoch": epoch, "val_top1": top1}
            save_checkpoint(self.path, official_tensors(self.model), about)
        if is_better:
            self.epoch, self.top1 = epoch, top1
        elif is_gone:
            logger.warning(f"{self.path} was removed: it holds the {self.name} of epoch {epoch} now")

    def read(self, num_epochs: int) -> None:
        """Finds out which of some epochs was the best.

        Raises:
            InputError: if the file is gone or damaged.
        """
        if not self.path.exists():
            raise InputError(
                f"{self.path} is gone, the best {self.name} of {num_epochs} epochs; put it back, or start a new run in "
                "another output_dir"
            )
        best = read_metadata(self.path)
        self.epoch, self.top1 = best["epoch"], best["val_top1"]

    def __str__(self) -> str:
        """Says which epoch was the best and where its weights are."""
        return f"best epoch {self.epoch}: val top-1 {100 * self.top1:.1f} %, {self.name} in {self.path}"
